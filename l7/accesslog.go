package l7

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Bounds of the access log. A longer value is cut and ends in "...".
const (
	logBufferBytes  = 256 << 10       // a loop's buffer is handed to the writer when it has this many bytes: each time wakes a thread
	logBuffers      = 2               // buffers of a loop for each kind of lines: one is filled while the other is written
	logTargetMax    = 8 << 10         // bytes of a target; a request line is not longer by default
	logValueMax     = 2 << 10         // bytes of any other value that a client chose
	logNameMax      = 512             // bytes of a name out of the configuration
	logCloseTimeout = 5 * time.Second // how long Close waits for a writer that is behind

	// logLineMax is more than any line can have: each byte of a value becomes at most six.
	logLineMax = 6*(logTargetMax+7*logValueMax+5*logNameMax) + 4<<10
)

// AccessLog writes a line for each Record to standard output or a file (Open), as ingress-nginx's log-format-upstream or as
// JSON. Loops append lines to buffers of their own; a goroutine of the log's writes full ones, and has the files. When the
// writer is behind by all of a loop's buffers, that loop's lines are dropped and counted: traffic never waits for the log.
//
// Write and Tick are called on the loop that they name. Whatever bytes a client sends, a record is one line, and its
// fields stand where they belong: text escapes as nginx does (\xHH), and in fields without quotes also blanks and
// brackets; JSON escapes control characters and replaces what is not UTF-8.
type AccessLog struct {
	Logger *slog.Logger // is told of files that cannot be opened; nil: slog.Default. To be set before Open

	loops []logLoop
	full  chan *logBuffer // has room for all buffers there are: sending never waits
	done  chan struct{}

	paths atomic.Pointer[LogPaths] // nil: standard output
	apart atomic.Bool              // the kinds of lines go to different places
	split bool                     // … at some time did: there are buffers for each. Whoever calls Open has it
	again atomic.Bool              // files are to be opened again
	woken chan struct{}

	// The writer goroutine's.
	followed         *LogPaths
	sinks            [logKinds]*logSink
	standard, errors logSink // standard output and standard error
	open             func(path string) (*os.File, error)

	lost   atomic.Uint64
	failed atomic.Uint64
}

// logLoop is one loop's part.
type logLoop struct {
	_       cacheLine
	filling [logKinds]*logBuffer      // nil: to be taken from free. Of HTTP alone while all lines go to one place
	free    [logKinds]chan *logBuffer // written ones come back
	stamp   logStamp
	dropped Counter
	_       cacheLine
}

// logBuffer holds whole lines. b[0] is a line feed, which is written only after a torn line.
type logBuffer struct {
	b     []byte
	lines int
	since int64 // second of the first line
	kind  logKind
	home  chan *logBuffer
}

func (b *logBuffer) reset() { b.b, b.lines = append(b.b[:0], '\n'), 0 }

// NewAccessLog starts a log of the loops 0 … loops-1 to out, which is the process's standard output or stands for it. Close
// ends it.
func NewAccessLog(out io.Writer, loops int) *AccessLog {
	a := &AccessLog{loops: make([]logLoop, loops), full: make(chan *logBuffer, loops*logBuffers*int(logKinds)),
		done: make(chan struct{}), woken: make(chan struct{}, 1), open: openLogFile}
	a.standard.out, a.errors.out = out, os.Stderr
	a.sinks = [logKinds]*logSink{&a.standard, &a.standard}
	for i := range a.loops {
		for kind := range logKinds {
			a.loops[i].free[kind] = make(chan *logBuffer, logBuffers)
		}
	}
	a.addBuffers(logHTTP)
	go a.run()
	return a
}

// addBuffers gives every loop its buffers for a kind of lines.
func (a *AccessLog) addBuffers(kind logKind) {
	for i := range a.loops {
		home := a.loops[i].free[kind]
		for range logBuffers {
			b := &logBuffer{b: make([]byte, 0, 1+logBufferBytes+logLineMax), kind: kind, home: home}
			b.reset()
			home <- b
		}
	}
}

// Write appends r's line. It neither waits nor allocates.
func (a *AccessLog) Write(loop int, r *Record) {
	l := &a.loops[loop]
	b := l.begin(logHTTP, r.Now)
	if b == nil {
		return
	}
	switch {
	case r.Template != nil:
		b.b = r.Template.append(b.b, r, &l.stamp)
	case r.Format == LogJSON:
		b.b = appendJSON(b.b, r, &l.stamp)
	default:
		b.b = appendText(b.b, r, &l.stamp)
	}
	a.endLine(l, b)
}

