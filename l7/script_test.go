package l7

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// FuzzConnScript leads a connection through a whole engine by a script: what the client sends and when it leaves, what the
// backends answer and when they break, and time that passes on a clock of the test's own. Whatever the order: the client's
// answers are those of its own requests in their order, no request that is not idempotent reaches a backend twice, and what
// follows on the same loop and pools is served rightly, with all descriptors, exchanges and streams returned (rig.end).
func FuzzConnScript(f *testing.F) {
	for _, s := range []string{
		"gar", "gagagar", "p..ar", "p.ta..r", "cb.b.e.ar", "gggaaa...r", // well behaved, pipelined, slow
		"g.A.Zr", "g.X", "g.R", "g.G.", "p.R", "p.X.", "g.IIa.r", "g.A.R", // backends that break
		"g.f", "p.f", "p.k", "g.k", "cb.k", "g.A.k", "gh.ar", "ph.", "z.", "gz.a", "cbz.", // clients that do
		"g.T.", "p.T.", "g.A.T.", "tT", "pt.tat.", "g.at.g.a", "gaT", "g.a.R.g.a.", "ga.X.p..a", "ga.R.p..a.", // time, reuse
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 60 {
			t.Skip("nothing new comes of longer ones")
		}
		s := &scripted{names: map[string]int{}}
		s.rig = newRig(t, func(r *rig) { r.route.Policy.BufferRequest = len(script)%2 == 0 })
		for range 2 {
			s.backend(s.serve)
		}
		s.client = s.dial()
		for _, op := range script {
			s.step(op)
		}
		s.finish()
	})
}

// scripted is a run of a script.
type scripted struct {
	*rig
	client *client
	asked  []string // names of the requests whose heads the client has sent
	left   int      // bytes of the present request's body that are to come; -1: chunks
	ended  bool     // the client sends nothing more
	gone   bool     // … and takes nothing more

	mu      sync.Mutex
	waiting []waitingRequest
	half    []waitingRequest // their answers have begun
	names   map[string]int   // how often a backend saw each request
	answers int              // whole ones of backends
}

type waitingRequest struct {
	p    *peer
	name string
}

const scriptBody = 9 // bytes of a body of known length, sent in three pieces

// step does one thing.
func (s *scripted) step(op byte) {
	switch op {
	case 'g', 'p', 'c', 'b', 'e', 'h', 'z', 'f', 'k':
		s.clientStep(op)
	case 'a', 'A', 'Z', 'I', 'G', 'X', 'R':
		s.backendStep(op)
	case 't': // a while, shorter than any timeout
		s.on(func() { s.skip(3 * time.Second) })
	case 'T': // all timeouts
		s.on(func() { s.skip(2 * time.Minute) })
	default: // what is under way arrives
		s.on(func() {})
		time.Sleep(200 * time.Microsecond)
		s.on(func() {})
	}
}

func (s *scripted) say(text string) { _, _ = io.WriteString(s.client, text) }

func (s *scripted) clientStep(op byte) {
	if s.ended {
		return
	}
	head := func(method, framing string) {
		name := fmt.Sprint(method, len(s.asked))
		s.asked = append(s.asked, name)
		s.say(method + " /" + name + " HTTP/1.1\r\nHost: a\r\nX-Name: " + name + "\r\n" + framing + "\r\n")
	}
	switch {
	case op == 'g' && s.left == 0:
		head("GET", "")
	case op == 'p' && s.left == 0:
		head("POST", fmt.Sprintf("Content-Length: %d\r\n", scriptBody))
		s.left = scriptBody
	case op == 'c' && s.left == 0:
		head("POST", "Transfer-Encoding: chunked\r\n")
		s.left = -1
	case op == 'b' && s.left > 0, (op == 'g' || op == 'p' || op == 'c') && s.left > 0:
		s.say("abc")
		s.left -= 3
	case op == 'b' && s.left < 0:
		s.say("4\r\nwxyz\r\n")
	case op == 'e' && s.left < 0:
		s.say("0\r\n\r\n")
		s.left = 0
	case op == 'h': // half of something
		s.say("GET / HT")
		s.ended = true
	case op == 'z':
		s.say("\x00 garbage\r\n\r\n")
		s.ended = true
	case op == 'f':
		_ = s.client.CloseWrite()
		s.ended = true
	case op == 'k':
		s.client.reset()
		s.ended, s.gone = true, true
	}
}

