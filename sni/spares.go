package sni

import "github.com/sluiceproxy/sluice/fastpath"

// spares are what the doors keep on a loop: values of connections that are over, to lead others
// (docs/decisions/0090-passages-are-used-again.md).
type spares struct {
	arrivals []*arrival
	passages []*passage
}

func sparesOf(l *fastpath.Loop) *spares {
	if p, ok := l.Local[fastpath.LocalArrivals].(*spares); ok {
		return p
	}
	p := new(spares)
	l.Local[fastpath.LocalArrivals] = p
	return p
}

func (p *spares) arrival() *arrival { return get(&p.arrivals) }

// release takes back an arrival that has led its connection to a backend. Those that end in HTTP are left to the collector:
// connections that last are few.
func (p *spares) release(a *arrival) { put(&p.arrivals, a) }

func (p *spares) passage() *passage { return get(&p.passages) }

// OnSpent implements fastpath.Spent: the tunnel has ended, and its connections are forgotten.
func (p *passage) OnSpent(l *fastpath.Loop) { put(&sparesOf(l).passages, p) }

func get[T any](free *[]*T) *T {
	n := len(*free)
	if n == 0 {
		return new(T)
	}
	one := (*free)[n-1]
	(*free)[n-1] = nil
	*free = (*free)[:n-1]
	return one
}

// put keeps one, emptied, so that it holds nothing in memory.
func put[T any](free *[]*T, one *T) {
	if len(*free) < sparesMax {
		var empty T
		*one = empty
		*free = append(*free, one)
	}
}