// begin gives the buffer for a line at the time of day now; nil: the writer is behind, and the line is counted as lost.
func (l *logLoop) begin(kind logKind, now time.Time) *logBuffer {
	second := l.stamp.set(now)
	if l.filling[kind] == nil && !l.take(kind, second) {
		l.dropped.Inc()
		return nil
	}
	return l.filling[kind]
}

// endLine follows once a line stands in the buffer.
func (a *AccessLog) endLine(l *logLoop, b *logBuffer) {
	b.lines++
	if len(b.b) > logBufferBytes || l.stamp.second != b.since {
		a.handOver(l, b.kind)
	}
}

// Tick hands over the lines that wait, so that the last lines of a loop that falls silent come out. To be called every
// second.
func (a *AccessLog) Tick(loop int) {
	for kind := range logKinds {
		a.handOver(&a.loops[loop], kind)
	}
}

// take makes a written buffer the one that is filled; false: the writer is behind.
func (l *logLoop) take(kind logKind, second int64) bool {
	select {
	case l.filling[kind] = <-l.free[kind]:
		l.filling[kind].since = second
		return true
	default:
		return false
	}
}

func (a *AccessLog) handOver(l *logLoop, kind logKind) {
	if b := l.filling[kind]; b != nil && b.lines > 0 {
		a.full <- b
		l.filling[kind] = nil
	}
}

// Dropped is how many lines did not reach the writer, or were given to it in vain. From any goroutine.
func (a *AccessLog) Dropped() uint64 {
	n := a.lost.Load()
	for i := range a.loops {
		n += a.loops[i].dropped.Load()
	}
	return n
}

// Errors is how many writes failed. From any goroutine.
func (a *AccessLog) Errors() uint64 { return a.failed.Load() }

var errLogBehind = errors.New("access log: its writer did not take the last lines in time; they are lost")

// Close writes what waits and ends the log. It is called once, when the loops have ended; nothing may be written after.
func (a *AccessLog) Close() error {
	for i := range a.loops {
		a.Tick(i)
	}
	close(a.full)
	late := time.NewTimer(logCloseTimeout)
	defer late.Stop()
	select {
	case <-a.done:
		return nil
	case <-late.C:
		return errLogBehind
	}
}

// run writes buffers in the order in which they were handed over.
func (a *AccessLog) run() {
	defer close(a.done)
	defer a.closeFiles()
	for {
		select {
		case b, more := <-a.full:
			if !more {
				return
			}
			a.follow()
			a.write(b)
			b.reset()
			b.home <- b
		case <-a.woken:
			a.follow()
		}
	}
}

func (a *AccessLog) closeFiles() {
	for _, s := range a.sinks {
		s.close()
	}
}

// write writes one buffer. An error costs the lines that did not get through, and nothing else: the next buffer is
// tried again, on a line of its own.
func (a *AccessLog) write(b *logBuffer) {
	to := a.sinks[b.kind]
	if to.out == nil {
		to = &a.standard
	}
	begin := 1
	if to.torn {
		begin = 0
	}
	n, err := to.out.Write(b.b[begin:])
	if err == nil {
		to.torn = false
		return
	}
	a.failed.Add(1)
	end := min(begin+max(n, 0), len(b.b))
	a.lost.Add(uint64(bytes.Count(b.b[max(end, 1):], []byte{'\n'})))
	if end > begin {
		to.torn = b.b[end-1] != '\n'
	}
}

// logStamp is the time of day as text, made once a second.
type logStamp struct {
	second int64
	local  []byte // 23/Nov/2026:05:40:12 +0000
	iso    []byte // 2026-11-23T05:40:12
	zone   []byte // Z or +01:00
	offset []byte // +00:00 or +01:00, as nginx has it
	millis int
}

// set makes t the time of the lines to come and returns its second.
func (s *logStamp) set(t time.Time) int64 {
	second := t.Unix()
	s.millis = t.Nanosecond() / 1e6
	if second != s.second || s.local == nil {
		s.second = second
		s.local = t.AppendFormat(s.local[:0], "02/Jan/2006:15:04:05 -0700")
		s.iso = t.AppendFormat(s.iso[:0], "2006-01-02T15:04:05")
		s.zone = t.AppendFormat(s.zone[:0], "Z07:00")
		s.offset = t.AppendFormat(s.offset[:0], "-07:00")
	}
	return second
}

