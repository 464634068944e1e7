package fastpath

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/ebpf"
)

// Loop is one epoll instance and one goroutine, and all that they own: connections, timers, buffers, pipes. It has
// no lock on its usual path; only Post, Resume and the adoption of connections cross threads.
type Loop struct {
	ID int // 0 … Loops-1

	ep, wakeFD int
	now        int64
	yielded    int64 // when Go's scheduler last had its turn
	busy       bool  // the last wait was short
	offers     offers
	conns      []*Conn // by descriptor
	events     []unix.EpollEvent
	wheel      wheel
	fired      func(*Conn) // l.deadline, bound once

	skew   int64            // tests: how far the loop's time was set forward
	wall   time.Time        // the time of day at wallAt; read anew every wallEvery, because a clock may be set
	wallAt int64            // loop time
	clock  func() time.Time // tells the time of day

	ahead   []byte    // places for input that is received before its connection's turn, one for each event of a batch
	read    []byte    // the shared read buffer
	reader  *Conn     // whose unread input may be a view of read
	records []byte    // the shared buffer for TLS records from sockets
	opener  *tlsState // whose unread records may be a view of records
	lowats  []ref     // connections with SO_RCVLOWAT raised
	sealed  []byte    // the shared buffer for TLS records to sockets: those of one connection, or of all that are about to send
	buffers buffers
	retired [][]byte // buffers that go back to stock when the turn ends
	pipes   pipes
	vector  sendVector
	calls   calls
	dirty   []ref // connections with staged output
	late    []ref // … of those that gather it
	ready   []ref // connections that asked for another turn
	closed  []*Conn
	free    []*Conn
	spent   []Spent
	gen     int32
	tickets tickets

	warm     []*recordLayer   // those with ciphers
	restedAt int64            // when those of them that are not used were last looked for
	nonce    [nonceBytes]byte // the present record's

	porch   bool
	lasting int64 // when a client's connection that lasts last had a turn, …
	crowded int64 // … and when a crowd of handshakes was last told of

	shaking    []*handshake // handshakes that have something to do, in the order of their turns
	shookAt    int64        // when those of this round began
	coroutines []*coroutine // idle ones

	mu        sync.Mutex
	posted    []post
	spare     []post
	queued    atomic.Bool  // posted is not empty
	asleep    atomic.Bool  // in epoll_wait, or about to be
	wakers    atomic.Int32 // goroutines that are about to write the eventfd
	newcomers [2][]post    // what GiveWatched brought, and the list to be used next
	came      atomic.Bool  // there are newcomers
	stopping  bool
	poison    bool  // tests: overwrite the shared buffers after every turn
	watched   int32 // the last generation that GiveWatched used; below 0, so that they are no others' (register)
	givenGen  int32 // the generation of given
	given     int32 // the descriptor that Give is handing over; -1: none, or Adopt has it

	sockmap      *ebpf.Sockmap // what joins tunnels in the kernel; nil: nothing
	sockmapUse   SockmapUse
	sockmapOwner uint32 // what ebpf.Listen answered

	// Local is the loop's slot for the rooms above: free lists of theirs. Index by their own constants.
	Local [localSlots]any

	Stats LoopStats
}

// post is what another goroutine asks of a loop: to call a function, or to take a connection.
type post struct {
	f      func()
	adopt  func(l *Loop, fd int, remote netip.AddrPort) // f is nil
	fd     int32
	remote netip.AddrPort
	gen    int32 // under which epoll watches fd already; 0: it does not
}

// Spent is an owner's value that is of no use any more, such as a connection's handler, and may be used again once nobody
// can hold it.
type Spent interface {
	OnSpent(l *Loop) // the round has ended, and no connection that was closed in it has a handler any more
}

// Spend has s told when the round has ended. On the loop only.
func (l *Loop) Spend(s Spent) { l.spent = append(l.spent, s) }

