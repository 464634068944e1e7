package l7

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// logged returns what a log writes for records of one loop.
func logged(t testing.TB, records ...*Record) string {
	t.Helper()
	var out bytes.Buffer
	a := NewAccessLog(&out, 1)
	for _, r := range records {
		a.Write(0, r)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if a.Dropped() != 0 || a.Errors() != 0 {
		t.Fatalf("%d lines dropped, %d errors", a.Dropped(), a.Errors())
	}
	return out.String()
}

func with(change func(*Record)) *Record {
	r := usual()
	change(r)
	return r
}

// retried fails on two endpoints and is answered by the third.
func retried(r *Record) {
	r.Tries, r.Tried = [TriesKept]Try{}, 0
	r.AddTry(Try{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Time: -1, Err: fastpath.ErrRefused})
	r.AddTry(Try{Addr: netip.MustParseAddrPort("[fd00::2]:80"), Time: int64(5 * time.Second), Err: fastpath.ErrReset})
	r.AddTry(Try{Addr: netip.MustParseAddrPort("[::ffff:10.0.0.3]:80"), Status: 200, Bytes: 7, Time: int64(30 * time.Millisecond)})
}

var logLines = []struct {
	name   string
	record *Record
	text   string
}{
	{"usual", usual(),
		`192.0.2.7 - - [18/Nov/2026:12:06:40 +0100] "GET /a/b?c=d HTTP/1.1" 200 1024 "https://shop.example/" ` +
			`"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36" 431 0.002 [shop-front-http] [] ` +
			`10.0.0.3:8080 1024 0.002 200 4e1f0c5a9b2d4c6f8a7b6c5d4e3f2a1b`},
	{"nothing known", &Record{Now: usual().Now, Status: 400, Err: wire.ErrRequestLine},
		`- - - [18/Nov/2026:12:06:40 +0100] "-" 400 0 "-" "-" 0 0.000 [-] [] - - - - -`},
	{"retries", with(retried),
		`192.0.2.7 - - [18/Nov/2026:12:06:40 +0100] "GET /a/b?c=d HTTP/1.1" 200 1024 "https://shop.example/" ` +
			`"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36" 431 0.002 [shop-front-http] [] ` +
			`10.0.0.1:80, [fd00::2]:80, 10.0.0.3:80 0, 0, 7 -, 5.000, 0.030 -, -, 200 4e1f0c5a9b2d4c6f8a7b6c5d4e3f2a1b`},
	{"canary, user, default backend", with(func(r *Record) {
		r.User, r.Alternative, r.ID, r.Minor = []byte("ann"), "shop-canary-80", &Identity{Service: "x", Port: "1"}, 0
	}),
		`192.0.2.7 - ann [18/Nov/2026:12:06:40 +0100] "GET /a/b?c=d HTTP/1.0" 200 1024 "https://shop.example/" ` +
			`"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36" 431 0.002 [upstream-default-backend] [shop-canary-80] ` +
			`10.0.0.3:8080 1024 0.002 200 4e1f0c5a9b2d4c6f8a7b6c5d4e3f2a1b`},
	{"hostile", with(func(r *Record) {
		r.Remote = netip.MustParseAddr("fe80::1%\n\" 200")
		r.User, r.RequestID = []byte("a b] \"x\""), []byte("i d\r\n")
		r.Target, r.Referer, r.UserAgent = []byte("/\"\\x22\n"), []byte("\x00\x1b[2J\x7f"), []byte("\xff\u00e4")
	}),
		`fe80::1 - a\x20b\x5D\x20\x22x\x22 [18/Nov/2026:12:06:40 +0100] "GET /\x22\x5Cx22\x0A HTTP/1.1" 200 1024 ` +
			`"\x00\x1B[2J\x7F" "\xFF\xC3\xA4" 431 0.002 [shop-front-http] [] 10.0.0.3:8080 1024 0.002 200 i\x20d\x0D\x0A`},
}

func TestAccessLogText(t *testing.T) {
	for _, c := range logLines {
		t.Run(c.name, func(t *testing.T) {
			if got := logged(t, c.record); got != c.text+"\n" {
				t.Errorf("got\n%swant\n%s", got, c.text)
			}
		})
	}
}

func TestAccessLogJSON(t *testing.T) {
	got := logged(t, with(func(r *Record) { r.Format, r.TLS, r.Server = LogJSON, true, []byte("shop.example") }))
	want := `{"time":"2026-11-18T12:06:40.123+01:00","remote_addr":"192.0.2.7","remote_user":"",` +
		`"req_id":"4e1f0c5a9b2d4c6f8a7b6c5d4e3f2a1b","tls":true,"ssl_server_name":"shop.example","host":"shop.example",` +
		`"method":"GET","uri":"/a/b?c=d","protocol":"HTTP/1.1","status":200,"body_bytes_sent":1024,"bytes_sent":1301,` +
		`"request_length":431,"request_time":0.002345,"http_referer":"https://shop.example/",` +
		`"http_user_agent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36","namespace":"shop","ingress":"web",` +
		`"service":"front","port":"http","proxy_upstream_name":"shop-front-http","proxy_alternative_upstream_name":"",` +
		`"upstream":[{"addr":"10.0.0.3:8080","status":200,"response_length":1024,"response_time":0.002100}]}` + "\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, c := range logLines {
		t.Run(c.name, func(t *testing.T) {
			r := *c.record
			r.Format = LogJSON
			line := logged(t, &r)
			var v map[string]any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			if v["status"] != float64(r.Status) || v["uri"] != string(r.Target) || (v["error"] == nil) != (r.Err == nil) {
				t.Errorf("line is %s", line)
			}
			if n := len(v["upstream"].([]any)); n != len(r.tries()) {
				t.Errorf("%d tries in %s", n, line)
			}
		})
	}
}