// serve notes the requests of a backend's connection; they are answered by the script.
func (s *scripted) serve(p *peer) {
	for {
		q := p.head()
		if q == nil {
			return
		}
		s.mu.Lock()
		name := q.Header.Get("X-Name")
		s.names[name]++
		s.waiting = append(s.waiting, waitingRequest{p, name})
		s.mu.Unlock()
		if _, err := io.Copy(io.Discard, q.Body); err != nil {
			return
		}
	}
}

func (s *scripted) backendStep(op byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if op == 'Z' {
		if len(s.half) > 0 {
			s.half[0].p.send("4\r\nhalf\r\n0\r\n\r\n")
			s.answers++
			s.half = s.half[1:]
		}
		return
	}
	if len(s.waiting) == 0 {
		if len(s.half) > 0 && (op == 'X' || op == 'R') {
			s.breakOff(s.half[0].p, op)
			s.half = s.half[1:]
		}
		return
	}
	w := s.waiting[0]
	if op == 'I' {
		w.p.send("HTTP/1.1 103 Early Hints\r\nX-Name: " + w.name + "\r\n\r\n")
		return
	}
	s.waiting = s.waiting[1:]
	switch op {
	case 'a':
		w.p.send("HTTP/1.1 200 OK\r\nX-Name: " + w.name + "\r\nContent-Length: 5\r\n\r\nwhole")
		s.answers++
	case 'A':
		w.p.send("HTTP/1.1 200 OK\r\nX-Name: " + w.name + "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
		s.half = append(s.half, w)
	case 'G':
		w.p.send("garbage\r\n\r\n")
	default:
		s.breakOff(w.p, op)
	}
}

func (s *scripted) breakOff(p *peer, op byte) {
	if op == 'R' {
		p.reset()
		return
	}
	p.Close()
}

// finish ends the client and judges what it got.
func (s *scripted) finish() {
	if !s.gone {
		_ = s.client.CloseWrite()
		done := make(chan struct{})
		go func() { // what is waited for in vain times out
			for {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond):
					s.loops[0].Post(func() { s.skip(2 * time.Minute) })
				}
			}
		}()
		s.judge()
		close(done)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.names {
		if limit := map[bool]int{true: 1, false: DefaultPolicy().Tries}[name[0] == 'P']; n > limit {
			s.Errorf("backends saw %s %d times, at most %d are allowed", name, n, limit)
		}
	}
}

func (s *scripted) judge() {
	whole := 0
	for i := 0; ; {
		res, err := http.ReadResponse(s.client.r, nil)
		if err != nil {
			break
		}
		name := res.Header.Get("X-Name")
		if i < len(s.asked) && name != "" && name != s.asked[i] {
			s.Errorf("answer %d is for %s, asked was %s", i, name, s.asked[i])
		}
		if res.StatusCode < 200 {
			continue
		}
		if i >= len(s.asked) && (res.StatusCode < 400 || name != "") {
			s.Errorf("answer %d, %d for %q, although only %d requests were sent", i, res.StatusCode, name, len(s.asked))
		}
		body, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode == 200 {
			if whole++; string(body) != "whole" && string(body) != "firsthalf" {
				s.Errorf("answer %d is %q", i, body)
			}
		}
		i++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if whole > s.answers {
		s.Errorf("%d whole answers of %d that backends gave", whole, s.answers)
	}
}

// TestClockJumps sets the loop's time far forward, as after a halt of the whole machine, with a request under way, one that
// is half there, and an idle connection: what is due ends, in the way that its timeout says, and the loop serves on.
func TestClockJumps(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.Tries = 1 })
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			if q.RequestURI == "/waits" {
				p.gone(patience)
				return
			}
			p.answer("200 OK", q.RequestURI)
		}
	})
	idle, half, waits := r.dial(), r.dial(), r.dial()
	idle.get("/idle")
	idle.expect("GET", 200, "/idle")
	half.send("GET / HTTP/1.1\r\nHo")
	waits.get("/waits")
	r.eventually("a request under way", func() bool { return r.cluster.Stats().Active == 1 })
	r.on(func() {})
	r.on(func() { r.skip(400 * 24 * time.Hour) })
	idle.ends()
	half.status("GET", 408)
	waits.status("GET", 504)
	waits.get("/after")
	waits.expect("GET", 200, "/after")
}
