package sni

import (
	"context"
	"hash/maphash"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// UDP is the door of a UDP service. One loop has it, with all its sessions: a client's datagrams stay in their order. A
// session is a client's address and port; it has a socket of its own that is connected to an endpoint, so that the kernel
// tells whose answer comes, and what ICMP says. On the loop but for Listen, Close, EndTunnels, Open and Socket.
//
// It answers nobody who has not asked: a session begins with a client's datagram, and ends with the last answer that is
// due (route.Service.Responses). What a session costs is bounded, as is their number: beyond it the one that was silent
// longest goes, so that forged addresses push each other out before anybody who speaks.
type UDP struct {
	UDPConfig
	socket *listen.Socket
	conn   *fastpath.Conn // of the loop: reads the port; nil: not open, or closed
	closed bool
	open   atomic.Int64
	got    atomic.Uint64
	seed   maphash.Seed

	buckets        []*udpSession // by hash of the peer; a power of two of them
	count          int           // sessions in all
	newest, oldest *udpSession   // by their last datagram
	free           []*udpSession
}

// UDPConfig is what the door of a UDP service needs of the rest of the house.
type UDPConfig struct {
	Loop    *fastpath.Loop
	Loops   []*fastpath.Loop
	HTTP    *l7.Server                 // whose log and settings
	Service func() *route.BoundService // what the port leads to at present; nil answer: nothing any more
	Limits  func() *Limits
}

// udpSession is one client's session.
type udpSession struct {
	door     *UDP
	service  *route.BoundService
	endpoint *upstream.Endpoint
	conn     *fastpath.Conn // to the endpoint
	peer     fastpath.Peer
	hash     uint64
	source   [16]byte // the peer's address, for balancers that hash; here so that it costs no memory of its own

	next         *udpSession // of its bucket
	newer, older *udpSession
	stale        bool // found by no datagram any more: its endpoint is gone

	began, last    int64
	requests, due  int // datagrams of the client; answers that are due, while they are counted
	answers        int
	received, sent int64
	answered       bool // the endpoint is known to live
}

const (
	udpFreeMax     = 1024
	udpBucketsMin  = 64
	udpTries       = 3               // endpoints that a datagram is offered to
	udpLastBatches = 1024            // that a port takes when it closes: more than its queue holds
	udpTurns       = 4               // batches that a port takes before other connections have their turn
	udpLingerLimit = 5 * time.Second // a stale session, and any of a closed port, waits so long for an answer
)

// NewUDP makes a door; Listen opens it.
func NewUDP(c UDPConfig) *UDP { return &UDP{UDPConfig: c, seed: maphash.MakeSeed()} }

// Listen opens the port.
func (u *UDP) Listen(o listen.Options) (err error) {
	o.Datagrams = true
	if u.socket, err = listen.Open(o); err != nil {
		return err
	}
	fd, err := unix.FcntlInt(uintptr(u.socket.FD()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		_ = u.socket.Close()
		return err
	}
	u.Loop.Post(func() {
		conn, err := u.Loop.Adopt(fd, u.socket.Addr(), (*udpPort)(u))
		if err != nil {
			slog.Error("a UDP port takes no datagrams: restart the process", "address", u.socket.Addr(), "error", err)
			return
		}
		u.conn = conn
		conn.Again()
	})
	return nil
}

// Socket is what the door listens on.
func (u *UDP) Socket() *listen.Socket { return u.socket }

// TurnAway has the kernel give the port's datagrams to nobody, or to another process that has the port, too.
func (u *UDP) TurnAway() error { return u.socket.TurnAway() }

// Open is how many sessions there are.
func (u *UDP) Open() int64 { return u.open.Load() }

// Accepted is how many datagrams have come.
func (u *UDP) Accepted() uint64 { return u.got.Load() }

// Close stops taking datagrams, once those that stand in the queue are taken. Sessions have udpLingerLimit for answers.
func (u *UDP) Close(ctx context.Context) error {
	done := make(chan struct{})
	u.Loop.Post(func() {
		defer close(done)
		u.stopReading()
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (u *UDP) stopReading() {
	if u.closed {
		return
	}
	if u.conn != nil {
		for n := 0; n < udpLastBatches && u.take(u.Loop.Datagrams()); n++ {
		}
		u.conn.Close()
		u.conn = nil
	}
	u.closed = true // not before: a session that ends while others are still to begin must not take their socket away
	for s := u.newest; s != nil; s = s.older {
		s.hurry()
	}
	u.release()
}

// release closes the socket of a closed port that no answer needs any more.
func (u *UDP) release() {
	if u.closed && u.count == 0 {
		_ = u.socket.Close()
	}
}

// EndTunnels ends all sessions.
func (u *UDP) EndTunnels() {
	u.Loop.Post(func() {
		for u.newest != nil {
			u.newest.end(fastpath.ErrTimeout)
		}
	})
}

// udpPort is the door as the handler of its own socket.
type udpPort UDP

// OnReadable implements fastpath.Handler.
func (p *udpPort) OnReadable(c *fastpath.Conn) {
	u, b := (*UDP)(p), c.Loop().Datagrams()
	for range udpTurns {
		if !u.take(b) {
			return
		}
	}
	c.Again()
}

// OnWritable implements fastpath.Handler.
func (p *udpPort) OnWritable(*fastpath.Conn) {}

// OnDeadline implements fastpath.Handler.
func (p *udpPort) OnDeadline(*fastpath.Conn) {}

// take leads a batch to its sessions; false: the queue is empty.
func (u *UDP) take(b *fastpath.Batch) bool {
	n, more, err := b.Receive(u.conn)
	if err != nil { // what ICMP says of our answers is nothing to do with what comes
		return more
	}
	u.got.Add(uint64(n))
	service := u.Service()
	for i := 0; i < n; {
		j, bytes := i+1, b.Len(i)
		for j < n && *b.Peer(j).Key() == *b.Peer(i).Key() {
			bytes += b.Len(j)
			j++
		}
		if service != nil {
			u.lead(service, b, i, j, bytes)
		}
		i = j
	}
	return more
}

// lead sends datagrams i … j-1, which are one client's, to its endpoint. Where that one cannot be reached the session moves
// to another.
func (u *UDP) lead(service *route.BoundService, b *fastpath.Batch, i, j, bytes int) {
	service.Stats.Received.Add(uint64(bytes))
	peer := b.Peer(i)
	hash := maphash.Bytes(u.seed, peer.Key()[:])
	s := u.find(hash, peer)
	if s != nil && (s.endpoint.Gone() || s.service.Upstream != service.Upstream) {
		s.retire()
		s = nil
	}
	for range udpTries {
		if s == nil {
			if s = u.begin(service, hash, peer); s == nil {
				break
			}
		}
		n, err := b.Pass(s.conn, i, j)
		for k := i; k < i+n; k++ {
			s.received += int64(b.Len(k))
		}
		s.count(n)
		i += n
		if err == nil {
			service.Stats.Dropped.Add(uint64(j - i))
			s.touch()
			s.settle()
			return
		}
		s.failed(err)
		s = nil
		if service.NoRetry {
			break
		}
	}
	service.Stats.Dropped.Add(uint64(j - i))
}

// ---- sessions

func (u *UDP) find(hash uint64, peer *fastpath.Peer) *udpSession {
	if len(u.buckets) == 0 {
		return nil
	}
	s := u.buckets[hash&uint64(len(u.buckets)-1)]
	for s != nil && (s.hash != hash || *s.peer.Key() != *peer.Key()) {
		s = s.next
	}
	return s
}

// begin makes a session; nil: there is no endpoint, or no room.
func (u *UDP) begin(service *route.BoundService, hash uint64, peer *fastpath.Peer) *udpSession {
	if from := peer.Addr(); from.Port() == 0 || from == netip.AddrPortFrom(peer.To(), u.socket.Addr().Port()) {
		return nil // there is nobody to answer, or it would be a circle of the proxy with itself
	}
	for u.count >= service.SessionsMax || u.crowded() {
		if u.oldest == nil {
			return nil
		}
		u.oldest.service.Stats.Evicted.Add(1)
		u.oldest.end(fastpath.ErrOverload)
	}
	s := u.get()
	s.door, s.service, s.peer, s.hash, s.began = u, service, *peer, hash, u.Loop.Now()
	if !s.dial() {
		service.Stats.Failed.Add(1)
		u.put(s)
		return nil
	}
	s.endpoint.TunnelBegan()
	service.Stats.Begun.Add(1)
	service.Stats.Active.Add(1)
	u.add(s)
	s.conn.SetDeadline(s.began + int64(service.Idle))
	return s
}

// crowded tells whether the process has no descriptor left for a session.
func (u *UDP) crowded() bool {
	files := int64(u.Limits().OpenFilesMax)
	if files == 0 {
		return false
	}
	var open int64
	for _, l := range u.Loops {
		open += l.Stats.Conns.Load() + l.Stats.Pending.Load()
	}
	return open*100 >= files*openFilesShare
}

// dial connects the session's socket to an endpoint. That costs no wait: nothing is sent.
func (s *udpSession) dial() bool {
	u := s.door
	s.source = s.peer.Addr().Addr().As16()
	wish := upstream.Wish{Loop: u.Loop.ID, Hash: upstream.Hash(s.source[:])}
	for range udpTries {
		e := s.service.Upstream.Pick(wish)
		if e == nil {
			return false
		}
		conn, err := u.Loop.DialDatagrams(e.Addr(), s)
		if err == nil {
			s.endpoint, s.conn = e, conn
			return true
		}
		e.Failed(u.Loop, err)
	}
	return false
}

// count notes n more datagrams of the client's, and what answers are due for them.
func (s *udpSession) count(n int) {
	s.requests += n
	s.due += n * s.service.Responses
}

// settle ends the session when no answer is due any more.
func (s *udpSession) settle() {
	if s.answers >= s.due && s.requests > 0 {
		s.end(nil)
	}
}

// touch makes the session the newest.
func (s *udpSession) touch() {
	u := s.door
	s.last = u.Loop.Now()
	if u.newest == s {
		return
	}
	u.unlist(s)
	u.list(s)
}

// retire has the client's next datagrams begin another session, while this one waits for answers that are under way.
func (s *udpSession) retire() {
	s.door.unhash(s)
	s.stale = true
	s.hurry()
}

// hurry bounds how long the session waits for an answer from now on.
func (s *udpSession) hurry() {
	at := s.door.Loop.Now() + int64(udpLingerLimit)
	s.conn.SetDeadline(min(at, s.last+int64(s.service.Idle)))
}

// OnReadable implements fastpath.Handler: the endpoint has answered, or ICMP says that it cannot be reached.
func (s *udpSession) OnReadable(c *fastpath.Conn) {
	b := s.door.Loop.Datagrams()
	for turns := 0; ; turns++ {
		n, more, err := b.Receive(c)
		if err != nil {
			s.failed(err)
			return
		}
		if n > 0 {
			s.answer(b, n)
			if c.Closed() {
				return
			}
		}
		switch {
		case n == 0 || !more && !c.Broken():
			return
		case turns == udpTurns:
			c.Again()
			return
		}
	}
}

// answer sends what came to the client, as much of it as is due.
func (s *udpSession) answer(b *fastpath.Batch, n int) {
	stats := s.service.Stats
	if !s.answered {
		s.answered = true
		s.endpoint.Connected(s.door.Loop)
	}
	if n > s.due-s.answers {
		stats.Dropped.Add(uint64(n - (s.due - s.answers)))
		n = s.due - s.answers
	}
	sent, _ := b.Reply(s.door.socket.FD(), n, &s.peer) // what cannot be sent is lost, as on any way
	stats.Dropped.Add(uint64(n - sent))
	bytes := 0
	for i := range sent {
		bytes += b.Len(i)
	}
	s.sent += int64(bytes)
	stats.Sent.Add(uint64(bytes))
	s.answers += n
	s.touch()
	s.settle()
}

// OnWritable implements fastpath.Handler.
func (s *udpSession) OnWritable(*fastpath.Conn) {}

// OnDeadline implements fastpath.Handler.
func (s *udpSession) OnDeadline(c *fastpath.Conn) {
	limit := int64(s.service.Idle)
	if s.stale || s.door.closed {
		limit = min(limit, int64(udpLingerLimit))
	}
	if at := s.last + limit; at > c.Loop().Now() {
		c.SetDeadline(at)
		return
	}
	s.end(nil)
}

// failed ends a session whose endpoint cannot be reached.
func (s *udpSession) failed(err *fastpath.Error) {
	s.endpoint.Failed(s.door.Loop, err)
	s.service.Stats.Failed.Add(1)
	s.end(err)
}

// end closes the session. Its value may be another one's in a moment.
func (s *udpSession) end(err *fastpath.Error) {
	u := s.door
	if s.conn == nil {
		return
	}
	s.conn.Close()
	s.conn = nil
	if !s.stale {
		u.unhash(s)
	}
	u.unlist(s)
	u.count--
	u.open.Store(int64(u.count))
	s.endpoint.TunnelEnded()
	s.service.Stats.Active.Add(-1)
	u.log(s, err)
	u.put(s)
	u.release()
}

func (u *UDP) log(s *udpSession, err *fastpath.Error) {
	settings := u.HTTP.Router.Settings()
	if u.HTTP.Log == nil || s.service.NoLog || !settings.AccessLog {
		return
	}
	v := s.service.Service
	u.HTTP.Log.WriteStream(u.Loop.ID, &l7.StreamRecord{
		Now: u.Loop.Wall(), Format: settings.AccessLogFormat, Remote: s.peer.Addr(), Protocol: "UDP", Port: v.Port,
		Status: l7.StreamStatus(err != fastpath.ErrRefused, err), Sent: s.sent, Received: s.received, Duration: u.Loop.Now() - s.began,
		Namespace: v.Namespace, Service: v.Service, To: v.To, Upstream: s.endpoint.Addr(), Err: err})
}

// ---- the tables

func (u *UDP) get() *udpSession {
	if n := len(u.free); n > 0 {
		s := u.free[n-1]
		u.free = u.free[:n-1]
		return s
	}
	return new(udpSession)
}

func (u *UDP) put(s *udpSession) {
	*s = udpSession{}
	if len(u.free) < udpFreeMax {
		u.free = append(u.free, s)
	}
}

func (u *UDP) add(s *udpSession) {
	if u.count >= len(u.buckets) {
		u.grow()
	}
	b := &u.buckets[s.hash&uint64(len(u.buckets)-1)]
	s.next, *b = *b, s
	u.count++
	u.open.Store(int64(u.count))
	s.last = u.Loop.Now()
	u.list(s)
}

// grow doubles the buckets: at most to twice the sessions that there may be.
func (u *UDP) grow() {
	old := u.buckets
	u.buckets = make([]*udpSession, max(udpBucketsMin, 2*len(old)))
	for _, s := range old {
		for s != nil {
			next := s.next
			b := &u.buckets[s.hash&uint64(len(u.buckets)-1)]
			s.next, *b = *b, s
			s = next
		}
	}
}

func (u *UDP) unhash(s *udpSession) {
	at := &u.buckets[s.hash&uint64(len(u.buckets)-1)]
	for *at != nil && *at != s {
		at = &(*at).next
	}
	if *at == s {
		*at, s.next = s.next, nil
	}
}

func (u *UDP) list(s *udpSession) {
	s.older, s.newer = u.newest, nil
	if u.newest != nil {
		u.newest.newer = s
	} else {
		u.oldest = s
	}
	u.newest = s
}

func (u *UDP) unlist(s *udpSession) {
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		u.newest = s.older
	}
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		u.oldest = s.newer
	}
	s.newer, s.older = nil, nil
}
