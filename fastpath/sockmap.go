package fastpath

import (
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/ebpf"
)

// SockmapUse says which tunnels are handed to the kernel.
type SockmapUse uint8

// What may be asked for.
const (
	SockmapDefault SockmapUse = iota // of a tunnel: as its loop was told
	SockmapOff                       // none
	SockmapAuto                      // those that carry many small messages
	SockmapOn                        // all that can be
)

// SockmapUses are the uses by their names in flags and annotations.
var SockmapUses = map[string]SockmapUse{"off": SockmapOff, "auto": SockmapAuto, "on": SockmapOn}

// SockmapStats are written by the loop alone and read by anybody.
type SockmapStats struct {
	Joined   atomic.Uint64                        // tunnels that were handed to the kernel
	Refused  atomic.Uint64                        // tunnels that were to be, and could not
	Open     atomic.Int64                         // tunnels that were handed over and are open
	Released [ebpf.ReleasedLost + 1]atomic.Uint64 // directions that came back to user space, by reason; lost: whose tunnels were reset
	Bytes    atomic.Uint64                        // bytes that the kernel moved; told when a direction ends or comes back
}

// UseSockmap gives the loop what joins sockets, and says for which tunnels; before Run.
func (l *Loop) UseSockmap(m *ebpf.Sockmap, use SockmapUse) {
	l.sockmap, l.sockmapUse = m, use
	l.sockmapOwner = m.Listen(func(name uint64) { l.Post(func() { l.released(name) }) })
}

// released gives the tunnel a turn whose direction came back, if it is still there. One that came back before, and is told of
// again, has lost bytes.
func (l *Loop) released(name uint64) {
	e := unix.EpollEvent{Fd: int32(name >> 32), Pad: int32(uint32(name))}
	c := l.at(&e)
	if c == nil {
		return
	}
	if t, ok := c.handler.(*Tunnel); ok && t.kernel != nil {
		if d := t.direction(c); !d.held && !d.ended {
			t.checkLost(d)
			return
		}
	}
	c.Again()
}

// checkLost resets both sides if bytes of a direction were lost that user space moves again. The program lets nothing through
// that follows the hole.
func (t *Tunnel) checkLost(d *direction) {
	if _, why := t.kernel.m.Direction(t.source(d)); why == ebpf.ReleasedLost {
		t.lost(d)
	}
}

func (t *Tunnel) lost(d *direction) {
	d.from.loop.Stats.Sockmap.Released[ebpf.ReleasedLost].Add(1)
	t.abort(ErrReset)
}

// asSocket is c as the sockmap is told of it: by the name that epoll has for it, too.
func (c *Conn) asSocket() ebpf.Socket {
	return ebpf.Socket{FD: int(c.fd), Owner: c.loop.sockmapOwner, Name: uint64(uint32(c.fd))<<32 | uint64(uint32(c.gen))}
}

// mute stops input's readiness from waking the loop: of a joined socket the kernel tells it at each segment, and epoll would
// wake the loop only to find that nothing is to be read. Its end and errors are told as ever.
func (c *Conn) mute(yes bool) {
	c.flags &^= flagMuted
	if yes {
		c.flags |= flagMuted
	}
	c.watch()
}

// SetSockmap asks for another use than the loop's for this tunnel.
func (t *Tunnel) SetSockmap(use SockmapUse) {
	if use != SockmapDefault {
		t.use = use
		t.askSockmap()
	}
}

// askSockmap has a tunnel that is to be handed over in any case looked at, whether or not bytes come.
func (t *Tunnel) askSockmap() {
	if t.use == SockmapOn && t.a.loop.sockmap != nil {
		t.a.Again()
	}
}

// When a tunnel is handed over, as docs/decisions/0082-sockmap-policy.md says.
const (
	sockmapAge    = int64(time.Second) // auto: from which age on
	sockmapPieces = 32                 // auto: after how many small pieces without a large one
	sockmapTries  = 8                  // how often it is tried to find both sides at rest; each try waits for twice as many pieces

	rechecksSoon = 64 // how often counters that do not agree yet are looked at again at once
	recheckFirst = int64(500 * time.Microsecond)
	recheckMax   = int64(50 * time.Millisecond)
)