// Slots of Loop.Local.
const (
	LocalExchanges = iota
	LocalSessions
	LocalLog
	LocalDatagrams
	LocalArrivals
	localSlots
)

// LoopStats are written by the loop alone and read by anybody.
type LoopStats struct {
	Conns   atomic.Int64 // open connections, adopted and dialled; also what the door compares
	Turns   atomic.Uint64
	Events  atomic.Uint64
	Panics  atomic.Uint64
	Batches atomic.Uint64 // system calls that made several receives or sends; 0: there is no ring
	Batched atomic.Uint64 // … how many
	Offers  atomic.Uint64 // of the processor, before a wait
	Lasting atomic.Int64  // loop time at which a client's connection that lasts last had a turn
	Pending atomic.Int64  // connections given to the loop that it has not adopted yet
	Sockmap SockmapStats
}

// ref names a connection at a moment: a closed one whose value was reused has another generation.
type ref struct {
	c   *Conn
	gen int32
}

func (r ref) live() bool { return r.c.gen == r.gen && r.c.flags&flagClosed == 0 }

// base makes loop time: nanoseconds on the monotonic clock since the process started, plus one second, so that 0 is
// never a time.
var base = time.Now().Add(-time.Second)

// NewLoop makes a loop; Run starts it.
func NewLoop(id int) (*Loop, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	l := &Loop{ID: id, ep: ep, wakeFD: wake,
		events:  make([]unix.EpollEvent, eventsPerWait),
		ahead:   make([]byte, flushBatch*aheadStride),
		read:    make([]byte, readBufferBytes),
		records: make([]byte, readBufferBytes),
	}
	l.fired, l.clock, l.given = l.deadline, time.Now, -1
	l.now = int64(time.Since(base))
	l.readClock()
	l.wheel.tick = l.now >> wheelShift
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: wakeInput, Fd: int32(wake), Pad: -1}); err != nil {
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return l, nil
}

// Now is the loop's time in nanoseconds on the monotonic clock, read once per turn of epoll. On the loop only.
func (l *Loop) Now() int64 { return l.now }

// Now is the loops' clock read afresh, for whoever is on no loop.
func Now() int64 { return int64(time.Since(base)) }

// Wall is Now as time of day. A clock that is set is followed within wallEvery.
func (l *Loop) Wall() time.Time { return l.wall.Add(time.Duration(l.now - l.wallAt)) }

// readClock takes the time of day, without the monotonic reading that would hide a step.
func (l *Loop) readClock() { l.wall, l.wallAt = l.clock().Round(0), l.now }

// Run leads the loop until Stop. Its goroutine is not locked to a thread: in practice it keeps one, and whenever the
// scheduler does take it away, a locked goroutine would cost two threads' switches more.
func (l *Loop) Run() {
	if l.porch {
		l.lowerWeight()
	}
	for !l.stopping {
		if l.now-l.yielded >= int64(yieldEvery) {
			l.yielded = l.now
			runtime.Gosched()
		}
		l.round(l.sleep())
	}
	l.closeAll()
}

// round waits for events, at most ms milliseconds, and leads all that is due.
func (l *Loop) round(ms int) {
	n := l.wait(ms)
	l.asleep.Store(false)
	if l.now-l.wallAt >= int64(wallEvery) {
		l.readClock()
	}
	if l.now-l.restedAt >= int64(layersRest) {
		l.restTLS()
	}
	l.Stats.Turns.Store(l.Stats.Turns.Load() + 1)
	l.Stats.Events.Store(l.Stats.Events.Load() + uint64(n))
	l.takeNewcomers() // events may be of them
	l.announce(l.events[:n])
	for i := 0; i < n; i += flushBatch {
		l.lead(l.events[i:min(i+flushBatch, n)])
	}
	l.takeNewcomers()
	if l.queued.Load() {
		l.runPosted()
	}
	if len(l.shaking) > 0 {
		l.runHandshakes()
	}
	l.wheel.advance(l.now, l.fired)
	l.runReady()
	l.flushLate()
	if len(l.lowats) > 0 {
		l.resetLowats()
	}
	l.recycle()
}