var textLine = regexp.MustCompile(`^(\S+) - (\S+) \[([^\]]+)\] "((?:[^"\\]|\\x[0-9A-F]{2})*)" (\d+) (\d+) ` +
	`"((?:[^"\\]|\\x[0-9A-F]{2})*)" "((?:[^"\\]|\\x[0-9A-F]{2})*)" (\d+) (\d+\.\d{3}) \[(\S*)\] \[(\S*)\] ` +
	`(\S+) (\S+) (\S+) (\S+) (\S+)\n$`)

var textEscape = regexp.MustCompile(`\\x[0-9A-F]{2}`)

// unescape undoes the text form's escapes.
func unescape(s string) string {
	return textEscape.ReplaceAllStringFunc(s, func(e string) string {
		c, _ := strconv.ParseUint(e[2:], 16, 8)
		return string([]byte{byte(c)})
	})
}

// shortened is what is left of a value after limit.
func shortened(s string, limit int) string {
	if len(s) > limit {
		return s[:limit] + cutMark
	}
	return s
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// chosen is what a client chooses of a record.
type chosen struct{ method, target, user, referer, agent, id, host, server string }

// verify holds a record of c to what a log promises, whatever a client sends: it is one line, of printable ASCII in the
// text form and valid JSON in the other, with every value in its place, and no longer than a buffer has room for.
func (c chosen) verify(t *testing.T, b []byte) {
	t.Helper()
	r := with(func(r *Record) {
		r.MethodText, r.Target, r.User, r.Referer = []byte(c.method), []byte(c.target), []byte(c.user), []byte(c.referer)
		r.UserAgent, r.RequestID, r.Host, r.Server = []byte(c.agent), []byte(c.id), []byte(c.host), []byte(c.server)
	})
	var stamp logStamp
	stamp.set(r.Now)
	text := appendText(b[:0], r, &stamp)
	if len(text) > logLineMax {
		t.Errorf("text has %d bytes, more than logLineMax", len(text))
	}
	c.verifyText(t, text)
	line := appendJSON(b[:0], r, &stamp)
	if len(line) > logLineMax {
		t.Errorf("JSON has %d bytes, more than logLineMax", len(line))
	}
	c.verifyJSON(t, line)
}

func (c chosen) verifyText(t *testing.T, text []byte) {
	t.Helper()
	m := textLine.FindSubmatch(text)
	odd := func(c rune) bool { return c < ' ' || c > '~' }
	if m == nil || bytes.ContainsFunc(text[:len(text)-1], odd) {
		t.Fatalf("not a line: %q", text)
	}
	request := "-"
	if c.method != "" {
		request = shortened(c.method, logValueMax) + " " + shortened(c.target, logTargetMax) + " HTTP/1.1"
	}
	for group, want := range map[int]string{2: orDash(shortened(c.user, logValueMax)), 4: request,
		7: orDash(shortened(c.referer, logValueMax)), 8: orDash(shortened(c.agent, logValueMax)), 17: orDash(shortened(c.id, logValueMax))} {
		if got := unescape(string(m[group])); got != want {
			t.Errorf("field %d is %q, want %q", group, got, want)
		}
	}
}

func (c chosen) verifyJSON(t *testing.T, line []byte) {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(line, &v); err != nil || !utf8.Valid(line) || line[len(line)-1] != '\n' {
		t.Fatalf("%v in %q", err, line)
	}
	odd := func(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 || c == '\u2028' || c == '\u2029' }
	if bytes.ContainsFunc(line[:len(line)-1], odd) {
		t.Fatalf("control character in %q", line)
	}
	for name, want := range map[string]string{"method": shortened(c.method, logValueMax), "uri": shortened(c.target, logTargetMax),
		"remote_user": shortened(c.user, logValueMax), "http_referer": shortened(c.referer, logValueMax), "host": shortened(c.host, logValueMax),
		"http_user_agent": shortened(c.agent, logValueMax), "req_id": shortened(c.id, logValueMax), "ssl_server_name": shortened(c.server, logValueMax)} {
		if got := v[name]; got != string([]rune(want)) { // rune by rune, as JSON replaces what is not UTF-8
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestAccessLogLongest(t *testing.T) {
	for _, c := range []string{"\x01", "\"", "\xff", "\n", "ä", "\u2028", " ", "x", "\x7f\\€"} {
		v := strings.Repeat(c, 2*logTargetMax)
		chosen{v, v, v, v, v, v, v, v}.verify(t, nil)
	}
}

func FuzzAccessLog(f *testing.F) {
	f.Add("GET", "/", "ann", "r", "agent", "id", "host", "sni")
	f.Add("", "\n127.0.0.1 - - [", "a] [b", `" 200 0 "`, "\\\"\x00\x1b", "1\n2", "\u2028\u0085", "\xff\xfe\xc3")
	f.Add("M", `\x22`, "\\", "\"}\n{\"", "\u009b2J", "\r", "\t", "\x7f")
	b := make([]byte, 0, logLineMax)
	f.Fuzz(func(t *testing.T, method, target, user, referer, agent, id, host, server string) {
		chosen{method, target, user, referer, agent, id, host, server}.verify(t, b)
	})
}

// stuck is a writer that takes nothing until it is released.
type stuck struct {
	release chan struct{}
	out     bytes.Buffer
}

func (w *stuck) Write(b []byte) (int, error) {
	<-w.release
	return w.out.Write(b)
}

// TestAccessLogNeverWaits writes far more than the buffers hold to a writer that is stuck, and lets it go.
func TestAccessLogNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{release: make(chan struct{})}
		a := NewAccessLog(w, 1)
		const lines = 20_000
		for range lines { // a wait here would be a deadlock
			a.Write(0, usual())
			a.Tick(0)
		}
		if a.Dropped() != lines-logBuffers { // Tick hands over each line alone
			t.Errorf("%d lines dropped of %d, want all but %d", a.Dropped(), lines, logBuffers)
		}
		close(w.release)
		synctest.Wait()
		a.Write(0, usual())
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(w.out.String(), "\n"); n != logBuffers+1 || a.Dropped() != lines-logBuffers {
			t.Errorf("%d lines written and %d dropped after the writer caught up", n, a.Dropped())
		}
	})
}

func TestAccessLogCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{release: make(chan struct{})}
		a := NewAccessLog(w, 1)
		a.Write(0, usual())
		if err := a.Close(); err != errLogBehind {
			t.Errorf("closing a log whose writer is stuck: %v", err)
		}
		close(w.release)
	})
}

