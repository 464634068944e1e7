package main

import (
	"bytes"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// serveTest accepts connections until the test is over, and answers where.
func serveTest(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// answerUntil answers requests of HTTP/1.1 until told to be silent.
func answerUntil(silent func() bool) func(net.Conn) {
	return func(conn net.Conn) {
		var heard []byte
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			heard = append(heard, buf[:n]...)
			if bytes.HasSuffix(heard, endOfHead) && !silent() {
				heard = heard[:0]
				conn.Write(answerSmall)
			}
		}
	}
}

// TestSilenceIsAnError: a proxy that forgets connections fails as one that cuts them.
func TestSilenceIsAnError(t *testing.T) {
	never := func() bool { return true }
	few := func() func() bool {
		var n atomic.Int32
		return func() bool { return n.Add(1) > 10 }
	}
	for name, test := range map[string]struct {
		by     loadFunc
		load   load
		silent func() bool
	}{
		"never a word":        {loadKept, load{path: pathSmall}, never},
		"after some answers":  {loadKept, load{path: pathSmall}, few()},
		"open loop":           {loadKept, load{path: pathSmall, rate: 100}, never},
		"sent up":             {loadKept, load{path: pathSmall, upload: sizeSmall}, never},
		"HTTP/2":              {loadKept, load{path: pathSmall, speaks: speakHTTP2}, never},
		"WebSocket":           {loadKept, load{speaks: speakWebSocket}, never},
		"each its goroutine":  {loadConns, load{path: pathSmall}, few()},
		"new connections":     {loadConns, load{path: pathSmall, fresh: true}, few()},
		"no handshake either": {loadConns, load{path: pathSmall, tls: (&certificate{}).client(hostBench, false)}, never},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := test.load
			l.address, l.host, l.conns = serveTest(t, answerUntil(test.silent)), hostBench, 2
			got, err := test.by(t.Context(), l, 2*silenceMost)
			if err != nil || got.errors != 2 || got.example == "" {
				t.Errorf("%d errors (%q), want 2; %v", got.errors, got.example, err)
			}
		})
	}
}

// TestSlownessIsNoError: whoever moves is not silent, and a request that was just made may be under way.
func TestSlownessIsNoError(t *testing.T) {
	drip := func(conn net.Conn) {
		for _, b := range answerBulk {
			if _, err := conn.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	sip := func(conn net.Conn) {
		for buf := make([]byte, sizeBulk); ; time.Sleep(20 * time.Millisecond) {
			if _, err := io.ReadFull(conn, buf); err != nil {
				return
			}
		}
	}
	late := func(conn net.Conn) { time.Sleep(5 * time.Second) }
	plain, _, _, _ := startTestOrigin(t)
	slow := func(conn net.Conn) {
		to, err := net.Dial("tcp", plain)
		if err != nil {
			return
		}
		defer to.Close()
		go io.Copy(to, conn)
		io.Copy(conn, to)
	}
	const long = silenceMost + 500*time.Millisecond
	for name, test := range map[string]struct {
		by    loadFunc
		load  load
		serve func(net.Conn)
		takes time.Duration
	}{
		"a slow answer":                    {loadKept, load{path: pathBulk}, drip, long},
		"a slow answer to a goroutine":     {loadConns, load{path: pathBulk}, drip, long},
		"a slow request":                   {loadKept, load{path: pathSmall, upload: sizeHuge}, sip, long},
		"a slow backend":                   {loadKept, load{path: pathSlow}, slow, long},
		"a slow backend and a goroutine":   {loadConns, load{path: pathSlow}, slow, long},
		"too early to tell":                {loadKept, load{path: pathSmall}, late, silenceMost / 2},
		"too early to tell, a goroutine":   {loadConns, load{path: pathSmall}, late, silenceMost / 2},
		"too early to tell, a new session": {loadKept, load{path: pathSmall, speaks: speakHTTP2}, late, silenceMost / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := test.load
			l.address, l.host, l.conns = serveTest(t, test.serve), hostBench, 2
			if got, err := test.by(t.Context(), l, test.takes); err != nil || got.errors+got.bad != 0 {
				t.Errorf("%d errors, %d bad (%q), %v", got.errors, got.bad, got.example, err)
			}
		})
	}
}

// TestStreamsAreSilentByThemselves: of two streams of a connection one is forgotten while the other goes on.
func TestStreamsAreSilentByThemselves(t *testing.T) {
	count := newClientCount()
	c := newHTTP2Talk(load{host: hostBench, path: pathBulk, speaks: speakHTTP2, streams: 2}, count)
	said := appendFrame(nil, 0, 0x4, 0, 0) // SETTINGS
	begun := time.Now()
	count.now = begun
	if _, err := c.feed(said, nil); err != nil {
		t.Fatal(err)
	}
	c.ask(nil, begun)
	c.ask(nil, begun)
	count.now = begun.Add(time.Hour)
	if _, err := c.feed(append(appendFrame(nil, 1, 0x1, 0x4, 3), 0x88), nil); err != nil { // 200 on the second
		t.Fatal(err)
	}
	silent := 0
	p := &loadLoop{clientCount: count, conns: map[int32]*loadConn{}, end: count.now}
	p.conns[0] = &loadConn{loop: p, talk: c, moved: count.now}
	p.looked = count.now.Add(time.Hour)
	c.underWay(func(_, moved time.Time) {
		if moved.Equal(begun) {
			silent++
		}
	})
	p.settleUp()
	if silent != 1 || count.errors != 1 {
		t.Errorf("%d of two streams are silent, %d errors", silent, count.errors)
	}
}

// TestOpenLoopCountsWhatIsUnderWay: a request that was sent and has no answer yet has waited, too.
func TestOpenLoopCountsWhatIsUnderWay(t *testing.T) {
	address := serveTest(t, answerUntil(func() bool { return true }))
	got, err := loadKept(t.Context(), load{address: address, host: hostBench, path: pathSmall, conns: 8, rate: 20}, 300*time.Millisecond)
	if err != nil || got.requests != 0 || got.late != 0 || got.errors != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got.latencies.p99 < 100*time.Millisecond {
		t.Errorf("p99 is %v, and the first request waited some 200 ms", got.latencies.p99)
	}
}

// TestRequestsThatHangFail: a proxy that stops to answer when it is told something loses what was under way.
func TestRequestsThatHangFail(t *testing.T) {
	var silent atomic.Bool
	p := &running{plain: serveTest(t, answerUntil(silent.Load))}
	m, err := disturb(t.Context(), p, load{path: pathSmall}, func() error { silent.Store(true); return nil })
	if err != nil || m.Cost != disturbConns || m.Example == "" {
		t.Errorf("%v requests failed (%q), want %d; %v", m.Cost, m.Example, disturbConns, err)
	}
}
