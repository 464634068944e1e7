package fastpath

import (
	"io"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/ebpf"
)

// segment is a part of a stream that a peer sends: n bytes from offset at on.
type segment struct {
	at, n int
	fin   bool
}

// overlaps are streams in segments that repeat what came before, as retransmissions with other borders do. The kernel's own
// peers send such segments when acknowledgements get lost, which cannot be had at will.
var overlaps = []struct {
	name     string
	segments []segment
	n        int    // the stream's length
	again    uint64 // bytes that come again in segments which TCP queues; those that bring nothing new it drops itself
	fin      bool   // the stream ends with its last segment
}{
	{"nothing twice", []segment{{0, 1000, false}, {1000, 1000, false}}, 2000, 0, false},
	{"a half", []segment{{0, 1000, false}, {500, 1000, false}}, 1500, 500, false},
	{"all and more", []segment{{0, 1000, false}, {500, 1000, false}, {0, 2000, false}}, 2000, 2000, false},
	{"all but one byte", []segment{{0, 1000, false}, {0, 1001, false}, {1, 1001, false}}, 1002, 2000, false},
	{"a duplicate", []segment{{0, 1000, false}, {0, 1000, false}, {200, 300, false}, {1000, 10, false}}, 1010, 0, false},
	{"a filler behind", []segment{{1000, 500, false}, {0, 1200, false}}, 1500, 200, false},
	{"a filler over all", []segment{{1000, 500, false}, {2000, 500, false}, {0, 2200, false}}, 2500, 200, false},
	{"large", []segment{{0, 20_000, false}, {100, 29_000, false}, {29_000, 1000, false}}, 30_000, 20_000, false},
	{"byte by byte", []segment{{0, 1, false}, {0, 2, false}, {1, 2, false}, {0, 4, false}, {3, 2, false}}, 5, 6, false},
	{"an end in it", []segment{{0, 1000, false}, {500, 1000, true}}, 1500, 500, true},
	{"an end and nothing new", []segment{{0, 1000, false}, {400, 600, true}}, 1000, 600, true},
	{"an end that came early", []segment{{1000, 500, true}, {0, 1200, false}}, 1500, 200, true},
}

// overlapTest is how TestTunnelOverlap has the tunnel when the segments come.
type overlapTest struct {
	name   string
	queued int  // the limiter's; 0: as it is by default
	before bool // they come before the tunnel is there
	joined bool // by the kernel
}

// TestTunnelOverlap: what a segment repeats arrives once, whoever moves the bytes when it comes. In directions that the kernel
// moves, or moved before, the program has to take it off; copied ones show that the test is right.
func TestTunnelOverlap(t *testing.T) {
	h := speakByHand(t)
	for _, o := range []overlapTest{
		{name: "copied"},
		{name: "copied, waiting before", before: true},
		{name: "joined", joined: true},
		{name: "joined, waiting before", joined: true, before: true},
		{name: "given back at once", joined: true, queued: 1},
		{name: "given back in the middle", joined: true, queued: 1300},
		{name: "given back, waiting before", joined: true, queued: 1300, before: true},
	} {
		t.Run(o.name, func(t *testing.T) {
			if o.joined {
				way = tunnelWay{name: "sockmap", sockmap: kernelSockmap(t, ebpf.Options{Queued: o.queued})}
				defer func() { way = tunnelWay{} }()
			}
			for _, c := range overlaps {
				if o.before && c.fin {
					continue // a socket that has its peer's end is never handed over
				}
				for from, seq := range map[string]uint32{"": 1 << 20, ", over 2^32": ^uint32(700), ", over 2^31": 1<<31 - 700} {
					t.Run(c.name+from, func(t *testing.T) {
						h.t = t
						o.run(t, h, seq, c.segments, c.n, c.again, c.fin)
					})
				}
			}
		})
	}
}

func (o overlapTest) run(t *testing.T, h *byHand, seq uint32, segments []segment, n int, again uint64, fin bool) {
	l := startLoop(t)
	stream := payload(7, n)
	send := func() {
		for _, s := range segments {
			h.send(s.at, stream[s.at:s.at+s.n], s.fin)
		}
	}
	fd := h.connect(seq)
	if o.before {
		send()
	}
	var before uint64
	if o.joined {
		before = way.sockmap.Repeated()
	}
	j := joinFD(t, l, fd, time.Hour, time.Hour, 0)
	if !o.before {
		send()
	}
	if !fin {
		h.send(n, nil, true)
	}
	got, err := io.ReadAll(j.b)
	if err != nil {
		t.Error(err)
	}
	same(t, "the stream", got, stream)
	if o.joined {
		if d := way.sockmap.Repeated() - before; d != again {
			t.Errorf("%d bytes were taken off, want %d", d, again)
		}
	}
	_, _ = j.b.Write([]byte("answer"))
	_ = j.b.CloseWrite()
	if answer, reset := h.receive(); string(answer) != "answer" || reset {
		t.Errorf("the answer is %q, reset %v", answer, reset)
	}
	j.end(nil)
	j.bytes(n, len("answer"))
}

// TestTunnelLost: a segment that repeats more than the program can take off makes a hole. Both sides are reset, and nothing
// that follows the hole arrives, whether the kernel moves the direction or it was given back before.
func TestTunnelLost(t *testing.T) {
	h := speakByHand(t)
	for _, o := range []overlapTest{{name: "joined"}, {name: "given back", queued: 1}} {
		t.Run(o.name, func(t *testing.T) {
			h.t = t
			way = tunnelWay{name: "sockmap", sockmap: kernelSockmap(t, ebpf.Options{Queued: o.queued, Repeats: 100})}
			defer func() { way = tunnelWay{} }()
			l := startLoop(t)
			j := joinFD(t, l, h.connect(1<<20), time.Hour, time.Hour, 0)
			stream := payload(7, 3000)
			h.send(0, stream[:1000], false)
			h.send(950, stream[950:1100], false) // as much as it may
			got := make([]byte, 1100)
			if _, err := io.ReadFull(j.b, got); err != nil {
				t.Fatal(err)
			}
			same(t, "what came before the hole", got, stream[:1100])
			h.send(900, stream[900:2000], false)
			h.send(2000, stream[2000:], true)
			if rest, err := io.ReadAll(j.b); len(rest) > 0 || !isReset(err) {
				t.Errorf("behind the hole came %d bytes, then %v", len(rest), err)
			}
			if rest, reset := h.receive(); len(rest) > 0 || !reset {
				t.Errorf("the sender received %d bytes, reset %v", len(rest), reset)
			}
			j.end(ErrReset)
			if n := l.Stats.Sockmap.Released[ebpf.ReleasedLost].Load(); n != 1 {
				t.Errorf("%d losses were counted", n)
			}
		})
	}
}
