package upstream

// leastConnections takes the endpoint with the fewest streams under way on all loops; among equals it goes round. In a
// cluster of more than leastWindowMax endpoints each pick compares a window of them, which wanders.
func leastConnections(v *view, l *clusterLoop, w Wish) *Endpoint {
	n := uint32(len(v.ready))
	if n == 0 {
		return nil
	}
	if l.next == unseeded {
		l.next = l.index * n / l.count
	}
	window := min(n, leastWindowMax)
	var best *Endpoint
	var bestActive int64
	i, at := l.next, l.next
	for seen := uint32(0); seen < n; seen++ {
		if i >= n {
			i = 0
		}
		e := v.ready[i]
		i++
		if active := e.active.Load(); (best == nil || active < bestActive) && l.usable(e, w) {
			best, bestActive, at = e, active, i
		}
		if seen+1 >= window && best != nil {
			break
		}
	}
	if l.next = at; n > window {
		l.next = i
	}
	return best
}
