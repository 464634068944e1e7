package fastpath

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// pipe is the kernel buffer between two spliced sockets.
type pipe struct {
	r, w int32
	n    int // bytes in it
	size int // the capacity that was asked for
}

// pipes is a loop's stock of them.
type pipes struct {
	idle  []*pipe
	large []*pipe // idle ones of largePipeBytes
	made  int     // large ones, idle or not
}

// get gives an empty pipe, a large one if it may be one and largePipesMax is not reached; nil: there is no descriptor left.
func (p *pipes) get(large bool) *pipe {
	if large && len(p.large) > 0 {
		return pop(&p.large)
	}
	if large && p.made < largePipesMax {
		one := newPipe(largePipeBytes)
		if one != nil {
			p.made++
		}
		return one
	}
	if len(p.idle) > 0 {
		return pop(&p.idle)
	}
	return newPipe(pipeBytes)
}

func pop(idle *[]*pipe) *pipe {
	last := len(*idle) - 1
	one := (*idle)[last]
	*idle = (*idle)[:last]
	return one
}

func newPipe(size int) *pipe {
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	// without the larger size (a user over pipe-user-pages-soft) splicing still works, in smaller pieces
	_, _ = unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, size)
	return &pipe{r: int32(fds[0]), w: int32(fds[1]), size: size}
}

// put takes back a pipe; one that still holds bytes cannot be used again.
func (p *pipes) put(one *pipe) {
	large := one.size == largePipeBytes
	switch {
	case one.n == 0 && large:
		p.large = append(p.large, one)
		return
	case one.n == 0 && len(p.idle) < pipesIdleMax:
		p.idle = append(p.idle, one)
		return
	case large:
		p.made--
	}
	one.close()
}

func (p *pipe) close() {
	closeFD(p.r)
	closeFD(p.w)
}

func (p *pipes) close() {
	for _, one := range append(p.idle, p.large...) {
		one.close()
	}
	*p = pipes{}
}

// Splicer moves bytes from one plain connection to another inside the kernel. It holds a pipe only while bytes are in
// it, so an idle tunnel costs none.
type Splicer struct {
	from, to *Conn
	pipe     *pipe
	left     int64 // bytes still to be taken from `from`; -1: until its end
	moved    int64 // bytes that `to` took
	quantum  int64 // what is moved at once; 0: as much as there is
	ask      int64 // moved bytes from which on the quantum is asked for
	bulk     uint8 // successive reads of lowatAfter or more
	short    bool  // shortBodyMax at most were asked for
}

// pieceBytes is the most that one splice moves when the end is unknown, as in tunnels. What a socket is given at once should
// not exceed what a pacing congestion control (BBR) lets go at once: for the rest the kernel starts a timer each time.
// Pieces of 64 KiB cost a quarter more CPU a byte there.
const pieceBytes = 32 << 10

// lowatAfter is the size of a read that tells a bulk sender; two in a row raise SO_RCVLOWAT, so that the loop wakes for
// more at once.
const lowatAfter = 64 << 10

// Bare tells that all input which is still to be read stands in the socket, where splice(2) finds it: there is no record layer,
// and nothing was received that nobody has taken, be it ahead of c's turn.
func (c *Conn) Bare() bool { return c.Plain() && len(c.in) == 0 && c.aheadLeft == 0 }

// Start begins to move n bytes (-1: until the end). from is bare, and stays so: nobody else reads from it, nor ahead.
func (s *Splicer) Start(from, to *Conn, n int64) {
	*s = Splicer{from: from, to: to, left: n, ask: to.firstAsk(n), short: 0 <= n && n <= shortBodyMax}
}

// Active tells whether Start was called and Stop was not.
func (s *Splicer) Active() bool { return s.from != nil }

// Moved is how many bytes arrived at the destination's socket.
func (s *Splicer) Moved() int64 { return s.moved }

// Pump moves what can be moved now and returns how many bytes reached the destination. nil: all n have arrived. ErrEOF:
// the source ended (before n, if n was given) and everything it sent has arrived. ErrWouldBlock: OnReadable of the source
// or OnWritable of the destination follows. Any other error: see which side is Broken.
func (s *Splicer) Pump() (int64, *Error) {
	before := s.moved
	err := s.pump()
	if s.pipe != nil && s.pipe.n == 0 {
		s.from.loop.pipes.put(s.pipe)
		s.pipe = nil
	}
	return s.moved - before, err
}

