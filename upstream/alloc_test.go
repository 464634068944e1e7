package upstream

import (
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestPickDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	for _, a := range algorithms {
		c := still(t, 1, a.Algorithm, 20)
		all := c.current.Load().ready
		eject(c, 3)
		all[5].warm(time.Hour)
		for _, w := range []Wish{{}, {Hash: 1 << 30}, {Hash: 1 << 30, Hashed: true}, {Tried: all[:4]}, {Sticky: all[7].StickyID("")}, {Tried: all}} {
			if n := testing.AllocsPerRun(100, func() { c.Pick(w) }); n != 0 {
				t.Errorf("%s: %v allocations for %+v", a.name, n, w)
			}
		}
	}
}

// allocations counts those of the whole process while f runs. testing.AllocsPerRun would leave one processor to a loop and its
// backend, which then take turns of milliseconds.
func allocations(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}

// A warm session's request and answer allocate nothing: neither on the loop nor anywhere else in the process, since
// those of all goroutines are counted, the raw backend's included.
func TestRoundTripDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	for name, serve := range map[string]func(net.Conn, int){
		"length":               canned("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=60\r\n\r\nhello"),
		"chunked":              canned("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
		"trailers":             canned("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nSum: 1\r\n\r\n"),
		"HTTP/2":               canned2(false),
		"HTTP/2 with trailers": canned2(true),
	} {
		t.Run(name, func(t *testing.T) {
			env := newEnv(t, 1)
			c := cluster(t, env, Settings{Algorithm: EWMA, HTTP2: strings.HasPrefix(name, "HTTP/2")}, newServer(t, serve).addr())
			r := newLooper(env, only(t, c))
			r.run(100)
			fewest := uint64(1 << 62)
			for range 10 {
				fewest = min(fewest, allocations(func() { r.run(100) }))
			}
			if fewest > 0 { // a round with a stray allocation of the runtime's is not ours
				t.Errorf("%d allocations in 100 requests", fewest)
			}
		})
	}
}
