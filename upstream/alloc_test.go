package upstream

import "testing"

func TestPickDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	for _, a := range algorithms {
		c := still(t, 1, a.Algorithm, 20)
		all := c.current.Load().ready
		eject(c, 3)
		for _, w := range []Wish{{}, {Hash: 1 << 30}, {Hash: 1 << 30, Hashed: true}, {Tried: all[:4]}, {Sticky: all[7].StickyID("")}, {Tried: all}} {
			if n := testing.AllocsPerRun(100, func() { c.Pick(w) }); n != 0 {
				t.Errorf("%s: %v allocations for %+v", a.name, n, w)
			}
		}
	}
}

// A warm session's request and answer allocate nothing: neither on the loop nor anywhere else in the process, since
// AllocsPerRun counts all goroutines, the raw backend's included.
func TestRoundTripDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	for name, answer := range map[string]string{
		"length":   "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=60\r\n\r\nhello",
		"chunked":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSum: 1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t, 1)
			c := cluster(t, env, Settings{Algorithm: EWMA}, newServer(t, canned(answer)).addr())
			r := newLooper(env, only(t, c))
			r.run(100)
			if n := testing.AllocsPerRun(10, func() { r.run(100) }); n > 0.9 { // a stray allocation of the runtime is not ours
				t.Errorf("%v allocations in 100 requests", n)
			}
		})
	}
}