// wait takes the next events and the time. While they come in quick succession Go's scheduler is not told of the wait: it
// costs more than the system call, and a sleeping loop's processor would be taken away and asked for again all the time
// (docs/decisions/0008-waiting-without-the-scheduler.md). A loop that is not busy waits as any goroutine does.
func (l *Loop) wait(ms int) int {
	const brief = int(rawWaitMax / time.Millisecond)
	n := 0
	if short := ms; l.busy || ms == 0 {
		if short < 0 || short > brief {
			short = brief
		}
		if ms != 0 {
			l.offerBehind()
		}
		n = epollWaitBriefly(l.ep, l.events, short)
		l.offers.events += n
		if n > 0 || short == ms {
			l.now = l.time()
			return n
		}
	}
	from := l.time()
	n = epollWait(l.ep, l.events, ms)
	l.now = l.time()
	l.busy = n > 0 && l.now-from < int64(rawWaitMax)
	return n
}

func (l *Loop) time() int64 { return int64(time.Since(base)) + l.skew }

// announce marks all connections of a batch that have input before any is led: whoever looks at another connection in
// this batch, such as a pool that is about to reuse one, sees that something has come.
func (l *Loop) announce(events []unix.EpollEvent) {
	for i := range events {
		e := &events[i]
		if e.Events&^unix.EPOLLOUT == 0 || e.Fd == int32(l.wakeFD) {
			continue
		}
		if c := l.at(e); c != nil {
			c.flags |= flagReadable
		}
	}
}

// sleep says how long epoll_wait may block. Once asleep is set, Post writes the eventfd.
func (l *Loop) sleep() int {
	if len(l.ready) > 0 || len(l.shaking) > 0 {
		return 0
	}
	l.asleep.Store(true)
	if l.queued.Load() || l.came.Load() {
		return 0
	}
	ms := l.wheel.wait(l.now)
	if len(l.lowats) > 0 && (ms < 0 || ms > int(rcvLowatReset.Milliseconds())) {
		ms = int(rcvLowatReset.Milliseconds())
	}
	return ms
}

// Post runs f on the loop, soon. From any goroutine; f must not block. A panic in f is counted and ends nothing else: whose
// connection it was about, f alone knows.
func (l *Loop) Post(f func()) { l.post(post{f: f}) }

func (l *Loop) post(p post) {
	l.mu.Lock()
	l.posted = append(l.posted, p)
	l.queued.Store(true)
	l.wake()
}

// wake gives the lock up and then wakes the loop, which wants the lock at once: a loop that finds it held waits for Go's
// scheduler. wakers keeps the eventfd open meanwhile, since its number may be another descriptor's once the loop has ended.
func (l *Loop) wake() {
	if !l.asleep.CompareAndSwap(true, false) {
		l.mu.Unlock()
		return
	}
	l.wakers.Add(1)
	l.mu.Unlock()
	one := [8]byte{1}
	_, _ = unix.Write(l.wakeFD, one[:])
	l.wakers.Add(-1)
}

func (l *Loop) runPosted() {
	l.mu.Lock()
	ps := l.posted
	l.posted = l.spare[:0]
	l.queued.Store(false)
	l.mu.Unlock()
	for i := range ps {
		if p := ps[i]; p.f != nil {
			l.guard(nil, p.f)
		} else {
			l.take(p)
		}
		ps[i] = post{}
		l.endTurn()
	}
	l.spare = ps
}

// takeNewcomers has the connections adopted that GiveWatched brought.
func (l *Loop) takeNewcomers() {
	if !l.came.Load() {
		return
	}
	l.mu.Lock()
	ps := l.newcomers[0]
	l.newcomers[0] = l.newcomers[1][:0]
	l.came.Store(false)
	l.mu.Unlock()
	for i := range ps {
		l.take(ps[i])
		ps[i] = post{}
		l.endTurn()
	}
	l.newcomers[1] = ps
}

