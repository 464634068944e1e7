package fastpath

import "golang.org/x/sys/unix"

// Reading ahead: what has come for several connections of a batch of events is received in a row, before the first of
// them has its turn. Kernel and proxy then each run for a while with their own code in the processor's caches, instead of
// throwing each other out with every connection (docs/decisions/0011-receiving-in-a-row.md).

// ReadAhead tells whether input may be taken from the socket before the owner's turn comes. It may while the owner awaits
// a message's head, of which each turn fills all there is; never while the socket may be read by others (Peek, splice).
func (c *Conn) ReadAhead(on bool) {
	if on {
		c.flags |= flagAhead
	} else {
		c.flags &^= flagAhead
	}
}

// readAhead receives what has come for those connections of a batch that allow it. events are at most flushBatch.
func (l *Loop) readAhead(events []unix.EpollEvent) {
	if len(events) < 2 {
		return
	}
	for i := range events {
		e := &events[i]
		if e.Events&^unix.EPOLLOUT != unix.EPOLLIN || e.Fd == int32(l.wakeFD) {
			continue // an end or an error is the turn's business; that there is room comes with every event of a dialled one
		}
		c := l.at(e)
		if c == nil || c.flags&flagAhead == 0 || c.aheadLeft > 0 || c.holds() {
			continue
		}
		at := i * aheadStride
		c.aheadAt = int32(at)
		l.calls.add(c, l.ahead[at:at+aheadBytes])
	}
	for _, k := range l.inARow(ringOpRecv) {
		switch {
		case k.n > 0:
			k.c.received += uint64(k.n)
			k.c.aheadLeft = int32(k.n)
		case k.errno != 0 && k.errno != unix.EAGAIN:
			k.c.err = ErrReset // the kernel tells it once; Fill will find an end and remember
		}
	}
}

// holds tells that enough input waits for the owner: more of it stays in the socket, or a peer could fill memory that an owner, who
// has no room or takes a record a turn, does not empty.
func (c *Conn) holds() bool {
	if c.tls != nil {
		return !c.tls.drained
	}
	return len(c.in) >= aheadBytes
}

// takeAhead is recv for input that was received ahead.
func (c *Conn) takeAhead(dst []byte) int {
	n := copy(dst, c.loop.ahead[c.aheadAt:c.aheadAt+c.aheadLeft])
	c.aheadAt += int32(n)
	c.aheadLeft -= int32(n)
	if c.aheadLeft == 0 && c.aheadAt%aheadStride < aheadBytes && c.flags&(flagBroken|flagHup) == 0 {
		c.flags &^= flagReadable
	}
	return n
}

// keepAhead saves input that was received ahead and not asked for in the owner's turn: its place is used again.
func (c *Conn) keepAhead() {
	rest := c.loop.ahead[c.aheadAt : c.aheadAt+c.aheadLeft]
	c.aheadLeft = 0
	if c.tls != nil {
		c.tls.keep(rest)
		return
	}
	if c.loop.reader == c {
		c.loop.lend(nil)
	}
	c.own = c.own[:copy(c.own[:cap(c.own)], c.in)] // what was read goes: an owner may never read all that there is
	c.own = append(c.loop.buffers.grow(c.own, len(rest)), rest...)
	c.in = c.own
}