func (s *Splicer) pump() *Error {
	if s.to.Pending() {
		if s.to.Flush(); s.to.Pending() {
			s.to.flags |= flagTold
			return ErrWouldBlock
		}
	}
	for budget := s.turn(); ; {
		if s.pipe == nil || s.pipe.n == 0 {
			if s.left == 0 {
				return nil
			}
			if budget <= 0 {
				s.from.Again()
				return ErrWouldBlock
			}
			if err := s.take(); err != nil {
				return err
			}
		}
		n, err := s.give()
		budget -= int64(n)
		if err != nil {
			return err
		}
	}
}

// take fills the empty pipe from the source.
func (s *Splicer) take() *Error {
	c := s.from
	if c.flags&flagReadable == 0 {
		return c.ended()
	}
	if s.pipe == nil {
		if s.pipe = c.loop.pipes.get(s.wantsLarge()); s.pipe == nil {
			return ErrNoDescriptor
		}
	}
	n, e := splice(c.fd, s.pipe.w, s.piece())
	switch {
	case e == 0 && n > 0:
		s.pipe.n = n
		c.received += uint64(n)
		if s.left > 0 {
			s.left -= int64(n)
		}
		s.lowWater(n)
		return nil
	case e == 0:
		return c.foundEnd()
	case e == syscall.EAGAIN: // the pipe is empty, so it is the socket that has nothing
		c.flags &^= flagReadable
		return ErrWouldBlock
	}
	return c.foundReset()
}

// wantsLarge tells whether a large pipe is of use. What the kernel holds for a reader that stalls must not grow by it, so only bodies
// have one that are hardly longer than it (docs/decisions/0088-short-bodies-in-one-piece.md).
func (s *Splicer) wantsLarge() bool { return s.short && s.left > pipeBytes && s.quantum == 0 }

// piece is how much is to be taken at once.
func (s *Splicer) piece() int {
	if s.quantum > 0 {
		return int(min(uint64(s.left), uint64(s.quantum))) // -1 is the largest
	}
	if s.left < 0 {
		return pieceBytes
	}
	return int(min(s.left, int64(s.pipe.size)))
}

// give empties the pipe into the destination.
func (s *Splicer) give() (int, *Error) {
	c := s.to
	if c.flags&(flagBlocked|flagConnecting) != 0 {
		c.flags |= flagTold
		return 0, ErrWouldBlock
	}
	n, e := splice(s.pipe.r, c.fd, s.pipe.n)
	switch {
	case e == 0:
		s.pipe.n -= n
		s.moved += int64(n)
		c.sent += uint64(n)
		return n, nil
	case e == syscall.EAGAIN:
		c.flags |= flagTold
		c.block()
		return 0, ErrWouldBlock
	}
	c.fail()
	return 0, ErrReset
}

// lowWater asks the kernel to wake us for more at once when the source sends in bulk and much is still to come; not where no more
// than a quantum is taken anyway.
func (s *Splicer) lowWater(n int) {
	c := s.from
	if c.lowatAt != 0 {
		c.lowatAt = c.loop.now
		if s.left < lowatAfter { // the rest is short: it must not wait for more
			c.resetLowat()
		} else if s.left < rcvLowatMax {
			c.SetLowWater(int(s.left))
		}
		return
	}
	if n < lowatAfter || s.left < rcvLowatMax || s.quantum > 0 {
		s.bulk = 0
		return
	}
	if s.bulk++; s.bulk >= 2 {
		c.raiseLowat(rcvLowatMax)
	}
}

// Stop ends the splice. Bytes in the pipe are lost: the caller has all, or gives the connections up.
func (s *Splicer) Stop() {
	if s.pipe != nil {
		s.from.loop.pipes.put(s.pipe)
	}
	if s.from != nil && s.from.lowatAt != 0 && !s.from.Closed() {
		s.from.resetLowat()
	}
	*s = Splicer{}
}

// raiseLowat raises SO_RCVLOWAT until the connection has been silent for rcvLowatReset.
func (c *Conn) raiseLowat(n int) {
	c.SetLowWater(n)
	c.lowatAt = c.loop.now
	c.loop.lowats = append(c.loop.lowats, ref{c, c.gen})
}

func (c *Conn) resetLowat() {
	c.SetLowWater(1) // reports at once what waits
	c.lowatAt = 0
}

// resetLowats gives back the usual wake-ups to connections whose peers dawdle.
func (l *Loop) resetLowats() {
	keep := l.lowats[:0]
	for _, r := range l.lowats {
		if !r.live() || r.c.lowatAt == 0 {
			continue
		}
		if l.now-r.c.lowatAt < int64(rcvLowatReset) {
			keep = append(keep, r)
			continue
		}
		r.c.resetLowat()
	}
	l.lowats = keep
}
