package l7

import (
	"net/netip"
	"sync"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Limits of passwords that wait to be checked. Their hashes are slow on purpose, so whoever may ask for them without a
// limit owns the processor.
const (
	passwordsMax       = 64 // of all clients
	passwordsSourceMax = 4  // of one IPv4 address or IPv6 /64
)

// passwords is a queue whose work is done piece by piece, so that of the process's permits it never holds more than one.
type passwords struct {
	mu      sync.Mutex
	queue   []func()
	sources map[netip.Prefix]int
	running bool
}

// CheckPassword runs f off the loop, after those of others, and then g as Resumed of x, which is parked until deadline
// (loop time) at most. f must not touch x. An error: too many wait already, and x is not parked.
func (x *Exchange) CheckPassword(deadline int64, f func(), g Resumed) *fastpath.Error {
	q, w := &x.local.srv.passwords, x.local.srv.Work
	source := sourceOf(x.ClientIP)
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.queue) >= passwordsMax || q.sources[source] >= passwordsSourceMax {
		return fastpath.ErrOverload
	}
	if q.sources == nil {
		q.sources = make(map[netip.Prefix]int)
	}
	q.sources[source]++
	t := x.Park(deadline)
	q.queue = append(q.queue, func() {
		if w != nil {
			w.Do(f)
		} else {
			f()
		}
		q.leave(source)
		t.Resume(g)
	})
	if !q.running {
		q.running = true
		go q.run()
	}
	return nil
}

func sourceOf(a netip.Addr) netip.Prefix {
	bits := 32
	if a = a.Unmap(); a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

func (q *passwords) leave(source netip.Prefix) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.sources[source]--; q.sources[source] <= 0 {
		delete(q.sources, source)
	}
}

// run works the queue off and ends.
func (q *passwords) run() {
	for {
		q.mu.Lock()
		if len(q.queue) == 0 {
			q.running, q.queue = false, nil
			q.mu.Unlock()
			return
		}
		f := q.queue[0]
		q.queue = q.queue[1:]
		q.mu.Unlock()
		f()
	}
}