// appendText appends a line of ingress-nginx's format:
//
//	$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"
//	$request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr
//	$upstream_response_length $upstream_response_time $upstream_status $req_id
func appendText(b []byte, r *Record, now *logStamp) []byte {
	b = appendRemote(b, r.Remote, '-')
	b = append(b, " - "...)
	b = appendBare(b, r.User)
	b = append(b, " ["...)
	b = append(b, now.local...)
	b = append(b, `] "`...)
	b = appendRequestLine(b, r)
	b = append(b, `" `...)
	b = appendInt(b, int64(r.Status), ' ')
	b = appendInt(b, r.BodyBytes, ' ')
	b = appendQuoted(b, r.Referer)
	b = append(b, ' ')
	b = appendQuoted(b, r.UserAgent)
	b = append(b, ' ')
	b = appendInt(b, r.RequestBytes, ' ')
	b = appendMillis(b, r.Duration)
	b = append(b, " ["...)
	b = appendCluster(b, r.ID, appendBareName)
	b = append(b, "] ["...)
	b = appendBareName(b, r.Alternative)
	b = append(b, "] "...)
	b = appendTries(b, r)
	b = appendBare(b, r.RequestID)
	return append(b, '\n')
}

func appendRequestLine(b []byte, r *Record) []byte {
	if len(r.MethodText) == 0 {
		return append(b, '-')
	}
	b = appendEscaped(b, r.MethodText, logValueMax, safeQuoted)
	b = append(b, ' ')
	b = appendEscaped(b, r.Target, logTargetMax, safeQuoted)
	return appendVersion(append(b, ' '), r)
}

func appendVersion(b []byte, r *Record) []byte {
	return append(b, 'H', 'T', 'T', 'P', '/', '0'+max(r.Major, 1)%10, '.', '0'+r.Minor%10)
}

// appendTries appends nginx's four lists about the endpoints that were tried, each with a blank behind it.
func appendTries(b []byte, r *Record) []byte {
	tries := r.tries()
	if len(tries) == 0 {
		return append(b, "- - - - "...)
	}
	b = appendList(b, tries, appendTryAddr)
	b = appendList(b, tries, appendTryBytes)
	b = appendList(b, tries, appendTryTime)
	return appendList(b, tries, appendTryStatus)
}

func appendTryAddr(b []byte, t *Try) []byte { return appendAddrPort(b, t.Addr) }

func appendTryBytes(b []byte, t *Try) []byte { return strconv.AppendInt(b, t.Bytes, 10) }

func appendTryTime(b []byte, t *Try) []byte {
	if t.Time < 0 {
		return append(b, '-')
	}
	return appendMillis(b, t.Time)
}

func appendTryStatus(b []byte, t *Try) []byte {
	if t.Status == 0 {
		return append(b, '-')
	}
	return strconv.AppendInt(b, int64(t.Status), 10)
}

func appendList(b []byte, tries []Try, appendOne func([]byte, *Try) []byte) []byte {
	for i := range tries {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendOne(b, &tries[i])
	}
	return append(b, ' ')
}

// appendCluster appends namespace-service-port, as ingress-nginx names what a request was sent to.
func appendCluster(b []byte, id *Identity, appendName func([]byte, string) []byte) []byte {
	switch {
	case id == nil || id.Service == "":
		return append(b, '-')
	case id.Namespace == "":
		return append(b, "upstream-default-backend"...)
	}
	b = appendName(b, id.Namespace)
	b = append(b, '-')
	b = appendName(b, id.Service)
	b = append(b, '-')
	return appendName(b, id.Port)
}