// kernelPath is a tunnel's while its sockets are in the sockmap, which is until they are closed.
type kernelPath struct {
	ebpf.Joined
	m        *ebpf.Sockmap
	rechecks int
	wait     int64
}

// consider hands the tunnel over when its traffic is of the kind that gains, and it is at rest. n bytes have just moved.
func (t *Tunnel) consider(n int64) {
	l := t.a.loop
	if l.sockmap == nil || t.kernel != nil || t.use < SockmapAuto || n == 0 && (t.use == SockmapAuto || t.small > 0) {
		return
	}
	if n >= bulkBytes {
		t.small = 0
		if t.use == SockmapAuto {
			return
		}
	}
	t.small++
	due := uint32(1)
	if t.use == SockmapAuto {
		if due = sockmapPieces; l.now-t.began < sockmapAge {
			return
		}
	}
	if t.small >= due<<t.tries {
		t.handOver()
	}
}

// handOver gives both directions to the kernel if both are at rest: everything that was read has been sent, and on neither
// socket a segment was read in part, which would be moved whole.
func (t *Tunnel) handOver() {
	if t.tries++; t.tries >= sockmapTries {
		t.use = SockmapOff
	}
	l := t.a.loop
	if !t.ab.atRest() || !t.ba.atRest() {
		return
	}
	j, err := l.sockmap.Join(t.a.asSocket(), t.b.asSocket())
	if err != nil {
		t.use = SockmapOff
		l.Stats.Sockmap.Refused.Add(1)
		if l.sockmap.Gone() {
			slog.Error("the sockmap's program was detached: tunnels go through user space from now on; start the process again to load it", "loop", l.ID)
			l.sockmap = nil
		}
		return
	}
	t.ab.stopSplice()
	t.ba.stopSplice()
	t.kernel = &kernelPath{Joined: j, m: l.sockmap}
	t.ab.held, t.ba.held = j.AB, j.BA
	for _, c := range []*Conn{t.a, t.b} {
		c.ReadAhead(false)
		c.flags |= flagJoined
	}
	t.a.mute(j.AB)
	t.b.mute(j.BA)
	l.Stats.Sockmap.Joined.Add(1)
	l.Stats.Sockmap.Open.Add(1)
	t.a.Again() // an event of the sockets that was led before the hand-over does not come again
	t.b.Again()
}

// atRest tells whether nothing of the direction is under way in user space. The kernel's counters are asked too: out of band
// data, for one, makes a read stop in the middle of a segment.
func (d *direction) atRest() bool {
	const unfit = flagEOF | flagHup | flagBroken | flagClosed | flagConnecting | flagWriteEnd
	from, to := d.from, d.to
	if d.ended || !from.Plain() || !to.Plain() || from.flags&unfit != 0 || len(from.in) > 0 || from.aheadLeft > 0 || d.splice.pipe != nil {
		return false
	}
	if to.Flush(); to.Pending() || to.flags&flagBlocked != 0 {
		return false
	}
	in, err := ebpf.Count(int(from.fd), false)
	if err != nil || !in.Established || in.Received != from.received && from.received != 0 {
		return false
	}
	out, err := ebpf.Count(int(to.fd), false)
	return err == nil && out.Established && out.Queued == to.sent
}