// TestAccessLogOrder has several loops write at once, each pausing when the log is behind: all lines arrive, those of one
// loop in their order.
func TestAccessLogOrder(t *testing.T) {
	const loops, lines = 3, 5000
	var out bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		a := NewAccessLog(&out, loops)
		var wg sync.WaitGroup
		for loop := range loops {
			wg.Go(func() {
				l, r := &a.loops[loop], usual()
				r.User = []byte{byte('a' + loop)}
				for i := range lines {
					for l.filling[logHTTP] == nil && len(l.free[logHTTP]) == 0 {
						time.Sleep(time.Millisecond)
					}
					r.BodyBytes = int64(i)
					a.Write(loop, r)
					if i%700 == 0 {
						a.Tick(loop)
					}
				}
			})
		}
		wg.Wait()
		if err := a.Close(); err != nil || a.Dropped() != 0 {
			t.Fatalf("%v; %d lines dropped", err, a.Dropped())
		}
	})
	next := map[string]int{}
	for line := range strings.Lines(out.String()) {
		m := textLine.FindStringSubmatch(line)
		if m == nil || m[6] != strconv.Itoa(next[m[2]]) {
			t.Fatalf("a line out of its place: %q", line)
		}
		next[m[2]]++
	}
	if len(next) != loops || next["a"] != lines || next["b"] != lines || next["c"] != lines {
		t.Errorf("lines by loop: %v", next)
	}
}

