package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Limits and their defaults.
const (
	TunnelsMax   = 32 << 10 // tunnels that can be joined at once
	QueuedMax    = 1 << 20  // bytes a direction that may be queued in the kernel
	QueuedAtMost = 16 << 20 // the largest limit of that: what a stalled reader may hold
	RepeatsMax   = 1 << 20  // bytes that a segment may repeat of those before it; the program cannot take off more
)

// Options of Open. Zero values are replaced by the defaults.
type Options struct {
	Tunnels int // how many can be joined at once
	Queued  int // bytes a direction, redirected and not yet acknowledged by the receiver
	Repeats int // bytes that a segment may repeat; one that repeats more resets its tunnel
}

// Sockmap is the loaded program with its maps. Nothing of it is pinned: it ends with the process, whose sockets close as
// any others. Any goroutine may call it; calls that name a socket come from its owner.
type Sockmap struct {
	objects verdictObjects
	queued  uint32
	repeats uint32
	tested  uint64      // what Repeated said after the test at start
	gone    atomic.Bool // the program was found detached

	releases *ringbuf.Reader
	mu       sync.Mutex
	owners   []func(name uint64)
}

// Socket is one of two that are to be joined.
type Socket struct {
	FD    int
	Owner uint32 // what Listen answered; 0: nobody is told
	Name  uint64 // the owner's own, for the direction whose source this socket is
}

// Cookie names a socket for as long as the machine runs.
type Cookie uint64

// Joined is what Join did: each direction by itself is the kernel's or was left to user space.
type Joined struct {
	A, B   Cookie
	AB, BA bool // the kernel moves it
}

// Release is why a direction was given back to user space.
type Release uint32

// The program's reasons; sockmap.c has the same numbers.
const (
	Held            Release = 0 // it was not: the kernel moves it
	ReleasedUnknown Release = 1 // the kernel knows no such direction
	ReleasedLimit   Release = 2 // more would have been queued than allowed
	ReleasedGone    Release = 3 // the other socket is in no map
	ReleasedRefused Release = 4 // the kernel refused the redirect
	ReleasedLost    Release = 5 // bytes of the source were lost: the tunnel must be reset
)

func (r Release) String() string {
	return [...]string{"held", "unknown", "limit", "gone", "refused", "lost"}[min(r, ReleasedLost)]
}

// ErrRefused is wrapped by errors of Join after which both sockets are as they were.
var ErrRefused = errors.New("the sockets were not joined")

// Open probes, loads, attaches and tries the program. An error is an *Unavailable, and nothing is left behind.
func Open(o Options) (*Sockmap, *Unavailable) {
	if u := Probe(); u != nil {
		return nil, u
	}
	s, u := load(o)
	if u != nil {
		return nil, u
	}
	queued, repeats := s.queued, s.repeats
	s.queued, s.repeats = max(queued, testQueuedMin), RepeatsMax
	if err := s.test(); err != nil {
		s.Close()
		return nil, unavailable(ReasonTest, "the test at start failed: %v", err)
	}
	s.queued, s.repeats, s.tested = queued, repeats, s.Repeated()
	return s, nil
}

// load makes maps of the size asked for, and attaches the program.
func load(o Options) (*Sockmap, *Unavailable) {
	if o.Tunnels <= 0 {
		o.Tunnels = TunnelsMax
	}
	if o.Queued <= 0 {
		o.Queued = QueuedMax
	}
	if o.Repeats <= 0 || o.Repeats > RepeatsMax {
		o.Repeats = RepeatsMax
	}
	_ = rlimit.RemoveMemlock() // needed by no kernel that is recent enough; where it is refused, loading tells more
	spec, err := loadVerdict()
	if err != nil {
		return nil, unavailable(ReasonLoad, "the program that is built in cannot be read: %v", err)
	}
	for _, m := range spec.Maps {
		if m.Type == ebpf.Array {
			continue
		}
		m.MaxEntries = uint32(2 * o.Tunnels)
		if m.Type == ebpf.RingBuf { // a power of two of whole pages; room for all notes of each direction
			m.MaxEntries = uint32(1) << bits.Len(uint(max(os.Getpagesize(), notesMax*noteBytes*2*o.Tunnels)-1))
		}
	}
	s := &Sockmap{queued: uint32(min(o.Queued, QueuedAtMost)), repeats: uint32(o.Repeats)}
	if err := spec.LoadAndAssign(&s.objects, nil); err != nil {
		return nil, unavailable(ReasonLoad, "the kernel refused the program: %v", err)
	}
	err = link.RawAttachProgram(link.RawAttachProgramOptions{
		Target: s.objects.Sources.FD(), Program: s.objects.SluiceVerdict, Attach: ebpf.AttachSkSKBStreamVerdict})
	if err != nil {
		s.Close()
		return nil, unavailable(ReasonLoad, "the program cannot be attached: %v", err)
	}
	if s.releases, err = ringbuf.NewReader(s.objects.Releases); err != nil {
		s.Close()
		return nil, unavailable(ReasonLoad, "the program's notes cannot be read: %v", err)
	}
	go s.tell()
	return s, nil
}

