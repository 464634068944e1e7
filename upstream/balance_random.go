package upstream

// randomOfTwo takes two endpoints by chance and of these the one with fewer streams under way on all loops. It comes
// close to leastConnections at the cost of two looks, however many endpoints there are.
func randomOfTwo(v *view, l *clusterLoop, w Wish) *Endpoint {
	return bestOfTwo(v, l, w, func(a, b *Endpoint, _ *clusterLoop) *Endpoint {
		if b.active.Load() < a.active.Load() {
			return b
		}
		return a
	})
}

// bestOfTwo draws two endpoints and lets better choose among them, if both are usable.
func bestOfTwo(v *view, l *clusterLoop, w Wish, better func(a, b *Endpoint, l *clusterLoop) *Endpoint) *Endpoint {
	n := len(v.ready)
	if n == 0 {
		return nil
	}
	i := l.below(n)
	a := v.ready[i]
	if n == 1 {
		return usableOrNil(l, a, w)
	}
	j := l.below(n - 1)
	if j >= i {
		j++
	}
	b := v.ready[j]
	switch aOK, bOK := l.usable(a, w), l.usable(b, w); {
	case aOK && bOK:
		return better(a, b, l)
	case aOK:
		return a
	case bOK:
		return b
	}
	for range n { // two bad draws: the first usable one behind them
		if i++; i == n {
			i = 0
		}
		if l.usable(v.ready[i], w) {
			return v.ready[i]
		}
	}
	return nil
}

func usableOrNil(l *clusterLoop, e *Endpoint, w Wish) *Endpoint {
	if l.usable(e, w) {
		return e
	}
	return nil
}