// appendJSON appends a line that is one JSON object. Its names are nginx's where nginx has one.
func appendJSON(b []byte, r *Record, now *logStamp) []byte {
	b = append(b, `{"time":"`...)
	b = appendISO(b, now)
	b = append(b, `","remote_addr":"`...)
	b = appendRemote(b, r.Remote, 0)
	b = appendMember(b, `","remote_user":"`, r.User, logValueMax)
	b = appendMember(b, `","req_id":"`, r.RequestID, logValueMax)
	b = append(b, `","tls":`...)
	b = strconv.AppendBool(b, r.TLS)
	b = appendMember(b, `,"ssl_server_name":"`, r.Server, logValueMax)
	b = appendMember(b, `","host":"`, r.Host, logValueMax)
	b = appendMember(b, `","method":"`, r.MethodText, logValueMax)
	b = appendMember(b, `","uri":"`, r.Target, logTargetMax)
	b = appendVersion(append(b, `","protocol":"`...), r)
	b = append(b, `","status":`...)
	b = appendInt(b, int64(r.Status), ',')
	b = append(b, `"body_bytes_sent":`...)
	b = appendInt(b, r.BodyBytes, ',')
	b = append(b, `"bytes_sent":`...)
	b = appendInt(b, r.BytesSent, ',')
	b = append(b, `"request_length":`...)
	b = appendInt(b, r.RequestBytes, ',')
	b = append(b, `"request_time":`...)
	b = appendMicros(b, r.Duration)
	b = appendMember(b, `,"http_referer":"`, r.Referer, logValueMax)
	b = appendMember(b, `","http_user_agent":"`, r.UserAgent, logValueMax)
	b = append(b, '"')
	b = appendJSONRoute(b, r)
	b = appendJSONTries(b, r.tries())
	if e := r.Err; e != nil {
		b = appendNamed(b, `,"fault":"`, e.Fault.String())
		b = appendNamed(b, `","kind":"`, e.Kind.String())
		b = appendNamed(b, `","error":"`, e.Text)
		b = append(b, '"')
	}
	return append(b, "}\n"...)
}

func appendJSONRoute(b []byte, r *Record) []byte {
	var id Identity
	if r.ID != nil {
		id = *r.ID
	}
	b = appendNamed(b, `,"namespace":"`, id.Namespace)
	b = appendNamed(b, `","ingress":"`, id.Ingress)
	b = appendNamed(b, `","service":"`, id.Service)
	b = appendNamed(b, `","port":"`, id.Port)
	b = append(b, `","proxy_upstream_name":"`...)
	b = appendCluster(b, r.ID, appendJSONName)
	b = appendNamed(b, `","proxy_alternative_upstream_name":"`, r.Alternative)
	return append(b, '"')
}