// Stop ends Run after the present turn and closes every connection. From any goroutine.
func (l *Loop) Stop() { l.Post(func() { l.stopping = true }) }

func (l *Loop) closeAll() {
	for _, c := range l.conns {
		if c != nil {
			c.Close()
		}
	}
	l.trimCoroutines(0)
	l.pipes.close()
	l.calls.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = unix.Close(l.ep)
	l.ep = -1
	l.asleep.Store(false)
	for l.wakers.Load() > 0 {
		runtime.Gosched()
	}
	_ = unix.Close(l.wakeFD)
}

// lead leads a batch of events: input is received in a row, then everybody has a turn, then the output is sent in a row.
func (l *Loop) lead(events []unix.EpollEvent) {
	l.readAhead(events)
	for i := range events {
		l.dispatch(&events[i])
	}
	l.flushDirty()
	if l.poison {
		overwrite(l.ahead[:len(events)*aheadStride])
	}
}

// dispatch leads one event to its connection's handler.
func (l *Loop) dispatch(e *unix.EpollEvent) {
	if e.Fd == int32(l.wakeFD) {
		return // it is edge-triggered, so it need not be read: each write is an event
	}
	c := l.at(e)
	if c == nil {
		return // closed earlier in this batch
	}
	l.offer()
	l.turn(c, e.Events)
	if c.aheadLeft > 0 {
		c.keepAhead()
	}
	if l.reclaim(); len(l.dirty) >= flushBatch {
		l.flushDirty()
	}
}

// at is the connection that an event is about; nil: it was closed earlier in this batch.
func (l *Loop) at(e *unix.EpollEvent) *Conn {
	if int(e.Fd) >= len(l.conns) { // given to the loop, and not taken
		return nil
	}
	if c := l.conns[e.Fd]; c != nil && c.gen == e.Pad {
		return c
	}
	return nil
}

// turn tells a connection what happened to it. A panic ends that connection only.
func (l *Loop) turn(c *Conn, ev uint32) {
	defer l.recovered(c)
	if ev&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if ev&unix.EPOLLERR != 0 || c.flags&flagShut == 0 {
			c.flags |= flagBroken
		}
		ev |= unix.EPOLLIN
	}
	if c.flags&flagConnecting != 0 {
		c.connected(ev)
		return
	}
	if ev&unix.EPOLLOUT != 0 && c.flags&flagBlocked != 0 {
		c.drained()
		if c.flags&flagClosed != 0 {
			return
		}
	}
	if ev&unix.EPOLLRDHUP != 0 {
		c.flags |= flagHup
	}
	if ev&(unix.EPOLLIN|unix.EPOLLRDHUP) != 0 {
		c.flags |= flagReadable
		if c.tls != nil && c.tls.handshaking {
			c.tls.feedSocket()
			return
		}
		l.notice(c)
		c.handler.OnReadable(c)
	}
}

// drained sends what had to wait, and tells the owner when there is room again.
func (c *Conn) drained() {
	c.flags &^= flagBlocked
	if c.tls != nil && c.tls.handshaking {
		c.tls.sendPending()
		return
	}
	c.settle()
}

// settle sends what waits, and tells the owner what it is owed once everything has left.
func (c *Conn) settle() {
	c.Flush()
	if c.flags&(flagBlocked|flagClosed) != 0 || c.Pending() {
		return
	}
	if c.flags&flagTold != 0 {
		c.flags &^= flagTold
		c.handler.OnWritable(c)
	}
	if c.flags&(flagHungry|flagClosed) == flagHungry {
		c.flags &^= flagHungry
		c.handler.OnReadable(c)
	}
}

// recovered ends the connection whose handler panicked; the process goes on.
func (l *Loop) recovered(c *Conn) {
	p := recover()
	if p == nil {
		return
	}
	l.panicked(p)
	if c != nil {
		c.flags |= flagPanicked
		c.Abort()
	}
}

