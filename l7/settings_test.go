package l7

import (
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// TestResponseLimits: what the ConfigMap says about backends' heads holds for the next request, on sessions that are open
// already too.
func TestResponseLimits(t *testing.T) {
	const hint = "HTTP/1.1 103 Early Hints\r\n\r\n"
	head := func(fields string) string { return "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + fields + "\r\n" }
	for name, c := range map[string]struct {
		answer string
		most   func(*Settings) // just enough for it
		less   func(*Settings) // … and one less
	}{
		"bytes": {head("A: b\r\n"),
			func(s *Settings) { s.ResponseLimits.Head = len(head("A: b\r\n")) },
			func(s *Settings) { s.ResponseLimits.Head = len(head("A: b\r\n")) - 1 }},
		"line": {head("A: " + strings.Repeat("b", 497) + "\r\n"),
			func(s *Settings) { s.ResponseLimits.Line = 500 },
			func(s *Settings) { s.ResponseLimits.Line = 499 }},
		"fields": {head("A: b\r\nC: d\r\n"),
			func(s *Settings) { s.ResponseLimits.Fields = 3 },
			func(s *Settings) { s.ResponseLimits.Fields = 2 }},
		"interim heads": {hint + hint + head(""),
			func(s *Settings) { s.InterimMax = 2 },
			func(s *Settings) { s.InterimMax = 1 }},
		"no interim head": {hint + head(""),
			func(s *Settings) { s.InterimMax = 1 },
			func(s *Settings) { s.InterimMax = 0 }},
		"more than the defaults": {strings.Repeat(hint, 30) + head(strings.Repeat("A: b\r\n", 300)),
			func(s *Settings) { s.InterimMax, s.ResponseLimits.Fields = 30, 301 },
			func(s *Settings) {}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Policy.Tries = 1 })
			r.backend(answering(c.answer))
			cl := r.dial()
			ask := func(set func(*Settings), want int) {
				t.Helper()
				s := DefaultSettings()
				s.AccessLog = false
				set(s)
				r.on(func() { r.settings = s })
				cl.get("/")
				a := cl.response("GET")
				for a.StatusCode < 200 {
					a = cl.response("GET")
				}
				if a.StatusCode != want {
					t.Errorf("status %d, want %d", a.StatusCode, want)
				}
			}
			ask(c.most, 200)
			ask(c.less, 502)
			ask(c.most, 200)
		})
	}
}

// TestSlowReaderHoldsLittle: once a client is found not to read, no more waits for it than sluice-connection-buffer says.
func TestSlowReaderHoldsLittle(t *testing.T) {
	const buffer, size = 4 << 10, 16 << 20
	r := newRig(t, func(r *rig) { r.settings.Buffer = buffer })
	r.backend(func(p *peer) {
		for p.request() != nil {
			p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") // chunks are not spliced
			for range size >> 20 {
				_, _ = chunks{p}.Write(make([]byte, 1<<20))
			}
			p.send("0\r\n\r\n")
		}
	})
	cl := r.dial()
	h := r.engine()
	room := func() (n int) {
		r.on(func() { n = h.Room() })
		return n
	}
	if n := room(); n <= buffer {
		t.Errorf("%d bytes are taken at once for a client that has done nothing wrong", n)
	}
	cl.get("/")
	r.eventually("the client is found to be slow", func() (slow bool) {
		r.on(func() { slow = h.slow })
		return slow
	})
	if a := cl.response("GET"); len(a.body) != size || a.err != nil {
		t.Fatalf("%d bytes came, %v", len(a.body), a.err)
	}
	if n := room(); n != buffer {
		t.Errorf("%d bytes are taken at once for a slow client, want %d", n, buffer)
	}
}

// engine is the only connection's engine.
func (r *rig) engine() (h *http1) {
	r.Helper()
	r.eventually("the connection", func() bool {
		r.on(func() {
			r.loops[0].Some(0, 1<<20, func(other fastpath.Handler) bool { h, _ = other.(*http1); return h == nil })
		})
		return h != nil
	})
	return h
}

// TestShedSpares: only connections that wait for their next request are closed to make room, longest idle ones first.
func TestShedSpares(t *testing.T) {
	r := newRig(t)
	r.backend(mirror)
	fresh, begun, old, young := r.dial(), r.dial(), r.dial(), r.dial()
	begun.send("GET / HTTP/1.1\r\nHo")
	for _, c := range []*client{old, young} {
		c.get("/")
		c.expect("GET", 200, "GET / ")
	}
	// The loop's time is what counts, so the test makes one connection's wait longer.
	r.on(func() {
		r.loops[0].Some(0, 1<<20, func(h fastpath.Handler) bool {
			if c, ok := h.(*http1); ok && c.c.Remote().String() == old.LocalAddr().String() {
				c.c.SetDeadline(c.c.Deadline() - int64(2*time.Second))
			}
			return true
		})
		r.srv.Shed(r.loops[0], 1)
	})
	old.ends()
	if n := r.srv.Stats.Loops()[0].Shed.Load(); n != 1 {
		t.Errorf("%d were closed, want 1", n)
	}
	young.get("/")
	young.expect("GET", 200, "GET / ")
	r.on(func() { r.srv.Shed(r.loops[0], 100) })
	young.ends()
	begun.send("st: a\r\n\r\n")
	begun.expect("GET", 200, "GET / ")
	fresh.get("/")
	fresh.expect("GET", 200, "GET / ")
}
