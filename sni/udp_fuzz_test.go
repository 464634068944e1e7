package sni

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// plainSession is what FuzzUDPSessions expects of a session.
type plainSession struct {
	port         uint16 // the client's
	stale        bool
	due, answers int
}

// udpTable is a door on a loop that does not run, with the sessions that it should have: from the newest to the oldest.
type udpTable struct {
	*testing.T
	*UDP
	service *route.BoundService
	want    []plainSession
}

// FuzzUDPSessions leads datagrams, answers, ends and changes of endpoints, as any clients' order may have them, to the table of
// a UDP service's sessions, and to a list that does the same slowly.
func FuzzUDPSessions(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 0, 3, 1, 2, 0, 1})
	f.Add([]byte{0, 1, 2, 1, 0, 1, 3, 0, 1, 1})
	f.Add([]byte("\x00\x00\x00\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00\x06\x00\x07\x00\x08\x00\x09\x02\x03\x00\x0a\x01\x04\x03\x00"))
	f.Fuzz(func(t *testing.T, program []byte) {
		loop, err := fastpath.NewLoop(0)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() { loop.Run(); close(done) }()
		defer func() { loop.Stop(); <-done }()
		cluster := upstream.NewCluster("test", &upstream.Env{Loops: []*fastpath.Loop{loop}}, upstream.Settings{AllowLoopback: true})
		defer cluster.Close()
		cluster.Apply([]upstream.Address{{Addr: netip.MustParseAddrPort("127.0.0.1:9")}}) // nothing is sent there
		table := &udpTable{T: t, service: &route.BoundService{Upstream: cluster, Stats: new(route.ServiceStats),
			Service: &route.Service{Protocol: route.UDP, Idle: time.Hour, Responses: 1, SessionsMax: 9, NoLog: true}}}
		table.UDP = NewUDP(UDPConfig{Loop: loop, Loops: []*fastpath.Loop{loop}, HTTP: l7.NewServer(route.NewStore(), nil, l7.NewStats(1)),
			Service: func() *route.BoundService { return table.service }, Limits: func() *Limits { return defaultLimits }})
		if err := table.Listen(listen.Options{Name: "udp", Address: "127.0.0.1:0"}); err != nil {
			t.Fatal(err)
		}
		for program = program[:min(len(program), 200)]; len(program) >= 2 && !t.Failed(); program = program[2:] {
			table.onLoop(func() {
				table.step(program[0]%4, uint16(program[1]%16)+1)
				table.check()
			})
		}
		table.EndTunnels()
		table.onLoop(func() {
			table.want = nil
			table.check()
			table.stopReading()
		})
	})
}

func (u *UDP) onLoop(f func()) {
	done := make(chan struct{})
	u.Loop.Post(func() { defer close(done); f() })
	<-done
}

// step does one thing for the client with this port, to the table and to the list.
func (u *udpTable) step(what byte, port uint16) {
	var peer fastpath.Peer
	binary.NativeEndian.PutUint16(peer.Key()[:], syscall.AF_INET)
	binary.BigEndian.PutUint16(peer.Key()[2:], port)
	copy(peer.Key()[4:], []byte{192, 0, 2, 1})
	hash := maphash.Bytes(u.seed, peer.Key()[:]) & 3 // most share it with others
	s := u.find(hash, &peer)
	at := slices.IndexFunc(u.want, func(w plainSession) bool { return w.port == port && !w.stale })
	if (s != nil) != (at >= 0) {
		u.Errorf("the session of port %d: found %v, expected at %d of %v", port, s != nil, at, u.want)
		return
	}
	switch {
	case what == 0: // a datagram
		if s == nil {
			if s = u.begin(u.service, hash, &peer); s == nil {
				u.Error("no session begins")
				return
			}
			if len(u.want) == u.service.SessionsMax {
				u.want = u.want[:len(u.want)-1]
			}
			at, u.want = 0, slices.Insert(u.want, 0, plainSession{port: port})
		}
		s.count(1)
		s.touch()
		w := u.want[at]
		w.due++
		u.want = slices.Insert(slices.Delete(u.want, at, at+1), 0, w)
	case s == nil:
	case what == 1: // an answer
		s.answers++
		s.touch()
		s.settle()
		w := u.want[at]
		w.answers++
		if u.want = slices.Delete(u.want, at, at+1); w.answers < w.due {
			u.want = slices.Insert(u.want, 0, w)
		}
	case what == 2: // its endpoint is gone
		s.retire()
		u.want[at].stale = true
	case what == 3: // what ICMP says
		s.failed(fastpath.ErrRefused)
		u.want = slices.Delete(u.want, at, at+1)
	}
}

// check compares the table with the list, in both directions and by hash.
func (u *udpTable) check() {
	var got, back []plainSession
	for s := u.newest; s != nil; s = s.older {
		got = append(got, plainSession{s.peer.Addr().Port(), s.stale, s.due, s.answers})
		if found := u.find(s.hash, &s.peer) == s; found == s.stale {
			u.Errorf("port %d: found by its hash %v, stale %v", s.peer.Addr().Port(), found, s.stale)
		}
	}
	for s := u.oldest; s != nil; s = s.newer {
		back = append(back, plainSession{s.peer.Addr().Port(), s.stale, s.due, s.answers})
	}
	slices.Reverse(back)
	if !slices.Equal(got, u.want) || !slices.Equal(back, u.want) {
		u.Errorf("sessions %v, backwards %v, want %v", got, back, u.want)
	}
	if n := u.service.Stats.Active.Load(); u.count != len(u.want) || u.Open() != int64(u.count) || n != int64(u.count) {
		u.Errorf("%d sessions are counted, %d shown as open, %d as active, want %d", u.count, u.Open(), n, len(u.want))
	}
	hashed := 0
	for _, s := range u.buckets {
		for ; s != nil; s = s.next {
			hashed++
		}
	}
	if live := len(slices.DeleteFunc(slices.Clone(u.want), func(w plainSession) bool { return w.stale })); hashed != live {
		u.Errorf("%d sessions are in buckets, want %d", hashed, live)
	}
}