// failing writes as told: each element is how many bytes a Write takes before it fails; -1: all, without an error.
type failing struct {
	takes []int
	out   strings.Builder
}

func (w *failing) Write(b []byte) (int, error) {
	take := -1
	if len(w.takes) > 0 {
		take, w.takes = w.takes[0], w.takes[1:]
	}
	if take < 0 {
		return w.out.Write(b)
	}
	take = min(take, len(b))
	w.out.Write(b[:take])
	return take, errors.New("no space left on device")
}

// TestAccessLogErrors: a write that fails costs its own lines only, and no line is glued to what a torn one left.
func TestAccessLogErrors(t *testing.T) {
	line := func(i int) *Record { return with(func(r *Record) { r.User = []byte(fmt.Sprint("u", i)) }) }
	one := logged(t, line(1))
	for _, c := range []struct {
		name   string
		takes  []int // for buffers of one line each
		lost   uint64
		errors uint64
		want   string
	}{
		{"sound", []int{-1, -1, -1}, 0, 0, logged(t, line(0), line(1), line(2))},
		{"full for a while", []int{0, 0, -1}, 2, 2, logged(t, line(2))},
		{"torn, then well", []int{10, -1, -1}, 1, 1, one[:10] + "\n" + logged(t, line(1), line(2))},
		{"torn, then full, then well", []int{10, 0, -1}, 2, 2, one[:10] + "\n" + logged(t, line(2))},
		{"torn, then only the line feed", []int{10, 1, -1}, 2, 2, one[:10] + "\n" + logged(t, line(2))},
		{"error after the whole line", []int{len(one), -1, -1}, 0, 1, logged(t, line(0), line(1), line(2))},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := &failing{takes: c.takes}
			a := NewAccessLog(w, 1)
			for i := range 3 {
				a.Write(0, line(i))
				a.Tick(0)
				synctest.Wait()
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			if a.Dropped() != c.lost || a.Errors() != c.errors || w.out.String() != c.want {
				t.Errorf("%s: %d lost, %d errors, want %d and %d; written\n%swant\n%s",
					c.name, a.Dropped(), a.Errors(), c.lost, c.errors, w.out.String(), c.want)
			}
		})
	}
}

