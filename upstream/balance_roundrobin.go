package upstream

// roundRobin takes one endpoint after the other. Each loop has a counter of its own, and begins at a place of its own, so
// that loops do not march in step.
func roundRobin(v *view, l *clusterLoop, w Wish) *Endpoint {
	n := uint32(len(v.ready))
	if l.next == unseeded {
		l.next = l.index * n / l.count
	}
	for range n {
		if l.next >= n {
			l.next = 0
		}
		e := v.ready[l.next]
		l.next++ // past unusable ones too, or their successor would get their share as well
		if l.usable(e, w) {
			return e
		}
	}
	return nil
}