func (l *Loop) panicked(p any) {
	l.Stats.Panics.Add(1)
	slog.Error("a handler panicked; its connection is closed, everything else serves on: please report this", "panic", p, "stack", string(debug.Stack()))
}

func (l *Loop) guard(c *Conn, f func()) {
	defer l.recovered(c)
	f()
}

func (l *Loop) deadline(c *Conn) {
	l.guardDeadline(c)
	l.endTurn()
}

func (l *Loop) guardDeadline(c *Conn) {
	defer l.recovered(c)
	if c.flags&flagConnecting != 0 {
		c.connectFailed(ErrConnectTimeout)
		return
	}
	c.handler.OnDeadline(c)
}

// endTurn sends what the turn staged and takes the shared read buffer back.
func (l *Loop) endTurn() {
	l.flushDirty()
	l.reclaim()
}

// flushDirty sends what is staged.
func (l *Loop) flushDirty() { l.flush(&l.dirty) }

// flushLate sends what the connections that gather have staged in the whole round.
func (l *Loop) flushLate() { l.flush(&l.late) }

// flush sends what the connections of a list have staged, and empties it. What goes through TLS is sealed first, for all of
// them: then the kernel has its turn, in a row.
func (l *Loop) flush(list *[]ref) {
	if len(*list) > 1 {
		for _, r := range *list {
			if r.c.tls != nil && r.live() {
				r.c.tls.sealAhead()
			}
		}
	}
	for i := 0; i < len(*list); { // flushing may stage more
		for ; i < len(*list) && !l.calls.full(); i++ {
			if r := (*list)[i]; r.live() {
				r.c.flags &^= flagDirty
				if b := r.c.outgoing(); b != nil {
					l.calls.add(r.c, b)
				} else {
					r.c.Flush()
				}
			}
		}
		for _, k := range l.inARow(ringOpSend) {
			k.c.outgone(k.n, k.errno)
		}
	}
	*list, l.sealed = (*list)[:0], l.sealed[:0]
}

// reclaim takes back the buffers that views may have referred to.
func (l *Loop) reclaim() {
	for i, b := range l.retired {
		l.buffers.put(b)
		l.retired[i] = nil
	}
	l.retired = l.retired[:0]
	if l.reader != nil {
		l.lend(nil)
	}
	if l.opener != nil {
		l.lendRecords(nil)
	}
}

// lend gives the shared read buffer to c; who held it before stashes what it has not read.
func (l *Loop) lend(c *Conn) {
	if l.reader != nil && l.reader != c {
		l.reader.stash()
	}
	if l.reader != c && l.poison {
		overwrite(l.read)
	}
	l.reader = c
}

// overwrite makes views that outlived their buffer show in tests.
func overwrite(b []byte) {
	if len(b) == 0 {
		return
	}
	b[0] = 0xdb
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// runReady gives another turn to those that asked for one.
func (l *Loop) runReady() {
	n := len(l.ready)
	for i := 0; i < n; i++ {
		r := l.ready[i]
		if !r.live() {
			continue
		}
		r.c.flags &^= flagReady
		l.again(r.c)
		l.endTurn()
	}
	l.ready = l.ready[:copy(l.ready, l.ready[n:])]
}

func (l *Loop) again(c *Conn) {
	defer l.recovered(c)
	if c.tls != nil && c.tls.handshaking {
		c.tls.feedSocket()
		return
	}
	c.handler.OnReadable(c)
}

// wakeInput: the eventfd's count only grows, and would take centuries to be full.
const wakeInput = unix.EPOLLIN | unix.EPOLLET&0xffffffff

const epollInput = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff

// Adopt makes the descriptor fd, a connected non-blocking stream socket, the loop's. On the loop only. At its end the
// loop closes it.
func (l *Loop) Adopt(fd int, remote netip.AddrPort, h Handler) (*Conn, error) {
	var gen int32
	if l.given == int32(fd) {
		l.given, gen = -1, l.givenGen
	}
	if gen != 0 { // epoll watches it already
		c := l.enter(int32(fd), h, 0, gen)
		c.remote = remote
		return c, nil
	}
	c, err := l.register(int32(fd), h, 0)
	if err != nil {
		closeFD(int32(fd))
		return nil, err
	}
	c.remote = remote
	return c, nil
}

func (l *Loop) register(fd int32, h Handler, flags connFlags) (*Conn, error) {
	l.gen = (l.gen + 1) & 0x7fffffff
	ev := unix.EpollEvent{Events: epollInput, Fd: fd, Pad: l.gen}
	if flags&flagOut != 0 {
		ev.Events |= unix.EPOLLOUT
	}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, int(fd), &ev); err != nil {
		return nil, fmt.Errorf("epoll_ctl: %w", err)
	}
	return l.enter(fd, h, flags, l.gen), nil
}