func TestAccessLogBrokenPipe(t *testing.T) {
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	defer out.Close()
	a := NewAccessLog(out, 1)
	a.Write(0, usual())
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if a.Dropped() != 1 || a.Errors() != 1 {
		t.Errorf("%d lines dropped, %d errors, want 1 and 1", a.Dropped(), a.Errors())
	}
}

// TestAccessLogHandsOver: when lines come out without Close.
func TestAccessLogHandsOver(t *testing.T) {
	at := func(ms int64) *Record {
		return with(func(r *Record) { r.Now = time.UnixMilli(1_795_000_000_000 + ms) })
	}
	for _, c := range []struct {
		name string
		do   func(*AccessLog)
		want int // buffers handed over
	}{
		{"nothing to hand over", func(a *AccessLog) { a.Tick(0) }, 0},
		{"young lines wait", func(a *AccessLog) { a.Write(0, at(0)); a.Write(0, at(999)) }, 0},
		{"a second has begun", func(a *AccessLog) { a.Write(0, at(999)); a.Write(0, at(1000)) }, 1},
		{"tick", func(a *AccessLog) { a.Write(0, at(0)); a.Tick(0); a.Tick(0) }, 1},
		{"full", func(a *AccessLog) {
			for a.loops[0].filling[logHTTP] == nil || len(a.loops[0].filling[logHTTP].b) < logBufferBytes-1000 {
				a.Write(0, at(0))
			}
			for range 10 {
				a.Write(0, at(0))
			}
		}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := &stuck{release: make(chan struct{})}
			a := NewAccessLog(w, 1)
			c.do(a)
			l := &a.loops[0]
			out := logBuffers - len(l.free[logHTTP])
			if l.filling[logHTTP] != nil {
				out--
			}
			if out != c.want {
				t.Errorf("%d buffers were handed over, want %d", out, c.want)
			}
			close(w.release)
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestAccessLogAllocatesNothing(t *testing.T) {
	a := NewAccessLog(io.Discard, 1)
	defer a.Close()
	for _, format := range []LogFormat{LogUpstream, LogJSON} {
		r := with(retried)
		r.Format, r.UserAgent, r.Err = format, []byte("\"quoted\" \xff ä\u2028"), fastpath.ErrReset
		write := func() {
			for len(a.loops[0].free[logHTTP]) == 0 { // a dropped line would prove nothing
				runtime.Gosched()
			}
			r.Now = r.Now.Add(time.Second) // the costlier way: a new stamp each time
			a.Write(0, r)
			a.Tick(0)
		}
		write()
		if n := testing.AllocsPerRun(1000, write); n != 0 {
			t.Errorf("format %d: %v allocations a line", format, n)
		}
	}
	if a.Dropped() > 0 {
		t.Errorf("%d lines dropped", a.Dropped())
	}
}

func BenchmarkAccessLog(b *testing.B) {
	for name, format := range map[string]LogFormat{"text": LogUpstream, "json": LogJSON} {
		b.Run(name, func(b *testing.B) {
			a := NewAccessLog(io.Discard, 1)
			defer a.Close()
			l, r := &a.loops[0], with(func(r *Record) { r.Format = format })
			for b.Loop() {
				for l.filling[logHTTP] == nil && len(l.free[logHTTP]) == 0 { // a dropped line would cost nothing
					runtime.Gosched()
				}
				a.Write(0, r)
			}
			if a.Dropped() > 0 {
				b.Errorf("%d lines dropped", a.Dropped())
			}
		})
	}
}
