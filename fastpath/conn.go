package fastpath

import (
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handler is what a Conn tells its owner. All calls come on the conn's loop. A handler may close any connection,
// itself included, and may give a connection another handler.
type Handler interface {
	// OnReadable: input, an end or an error may be read by Fill. Readiness is edge-triggered: the owner fills until
	// ErrWouldBlock, or asks for another turn (Again), or resumes by itself later.
	OnReadable(c *Conn)
	// OnWritable: output that had to wait has left; Room is positive again.
	OnWritable(c *Conn)
	// OnDeadline: the time given to SetDeadline has come. The deadline is cleared.
	OnDeadline(c *Conn)
}

// Connector is the handler of a connection made by Dial.
type Connector interface {
	Handler
	OnConnect(c *Conn, err *Error) // err: not connected; the Conn is closed already
}

// Handshaker is the handler of a connection on which StartTLS was called.
type Handshaker interface {
	Handler
	OnHandshake(c *Conn, err *Error) // err: the handshake failed; the owner closes. nil: OnReadable follows
}

// Keeper keeps count of connections, whoever handles them.
type Keeper interface {
	OnClosed(c *Conn) // once, on the loop, while c closes: c's Remote may be asked, nothing else
}

// state of a connection.
type connFlags uint32

const (
	flagReadable   connFlags = 1 << iota // the socket may have input
	flagBlocked                          // the socket took less than it was given; EPOLLOUT will come
	flagConnecting                       // dialled, not yet connected
	flagHup                              // EPOLLRDHUP was seen: an end stands behind the input
	flagEOF                              // the peer's FIN was read
	flagBroken                           // EPOLLERR or EPOLLHUP was seen
	flagClosed
	flagDirty    // in the loop's list of connections with staged output
	flagReady    // in the loop's list of connections that asked for another turn
	flagWriteEnd // CloseWrite was asked for: shut down once the output has left
	flagShut     // our sending side is shut down
	flagHungry   // reading stopped for waiting output (TLS); told OnReadable when it has left
	flagTold     // Room was 0 when asked: OnWritable is owed
	flagOut      // epoll watches for EPOLLOUT too
	flagPanicked // closed by a panic: its owner may still hold it, so the value is not used again
	flagJoined   // in the sockmap: a short read says nothing about what waits
	flagGather   // output waits for the end of the batch of events
	flagAhead    // input may be received before the owner's turn
	flagNotBBR   // TCP_CC_INFO is not BBR's, and is not asked for again
	flagTight    // the socket takes only what BBR sends at once
	flagMuted    // epoll does not watch for input: the kernel moves it elsewhere
)

// Conn is a non-blocking stream socket owned by one loop.
type Conn struct {
	loop    *Loop
	handler Handler
	fd      int32
	gen     int32
	flags   connFlags
	turns   int8   // with input, up to lastingTurns; -1: a backend's, which are not counted
	err     *Error // why output failed; Fill reports it once input is used up

	in  []byte // unread input: a view of loop.read while loop.reader == c, else of own
	own []byte // buffer that holds stashed input

	aheadAt, aheadLeft int32 // input in loop.ahead that was received before c's turn

	out []byte // staged output (plain text if tls != nil)
	tls *tlsState

	lowatAt    int64 // when input last came with SO_RCVLOWAT raised; 0: it is not
	deadline   int64 // loop nanoseconds; 0: none
	armed      int64 // tick of the wheel's slot that c is in; 0: none
	prev, next *Conn

	keeper   Keeper // told of the end; nil: nobody counts
	remote   netip.AddrPort
	received uint64 // bytes taken from the socket
	sent     uint64 // bytes that the socket took
}

// Loop is the loop that owns c.
func (c *Conn) Loop() *Loop { return c.loop }

// Remote is the peer's address.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// SetRemote replaces the peer's address by the one that a PROXY header named.
func (c *Conn) SetRemote(a netip.AddrPort) { c.remote = a }

// Local is our address of the connection. It costs a system call.
func (c *Conn) Local() netip.AddrPort { return sockname(c.fd) }

// FD is the descriptor, for socket options. It stays the loop's.
func (c *Conn) FD() int { return int(c.fd) }

// Received and Sent count bytes of the socket, TLS records included.
func (c *Conn) Received() uint64 { return c.received }

// Sent counts the bytes that the socket took.
func (c *Conn) Sent() uint64 { return c.sent }

// Closed tells whether Close was called.
func (c *Conn) Closed() bool { return c.flags&flagClosed != 0 }

// Broken tells that the connection is lost in both directions (RST, or error): what is written goes nowhere. Input that
// came before may still be read.
func (c *Conn) Broken() bool { return c.flags&flagBroken != 0 || c.err != nil }

// Readable tells whether Fill may find something.
func (c *Conn) Readable() bool { return c.flags&flagReadable != 0 }

// Blocked tells that the socket refused output and OnWritable will follow.
func (c *Conn) Blocked() bool { return c.flags&flagBlocked != 0 }

// Waiting tells whether Fill may find something: on the socket, or in the record layer.
func (c *Conn) Waiting() bool {
	return c.flags&flagReadable != 0 || c.tls != nil && !c.tls.drained
}

// EOF tells whether the peer's end was read.
func (c *Conn) EOF() bool { return c.flags&flagEOF != 0 }

// SetHandler gives c another owner.
func (c *Conn) SetHandler(h Handler) { c.handler = h }

// SetKeeper has k told when c closes, in place of who was to be told before.
func (c *Conn) SetKeeper(k Keeper) { c.keeper = k }

// SetDeadline asks for OnDeadline at t (see Loop.Now), once; 0 asks for none. Moving a deadline later is a store.
func (c *Conn) SetDeadline(t int64) {
	if c.flags&flagClosed != 0 {
		return // the wheel must not hold a value that is used again
	}
	c.deadline = t
	if t != 0 && (c.armed == 0 || t>>wheelShift < c.armed-1) {
		c.loop.wheel.arm(c)
	}
}

// Deadline is the time set by SetDeadline; 0: none.
func (c *Conn) Deadline() int64 { return c.deadline }

// Again asks for another OnReadable after the other connections had their turn.
func (c *Conn) Again() {
	if c.flags&flagReady == 0 {
		c.flags |= flagReady
		c.loop.ready = append(c.loop.ready, ref{c, c.gen})
	}
}

// ---- input

// Buffered is the unread input: a view that lives until the next Fill on this loop or the end of the turn.
func (c *Conn) Buffered() []byte { return c.in }

// Discard marks the first n bytes of Buffered as read. Views of them live on until the next Fill or the turn's end.
func (c *Conn) Discard(n int) {
	c.in = c.in[n:]
	if len(c.in) == 0 {
		c.retire()
	}
}

// retire gives the stash back at the end of the turn: views of it may still be on their way to another connection.
func (c *Conn) retire() {
	if c.own != nil {
		c.loop.retired = append(c.loop.retired, c.own)
		c.own = nil
	}
}

// HungUp tells that the peer's end of the TCP connection was seen, whatever was read of what came before it.
func (c *Conn) HungUp() bool { return c.flags&(flagHup|flagBroken) != 0 }

// Fill reads at most max more bytes behind what is unread; nil: there is more now. ErrWouldBlock: OnReadable follows.
// ErrEOF is the peer's orderly end. Room for unread input is bounded; over it Fill answers ErrOverload.
func (c *Conn) Fill(max int) *Error {
	if c.flags&flagClosed != 0 {
		return ErrClosed
	}
	if c.tls != nil {
		return c.tls.fill(max)
	}
	if c.flags&flagReadable == 0 {
		return c.ended()
	}
	dst, err := c.room(max)
	if err != nil {
		return err
	}
	n, err := c.recv(dst)
	c.grew(n)
	return err
}

// ended is what Fill answers when the socket has nothing.
func (c *Conn) ended() *Error {
	switch {
	case c.flags&flagClosed != 0:
		return ErrClosed
	case c.flags&flagEOF != 0:
		return ErrEOF
	case c.err != nil:
		return c.err
	}
	return ErrWouldBlock
}

// recv reads from the socket into dst and keeps the readiness.
func (c *Conn) recv(dst []byte) (int, *Error) {
	if c.aheadLeft > 0 {
		return c.takeAhead(dst), nil
	}
	n, e := recv(c.fd, dst, 0)
	switch {
	case e == 0 && n > 0:
		c.received += uint64(n)
		if n < len(dst) && c.flags&(flagBroken|flagHup|flagJoined) == 0 { // a FIN or error that comes later is a new event
			c.flags &^= flagReadable
		}
		return n, nil
	case e == 0 && len(dst) == 0:
		return 0, nil // nothing was asked for: no end
	case e == 0:
		return 0, c.foundEnd()
	case e == syscall.EAGAIN:
		c.flags &^= flagReadable
		return 0, ErrWouldBlock
	}
	return 0, c.foundReset()
}

// foundEnd judges a read of 0 bytes. A reset that a failed write was told of reads like a FIN afterwards: the kernel tells
// it once only.
func (c *Conn) foundEnd() *Error {
	if c.err != nil {
		return c.foundReset()
	}
	c.flags = c.flags&^flagReadable | flagEOF
	return ErrEOF
}

func (c *Conn) foundReset() *Error {
	c.flags = c.flags&^flagReadable | flagBroken
	c.err = ErrReset
	return ErrReset
}

// room returns the memory that follows the unread input.
func (c *Conn) room(max int) ([]byte, *Error) {
	l := c.loop
	if len(c.in) == 0 {
		c.retire()
		l.lend(c)
		if max > len(l.read) {
			max = len(l.read)
		}
		c.in = l.read[:0]
		return l.read[:max], nil
	}
	if l.reader == c {
		if free := cap(c.in) - len(c.in); free >= max || free >= 16<<10 {
			return c.in[len(c.in):min(len(c.in)+max, cap(c.in))], nil
		}
		c.stash()
		l.reader = nil
	}
	if len(c.in) >= inputBytesMax {
		return nil, ErrOverload
	}
	max = min(max, inputBytesMax-len(c.in))
	if start := cap(c.own) - cap(c.in); start > 0 { // read bytes stand before the unread ones
		c.own = c.own[:copy(c.own[:cap(c.own)], c.in)]
	}
	c.own = l.buffers.grow(c.own, min(max, 16<<10))
	c.in = c.own
	return c.own[len(c.own):min(len(c.own)+max, cap(c.own))], nil
}

// grew appends to Buffered the n bytes that were read into what room returned.
func (c *Conn) grew(n int) {
	if n == 0 {
		return
	}
	c.in = c.in[:len(c.in)+n]
	if c.loop.reader != c {
		c.own = c.in
	}
}

// stash moves unread input from the loop's shared buffer into one of c's own.
func (c *Conn) stash() {
	if len(c.in) == 0 {
		c.in = nil
		return
	}
	c.own = append(c.loop.buffers.get(len(c.in)), c.in...)
	c.in = c.own
}

// Peek shows waiting input without taking it from the socket (MSG_PEEK): what is passed on by splice later must stay
// untouched. The view lives until the next Fill or Peek on this loop. Plain connections only, before any Fill.
func (c *Conn) Peek() ([]byte, *Error) {
	c.loop.lend(nil)
	n, e := recv(c.fd, c.loop.read, unix.MSG_PEEK)
	switch {
	case e == 0 && n > 0:
		return c.loop.read[:n], nil
	case e == 0:
		return nil, c.foundEnd()
	case e == syscall.EAGAIN:
		c.flags &^= flagReadable
		return nil, ErrWouldBlock
	}
	return nil, c.foundReset()
}

// SetLowWater asks the kernel to report input only from n bytes on (SO_RCVLOWAT).
func (c *Conn) SetLowWater(n int) { setsockopt(c.fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) }

// ---- output

// Room is how many bytes Write takes now. When it is 0, OnWritable follows.
func (c *Conn) Room() int {
	if c.tls != nil {
		c.tls.sendPending() // only what the socket refuses makes an owner wait: no event follows anything else
	}
	if c.flags&(flagBlocked|flagConnecting) != 0 && len(c.out) > 0 || c.tls != nil && len(c.tls.pending) > 0 {
		c.flags |= flagTold
		return 0
	}
	if n := outputBytesMax - len(c.out); n > 0 {
		return n
	}
	c.flags |= flagTold
	return 0
}

// Gather has the output of a whole batch of events leave together: of use to a connection whose output comes from the
// turns of many others.
func (c *Conn) Gather() { c.flags |= flagGather }

// Queued is how many bytes of output wait: staged, or refused by the socket.
func (c *Conn) Queued() int {
	if c.tls != nil {
		return len(c.out) + len(c.tls.pending)
	}
	return len(c.out)
}

// Pending tells whether output waits, staged or refused by the socket.
func (c *Conn) Pending() bool { return len(c.out) > 0 || c.tls != nil && len(c.tls.pending) > 0 }

// Write takes all of b and sends it before the loop waits again. Callers ask Room first; what goes beyond it (framing, a
// head) is taken too. After CloseWrite it does nothing. Errors of the socket are reported by Fill and Broken.
func (c *Conn) Write(b []byte) {
	if c.err != nil || c.flags&(flagClosed|flagWriteEnd) != 0 {
		return
	}
	if len(b) >= directWriteBytes && c.direct() {
		c.writeThrough(b)
		return
	}
	l := c.loop
	if c.out == nil {
		c.out = l.buffers.get(max(len(b), bufferClasses[0]))
	} else {
		c.out = l.buffers.grow(c.out, len(b))
	}
	c.out = append(c.out, b...)
	if c.flags&flagDirty == 0 {
		c.flags |= flagDirty
		if c.flags&flagGather != 0 {
			l.late = append(l.late, ref{c, c.gen})
		} else {
			l.dirty = append(l.dirty, ref{c, c.gen})
		}
	}
	if len(c.out) >= outputFlushBytes {
		c.Flush()
	}
}

// direct tells whether a large write may pass by the stage. Frames with their heads fill TLS records better from there.
func (c *Conn) direct() bool {
	return c.flags&(flagBlocked|flagConnecting) == 0 && (c.tls == nil || c.flags&flagGather == 0 && c.tls.open())
}

// Flush sends staged output now.
func (c *Conn) Flush() {
	if c.flags&(flagBlocked|flagConnecting|flagClosed) != 0 || c.err != nil {
		return
	}
	if c.tls != nil {
		c.tls.flush(nil)
		return
	}
	if len(c.out) > 0 {
		n, e := send(c.fd, c.out, 0)
		c.out = c.took(c.out, n, e)
	}
	c.finishWriting()
}

// outgoing is what Flush would send, if one call will do; nil: Flush has more to do, or nothing.
func (c *Conn) outgoing() []byte {
	if c.flags&(flagBlocked|flagConnecting|flagClosed) != 0 || c.err != nil {
		return nil
	}
	if c.tls != nil {
		return c.tls.outgoing()
	}
	if len(c.out) == 0 {
		return nil
	}
	return c.out
}

// outgone is told what came of sending outgoing.
func (c *Conn) outgone(n int, e syscall.Errno) {
	if c.tls != nil {
		c.tls.outgone(n, e)
	} else {
		c.out = c.took(c.out, n, e)
	}
	c.finishWriting()
}

// writeThrough sends what is staged and then b, without copying b unless the socket refuses some of it.
func (c *Conn) writeThrough(b []byte) {
	if c.tls != nil {
		c.tls.flush(b)
		return
	}
	var n int
	var e syscall.Errno
	if len(c.out) == 0 {
		n, e = send(c.fd, b, 0)
	} else {
		n, e = send2(c.fd, &c.loop.vector, c.out, b)
	}
	if k := min(n, len(c.out)); k > 0 {
		c.sent += uint64(k)
		n -= k
		c.out = c.out[:copy(c.out, c.out[k:])]
	}
	if len(c.out) == 0 && n > 0 {
		c.sent += uint64(n)
		b = b[n:]
	}
	if e != 0 && e != syscall.EAGAIN {
		c.fail()
		return
	}
	if len(b) > 0 || len(c.out) > 0 {
		c.out = append(c.loop.buffers.grow(c.out, len(b)), b...)
		c.block()
		return
	}
	c.releaseOut()
}

// took removes from b, a queue of c's, what the socket took. The rest waits for EPOLLOUT.
func (c *Conn) took(b []byte, n int, e syscall.Errno) []byte {
	if e != 0 && e != syscall.EAGAIN {
		c.fail()
		return nil
	}
	c.sent += uint64(n)
	if n == len(b) {
		c.loop.buffers.put(b)
		return nil
	}
	c.block()
	return b[:copy(b, b[n:])]
}

// block notes that the socket took less than it was given. Few connections ever come to that, so only then does epoll
// watch for room: with EPOLLOUT from the start, every new connection would report at once that it may be written to.
func (c *Conn) block() {
	c.flags |= flagBlocked
	if c.flags&flagOut == 0 {
		c.flags |= flagOut
		c.watch()
	}
}

// watch tells epoll what c waits for now. If that is there already it is told at once.
func (c *Conn) watch() {
	ev := unix.EpollEvent{Events: epollInput, Fd: c.fd, Pad: c.gen}
	if c.flags&flagOut != 0 {
		ev.Events |= unix.EPOLLOUT
	}
	if c.flags&flagMuted != 0 {
		ev.Events &^= unix.EPOLLIN
	}
	_ = unix.EpollCtl(c.loop.ep, unix.EPOLL_CTL_MOD, int(c.fd), &ev) // fails only for a descriptor that is not ours
}

func (c *Conn) releaseOut() {
	if c.out != nil {
		c.loop.buffers.put(c.out)
		c.out = nil
	}
}

// fail marks the sending side as lost. The owner learns it by OnReadable, once it has read what the peer said before: the
// kernel keeps that, and its event may not have come yet.
func (c *Conn) fail() {
	c.err = ErrReset
	c.flags |= flagBroken | flagReadable
	c.out = nil
	c.Again()
}

// finishWriting shuts the sending side down once everything has left, if that was asked for.
func (c *Conn) finishWriting() {
	if c.flags&(flagWriteEnd|flagShut) == flagWriteEnd && !c.Pending() && c.err == nil {
		c.flags |= flagShut
		shutdownWrite(c.fd)
	}
}

// CloseWrite ends our sending side once the output has left: close_notify on TLS, then FIN. Input goes on.
func (c *Conn) CloseWrite() {
	if c.flags&(flagWriteEnd|flagClosed) != 0 {
		return
	}
	c.flags |= flagWriteEnd
	c.Flush()
}

// ---- end

// Close closes the connection and releases everything that it holds. What is staged is lost, also what an earlier turn has
// staged that has not left yet: who gives a request up because Sent tells that nothing of it was sent may rely on it, and
// send it elsewhere. Whoever has said something that must arrive ends by CloseWrite or CloseLinger, which send it first.
func (c *Conn) Close() {
	if c.flags&flagClosed == 0 {
		c.loop.drop(c)
	}
}

// Abort closes so that the peer sees a reset, never a clean end.
func (c *Conn) Abort() {
	if c.flags&flagClosed == 0 {
		linger := unix.Linger{Onoff: 1}
		_ = unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &linger)
		c.loop.drop(c)
	}
}