// enter makes the value of a connection that epoll watches under the generation gen.
func (l *Loop) enter(fd int32, h Handler, flags connFlags, gen int32) *Conn {
	if int(fd) >= len(l.conns) {
		l.conns = append(l.conns, make([]*Conn, int(fd)+64-len(l.conns))...)
	}
	var c *Conn
	if n := len(l.free); n > 0 {
		c = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		c = new(Conn)
	}
	*c = Conn{loop: l, handler: h, fd: fd, gen: gen, flags: flags}
	l.conns[fd] = c
	l.Stats.Conns.Add(1)
	return c
}

// drop closes c and releases what it holds. The value is reused only after the turn, when nobody can hold it.
func (l *Loop) drop(c *Conn) {
	if c.tls != nil {
		c.tls.release()
	}
	fd := c.fd
	l.forget(c)
	closeFD(fd)
	if k := c.keeper; k != nil {
		c.keeper = nil
		k.OnClosed(c)
	}
}

// forget takes back what c has of the loop, but not the descriptor. The value is closed.
func (l *Loop) forget(c *Conn) {
	if c.armed != 0 {
		l.wheel.unlink(c)
	}
	c.deadline = 0
	if l.reader == c {
		l.reader = nil
	}
	c.in, c.aheadLeft = nil, 0
	c.retire()
	c.releaseOut()
	c.flags = c.flags&^flagReadable | flagClosed
	l.conns[c.fd] = nil
	c.fd = -1 // the number may be another connection's in a moment
	l.Stats.Conns.Add(-1)
	l.closed = append(l.closed, c)
}

// recycle makes the values of connections that were closed in this round available again, and then what its owners had
// spent.
func (l *Loop) recycle() {
	for i, c := range l.closed {
		c.handler, c.tls = nil, nil
		c.gen = 0
		if len(l.free) < connsIdleMax && c.flags&flagPanicked == 0 {
			l.free = append(l.free, c)
		}
		l.closed[i] = nil
	}
	l.closed = l.closed[:0]
	for i, s := range l.spent {
		s.OnSpent(l)
		l.spent[i] = nil
	}
	l.spent = l.spent[:0]
}

// Each calls f with the handler of every open connection; f may close any. For drains, not for the usual path.
func (l *Loop) Each(f func(Handler)) {
	for _, c := range l.conns {
		if c != nil && c.flags&flagClosed == 0 {
			f(c.handler)
		}
	}
}

// Some is Each for at most n places of the list of connections, from the one numbered from on, as long as f answers
// true. It answers where to go on the next time: who looks for a few among very many never holds the loop up.
func (l *Loop) Some(from, n int, f func(Handler) bool) (next int) {
	if len(l.conns) == 0 {
		return 0
	}
	for at := from; at < from+min(n, len(l.conns)); at++ {
		if c := l.conns[at%len(l.conns)]; c != nil && c.flags&flagClosed == 0 && !f(c.handler) {
			return (at + 1) % len(l.conns)
		}
	}
	return (from + n) % len(l.conns)
}