func appendJSONTries(b []byte, tries []Try) []byte {
	b = append(b, `,"upstream":[`...)
	for i := range tries {
		t := &tries[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"addr":"`...)
		b = appendAddrPort(b, t.Addr)
		b = append(b, `","status":`...)
		b = appendInt(b, int64(t.Status), ',')
		b = append(b, `"response_length":`...)
		b = appendInt(b, t.Bytes, ',')
		b = append(b, `"response_time":`...)
		if t.Time < 0 {
			b = append(b, "null"...)
		} else {
			b = appendMicros(b, t.Time)
		}
		if t.Err != nil {
			b = appendNamed(b, `,"error":"`, t.Err.Text)
			b = append(b, '"')
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendRemote appends an address without its zone, which is text that a peer may have chosen.
func appendRemote(b []byte, a netip.Addr, absent byte) []byte {
	if a.IsValid() {
		return a.Unmap().WithZone("").AppendTo(b)
	}
	if absent != 0 {
		b = append(b, absent)
	}
	return b
}

func appendAddrPort(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, '-')
	}
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()).AppendTo(b)
}

func appendInt(b []byte, n int64, then byte) []byte { return append(strconv.AppendInt(b, n, 10), then) }

// appendMillis appends nanoseconds as seconds with three decimals, cut off as nginx does.
func appendMillis(b []byte, ns int64) []byte {
	ms := max(ns, 0) / 1e6
	return appendFraction(strconv.AppendInt(b, ms/1e3, 10), ms%1e3, 3)
}

// appendMicros appends nanoseconds as seconds with six decimals.
func appendMicros(b []byte, ns int64) []byte {
	us := max(ns, 0) / 1e3
	return appendFraction(strconv.AppendInt(b, us/1e6, 10), us%1e6, 6)
}

// appendFraction appends a point and n as so many decimals, at most six.
func appendFraction(b []byte, n int64, decimals int) []byte {
	b = append(b, ".000000"[:1+decimals]...)
	for at := len(b) - 1; n > 0; at-- {
		b[at] = '0' + byte(n%10)
		n /= 10
	}
	return b
}

// What a byte may stand for itself in.
const (
	safeQuoted = 1 << iota // a field in quotes
	safeBare               // a field that ends at a blank or a bracket
	safeJSON               // a JSON string
	safeLine               // a line
)

// logSafe tells for each byte where it needs no escape. nginx escapes quotes, backslashes, controls and all beyond ASCII.
var logSafe = func() (t [256]uint8) {
	for c := 0x20; c < 0x7f; c++ {
		switch c {
		case '"', '\\':
		case ' ', '[', ']':
			t[c] = safeQuoted | safeJSON
		default:
			t[c] = safeQuoted | safeBare | safeJSON
		}
		t[c] |= safeLine
	}
	for c := 0x80; c < 0x100; c++ {
		t[c] = safeLine
	}
	return t
}()

const (
	upperHex = "0123456789ABCDEF"
	lowerHex = "0123456789abcdef"
	cutMark  = "..."
)

func appendBare(b, v []byte) []byte {
	if len(v) == 0 {
		return append(b, '-')
	}
	return appendEscaped(b, v, logValueMax, safeBare)
}

func appendBareName(b []byte, name string) []byte {
	return appendEscaped(b, name, logNameMax, safeBare)
}

func appendQuoted(b, v []byte) []byte {
	b = append(b, '"')
	if len(v) == 0 {
		b = append(b, '-')
	}
	b = appendEscaped(b, v, logValueMax, safeQuoted)
	return append(b, '"')
}

// appendEscaped appends at most limit bytes of v as nginx's log does.
func appendEscaped[T []byte | string](b []byte, v T, limit int, safe uint8) []byte {
	short := v[:min(len(v), limit)]
	done := 0
	for i := 0; i < len(short); i++ {
		for i+4 <= len(short) && logSafe[short[i]]&logSafe[short[i+1]]&logSafe[short[i+2]]&logSafe[short[i+3]]&safe != 0 {
			i += 4
		}
		if i == len(short) {
			break
		}
		c := short[i]
		if logSafe[c]&safe != 0 {
			continue
		}
		b = append(b, short[done:i]...)
		b = append(b, '\\', 'x', upperHex[c>>4], upperHex[c&15])
		done = i + 1
	}
	b = append(b, short[done:]...)
	if len(short) < len(v) {
		b = append(b, cutMark...)
	}
	return b
}

// appendMember appends the text between two values, which ends in a quote, and a value as the inside of a JSON string.
func appendMember(b []byte, between string, v []byte, limit int) []byte {
	return appendJSONString(append(b, between...), v, limit)
}

// appendNamed is appendMember of our own text.
func appendNamed(b []byte, between, v string) []byte {
	return appendJSONName(append(b, between...), v)
}

func appendJSONName(b []byte, name string) []byte { return appendJSONString(b, name, logNameMax) }

// appendJSONString appends at most limit bytes of v as the inside of a JSON string. Control characters, those beyond
// ASCII too, are escaped: the line may be shown on a terminal.
func appendJSONString[T []byte | string](b []byte, v T, limit int) []byte {
	short := v[:min(len(v), limit)]
	done := 0
	for i := 0; i < len(short); {
		c := short[i]
		if logSafe[c]&safeJSON != 0 {
			i++
			continue
		}
		b = append(b, short[done:i]...)
		switch {
		case c == '"' || c == '\\':
			b, i = append(b, '\\', c), i+1
		case c < utf8.RuneSelf:
			b, i = append(b, '\\', 'u', '0', '0', lowerHex[c>>4], lowerHex[c&15]), i+1
		default:
			b, i = appendRune(b, string(short[i:min(i+utf8.UTFMax, len(short))]), i)
		}
		done = i
	}
	b = append(b, short[done:]...)
	if len(short) < len(v) {
		b = append(b, cutMark...)
	}
	return b
}

// appendRune appends the first character of v, which is beyond ASCII, and returns where the next one begins.
func appendRune(b []byte, v string, at int) ([]byte, int) {
	c, n := utf8.DecodeRuneInString(v)
	switch {
	case c == utf8.RuneError && n == 1:
		b = append(b, `\ufffd`...)
	case c < 0xa0, c == '\u2028', c == '\u2029':
		b = append(b, '\\', 'u', lowerHex[c>>12], lowerHex[c>>8&15], lowerHex[c>>4&15], lowerHex[c&15])
	default:
		b = append(b, v[:n]...)
	}
	return b, at + n
}