// Close takes everything out of the kernel. No joined socket may be open.
func (s *Sockmap) Close() {
	if s.releases != nil {
		_ = s.releases.Close() // ends tell
	}
	_ = s.objects.Close()
}

// noteBytes is what a note of a release takes in the ring: its header, a name and an owner, in whole words. A direction that
// was given back may lose bytes later, which is noted too.
const (
	noteBytes = 8 + 8 + 8
	notesMax  = 2
)

// Listen registers an owner of sockets: f is called, on a goroutine that must not wait, with the name of each of its sources
// whose direction was released, and again should that direction have lost bytes afterwards. The ring has room for all that can
// be joined.
func (s *Sockmap) Listen(f func(name uint64)) (owner uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.owners = append(s.owners, f)
	return uint32(len(s.owners))
}

// tell wakes owners, until Close. A joined socket's readiness wakes nobody: the kernel would say it at each segment, and
// waking up for nothing is what a round trip through a joined tunnel would cost most.
func (s *Sockmap) tell() {
	var r ringbuf.Record
	for s.releases.ReadInto(&r) == nil {
		if len(r.RawSample) < 12 {
			continue
		}
		name, owner := binary.NativeEndian.Uint64(r.RawSample), binary.NativeEndian.Uint32(r.RawSample[8:])
		s.mu.Lock()
		var f func(uint64)
		if owner > 0 && int(owner) <= len(s.owners) {
			f = s.owners[owner-1]
		}
		s.mu.Unlock()
		if f != nil {
			f(name)
		}
	}
}

// Attached tells whether the program still is where it was attached. Once it was not, it never is again.
func (s *Sockmap) Attached() bool {
	if s.gone.Load() {
		return false
	}
	found, err := link.QueryPrograms(link.QueryOptions{Target: s.objects.Sources.FD(), Attach: ebpf.AttachSkSKBStreamVerdict})
	if err != nil || len(found.Programs) == 0 {
		s.gone.Store(true)
		return false
	}
	return true
}

// Gone tells whether Attached has ever answered false.
func (s *Sockmap) Gone() bool { return s.gone.Load() }

// CookieOf is the socket's name.
func CookieOf(fd int) (Cookie, error) {
	c, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return Cookie(c), err
}