// follow looks what has become of a direction that the kernel moves: whether it came back, or has come to its end.
func (t *Tunnel) follow(d *direction) {
	if t.a.Broken() || t.b.Broken() {
		t.abort(ErrReset)
		return
	}
	redirected, why := t.kernel.m.Direction(t.source(d))
	arrived, err := d.arrived()
	if err != nil {
		t.abort(ErrReset)
		return
	}
	switch {
	case why == ebpf.ReleasedUnknown:
		t.abort(ErrReset) // somebody emptied the map, and nobody knows what was moved
	case why == ebpf.ReleasedLost:
		t.lost(d)
	case why != ebpf.Held && arrived < redirected:
		t.recheck(d)
	case why != ebpf.Held:
		d.from.mute(false) // before it is read: what comes later is told
		t.take(d, redirected)
		d.from.loop.Stats.Sockmap.Released[min(why, ebpf.ReleasedLost)].Add(1)
		d.from.flags |= flagReadable
		t.move(d)
	case d.from.flags&flagHup != 0:
		// the FIN is in sight; what came before it may still be on its way through the kernel's worker
		if got, err := ebpf.Count(int(d.from.fd), true); err != nil || arrived < got.Received-d.from.received {
			t.recheck(d)
			return
		}
		t.take(d, arrived)
		t.ended(d)
	}
}

// arrived is how many bytes the destination was given since the kernel moves the direction.
func (d *direction) arrived() (uint64, error) {
	out, err := ebpf.Count(int(d.to.fd), false)
	if err != nil || out.Queued < d.to.sent {
		return 0, err
	}
	return out.Queued - d.to.sent, nil
}

// take ends the kernel's part in a direction: n bytes were its.
func (t *Tunnel) take(d *direction, n uint64) {
	d.held = false
	d.copied += int64(n)
	d.from.received += n
	d.to.sent += n
	d.from.loop.Stats.Sockmap.Bytes.Add(n)
	t.kernel.rechecks, t.kernel.wait = 0, 0
}

// source is the name of the direction's source in the maps.
func (t *Tunnel) source(d *direction) ebpf.Cookie {
	if d == &t.ab {
		return t.kernel.A
	}
	return t.kernel.B
}

// recheck looks at the direction again: soon at first, then after a while that grows. Nothing wakes us when the kernel's
// worker has moved what it holds. The tunnel's deadline bounds it all.
func (t *Tunnel) recheck(d *direction) {
	k := t.kernel
	if k.rechecks++; k.rechecks <= rechecksSoon {
		d.from.Again()
		return
	}
	k.wait = min(max(2*k.wait, recheckFirst), recheckMax)
	if at := t.a.loop.now + k.wait; t.a.deadline == 0 || at < t.a.deadline {
		t.a.SetDeadline(at)
	}
}

// recheckNow is OnDeadline of a, which has no other deadline.
func (t *Tunnel) recheckNow() {
	for _, d := range []*direction{&t.ab, &t.ba} {
		if t.a != nil && !d.ended {
			t.move(d)
		}
	}
}

// early tells that the end which was read is none yet: the kernel says it as soon as the FIN is there, even while bytes that
// it passed to us wait in its own queue.
func (t *Tunnel) early(d *direction) bool {
	if t.kernel == nil {
		return false
	}
	got, err := ebpf.Count(int(d.from.fd), true)
	return err == nil && d.from.received < got.Received
}

// awaitRest has the source read again after an early end.
func (t *Tunnel) awaitRest(d *direction) {
	d.from.flags = d.from.flags&^flagEOF | flagReadable
	t.recheck(d)
}

// busy moves t.last to when bytes last came to a socket that the kernel serves.
func (t *Tunnel) busy() {
	if !t.ab.held && !t.ba.held {
		return
	}
	for _, c := range []*Conn{t.a, t.b} {
		if n, err := ebpf.Count(int(c.fd), false); err == nil {
			t.last = max(t.last, c.loop.now-n.SinceReceived)
		}
	}
}

// settleKernel notes, before the sockets close, what the kernel has moved until now.
func (t *Tunnel) settleKernel() {
	for _, d := range []*direction{&t.ab, &t.ba} {
		if !d.held {
			continue
		}
		n, _ := d.arrived()
		t.take(d, n)
	}
}

// forget is called once the sockets are closed, with what t.kernel was.
func (k *kernelPath) forget(l *Loop) {
	k.m.Forget(&k.Joined)
	l.Stats.Sockmap.Open.Add(-1)
}