// CloseLinger sends what is staged, ends our side, and goes on reading for a bounded while before it closes: a peer
// that still sends would otherwise get a reset and lose the answer (RFC 9112 9.6).
func (c *Conn) CloseLinger() {
	if c.Closed() {
		return
	}
	if c.flags&flagConnecting != 0 || c.tls != nil && c.tls.handshaking {
		c.Close() // nothing was said yet
		return
	}
	c.CloseWrite()
	c.Discard(len(c.in))
	c.handler = &lingerer{left: lingerBytesMax, acknowledged: c.acknowledged()}
	limit := lingerTimeout
	if c.Pending() {
		limit = lingerSendTimeout // a slow reader shall have its whole answer
		c.flags |= flagTold
	}
	c.SetDeadline(c.loop.now + int64(limit))
	c.Again()
}

// lingerer drains a connection that is at its end. It reads the socket itself, below TLS: nobody looks at what comes.
type lingerer struct {
	left         int
	acknowledged uint64 // by the peer when it was last looked at
}

func (g *lingerer) OnReadable(c *Conn) {
	for c.flags&flagReadable != 0 {
		c.loop.lend(nil)
		n, _ := c.recv(c.loop.read)
		if g.left -= n; g.left < 0 {
			c.Close()
			return
		}
	}
	if c.Broken() || c.EOF() && !c.Pending() {
		c.Close()
	}
}

func (g *lingerer) OnWritable(c *Conn) {
	if c.EOF() {
		c.Close()
		return
	}
	c.SetDeadline(c.loop.now + int64(lingerTimeout))
}

// OnDeadline gives a peer that takes its output, if slowly, more time: the kernel tells of room only when a third of what it
// holds has gone.
func (g *lingerer) OnDeadline(c *Conn) {
	if n := c.acknowledged(); c.Pending() && n-g.acknowledged >= lingerSendBytes {
		g.acknowledged = n
		c.SetDeadline(c.loop.now + int64(lingerSendTimeout))
		return
	}
	c.Close()
}

// acknowledged is how many bytes the peer's kernel has taken.
func (c *Conn) acknowledged() uint64 {
	held, err := unix.IoctlGetInt(int(c.fd), unix.SIOCOUTQ)
	if err != nil {
		return c.sent
	}
	return c.sent - uint64(held)
}