// Join joins two established TCP sockets. Nobody may have read a part of what waits on either of them, only all or nothing
// (MSG_PEEK is nothing), and nobody writes to a socket while the kernel moves the direction towards it. Whatever waits is
// moved, in order. An error wraps ErrRefused: nothing happened, the map is full, or a socket is not established.
//
// A socket stays in the maps until it is closed: taking it out would throw away what the kernel holds for it. Its owner
// calls Forget then.
func (s *Sockmap) Join(a, b Socket) (j Joined, err error) {
	if !s.Attached() {
		return j, fmt.Errorf("%w: the program was detached", ErrRefused)
	}
	if j.A, err = CookieOf(a.FD); err != nil {
		return j, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if j.B, err = CookieOf(b.FD); err != nil {
		return j, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err := s.prepare(&j, a, b); err != nil {
		s.undo(&j)
		return j, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	// from here on data moves
	j.AB = true
	j.BA = s.objects.Sources.Update(j.B, uint64(b.FD), ebpf.UpdateNoExist) == nil
	kick(a.FD)
	if j.BA {
		kick(b.FD)
	}
	return j, nil
}

// prepare fills the maps: whoever is a source must find its peer there, or its first bytes would be dropped.
func (s *Sockmap) prepare(j *Joined, a, b Socket) error {
	d := verdictDirection{Limit: s.queued, Repeats: s.repeats, Owner: a.Owner, Name: a.Name}
	if err := s.objects.Directions.Update(j.A, &d, ebpf.UpdateNoExist); err != nil {
		return err
	}
	d.Owner, d.Name = b.Owner, b.Name
	if err := s.objects.Directions.Update(j.B, &d, ebpf.UpdateNoExist); err != nil {
		return err
	}
	if err := s.objects.Peers.Update(j.A, uint64(b.FD), ebpf.UpdateNoExist); err != nil {
		return err
	}
	if err := s.objects.Peers.Update(j.B, uint64(a.FD), ebpf.UpdateNoExist); err != nil {
		return err
	}
	return s.objects.Sources.Update(j.A, uint64(a.FD), ebpf.UpdateNoExist)
}

// undo is safe only while no source is in its map: nothing has been redirected.
func (s *Sockmap) undo(j *Joined) {
	_ = s.objects.Peers.Delete(j.A)
	_ = s.objects.Peers.Delete(j.B)
	s.Forget(j)
}

// Forget drops the counters of two sockets that are closed, or about to be. The kernel takes sockets that close out of the
// other maps.
func (s *Sockmap) Forget(j *Joined) {
	_ = s.objects.Directions.Delete(j.A)
	_ = s.objects.Directions.Delete(j.B)
}

// kick has the kernel look at what waited on the socket before it was joined.
func kick(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, 1) }

// Direction tells how many bytes of the source were redirected, and whether the direction was given back. It is a system
// call.
func (s *Sockmap) Direction(source Cookie) (bytes uint64, r Release) {
	var d verdictDirection
	for range 2 { // the first look may have taken bytes before, and released after, the program wrote both
		if s.objects.Directions.Lookup(source, &d) != nil {
			return 0, ReleasedUnknown
		}
		if d.Released == 0 {
			break
		}
	}
	return d.Bytes, Release(d.Released)
}

// Repeated is how many bytes came again, in segments that repeat what is before them, and were taken off. It is a system call.
func (s *Sockmap) Repeated() (n uint64) {
	if s.objects.Counters.Lookup(uint32(0), &n) != nil {
		return 0
	}
	return n - s.tested
}

// Counters are one socket's, read at one moment.
type Counters struct {
	Received    uint64 // bytes of the stream that came, the FIN aside
	Queued      uint64 // bytes of the stream that were given to it to send
	Established bool

	SinceReceived int64 // nanoseconds since bytes came last
}

// Count reads a socket's counters (TCP_INFO). fin tells that the peer's FIN has come: the kernel counts it as a byte.
func Count(fd int, fin bool) (c Counters, err error) {
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return c, err
	}
	c.Received = i.Bytes_received
	if fin && c.Received > 0 {
		c.Received--
	}
	c.Queued = i.Bytes_sent - i.Bytes_retrans + uint64(i.Notsent_bytes)
	c.Established = i.State == established
	c.SinceReceived = int64(i.Last_data_recv) * 1e6
	return c, nil
}

const established = 1 // TCP_ESTABLISHED

// Full tells whether an error of Join came from a map that has no room.
func Full(err error) bool { return errors.Is(err, syscall.E2BIG) || errors.Is(err, syscall.ENOSPC) }

// Entries is how many entries the maps have: peers, sources and directions. For tests; it walks them.
func (s *Sockmap) Entries() (n [3]int) {
	for i, m := range []*ebpf.Map{s.objects.Peers, s.objects.Sources, s.objects.Directions} {
		key := Cookie(0)
		for err := m.NextKey(nil, &key); err == nil; err = m.NextKey(key, &key) {
			n[i]++
		}
	}
	return n
}

// Detach takes the program away, as an operator could. For tests.
func (s *Sockmap) Detach() error {
	return link.RawDetachProgram(link.RawDetachProgramOptions{
		Target: s.objects.Sources.FD(), Program: s.objects.SluiceVerdict, Attach: ebpf.AttachSkSKBStreamVerdict})
}

// Loaded are the IDs of programs of this name that the kernel has, of all processes. For tests.
func Loaded() (ids []uint32, err error) {
	for id := ebpf.ProgramID(0); ; {
		if id, err = ebpf.ProgramGetNextID(id); errors.Is(err, unix.ENOENT) {
			return ids, nil
		}
		if err != nil {
			return ids, err
		}
		p, err := ebpf.NewProgramFromID(id)
		if err != nil {
			continue // it has gone
		}
		if i, err := p.Info(); err == nil && i.Name == verdictProgSluiceVerdict {
			ids = append(ids, uint32(id))
		}
		_ = p.Close()
	}
}
