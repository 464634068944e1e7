package fastpath

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringForTest is a ring. Without one the test is skipped, and says why.
func ringForTest(t testing.TB) *ring {
	t.Helper()
	r, err := newRing()
	if err != nil {
		t.Skipf("no io_uring here: %v (sysctl kernel.io_uring_disabled, or a seccomp profile)", err)
	}
	t.Cleanup(r.close)
	return r
}

// rawConns are connections for calls alone, and their peers.
func rawConns(t testing.TB, n int) (conns []*Conn, peers []*net.TCPConn) {
	t.Helper()
	for range n {
		fd, peer := tcpPair(t)
		t.Cleanup(func() { _ = unix.Close(fd) })
		conns, peers = append(conns, &Conn{fd: int32(fd)}), append(peers, peer)
	}
	return conns, peers
}

var heap []byte

// onHeap keeps b from the stack, which Go moves.
func onHeap(b []byte) []byte {
	heap = b
	return b
}

// hear reads text from a peer.
func hear(t testing.TB, peer *net.TCPConn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(peer, got); err != nil || string(got) != text {
		t.Errorf("heard %q, %v", got, err)
	}
}

// TestRing: each call of a list has its own result, whatever becomes of the others.
func TestRing(t *testing.T) {
	r := ringForTest(t)
	conns, peers := rawConns(t, 4)
	if _, err := peers[0].Write([]byte("input")); err != nil {
		t.Fatal(err)
	}
	peers[1].Close() // a FIN
	_ = peers[2].SetLinger(0)
	peers[2].Close() // a reset; nothing came from peers[3]
	for _, c := range conns[:3] {
		polled := []unix.PollFd{{Fd: c.fd, Events: unix.POLLIN}}
		if n, err := unix.Poll(polled, int(patience.Milliseconds())); n != 1 {
			t.Fatal("nothing came:", err)
		}
	}
	list := []call{{c: &Conn{fd: -1}}}
	for _, c := range conns {
		list = append(list, call{c: c, b: onHeap(make([]byte, 64))})
	}
	want := []call{{errno: unix.EBADF}, {n: 5}, {}, {errno: unix.ECONNRESET}, {errno: unix.EAGAIN}}
	for round := range 3 * flushBatch / len(list) { // often enough for the queues to come round
		r.run(ringOpRecv, list)
		for i := range list {
			if list[i].n != want[i].n || list[i].errno != want[i].errno {
				t.Errorf("round %d: call %d received %d (%v), want %d (%v)", round, i, list[i].n, list[i].errno, want[i].n, want[i].errno)
			}
		}
		want[1], want[3] = call{errno: unix.EAGAIN}, call{} // both are told once
	}
	if got := string(list[1].b[:5]); got != "input" {
		t.Errorf("received %q", got)
	}
}

// TestRingSendsInPart: a socket that has room for some takes some and says so; one without room refuses.
func TestRingSendsInPart(t *testing.T) {
	r := ringForTest(t)
	fd, _ := tcpPairBuffers(t, 4096)
	defer unix.Close(fd)
	b := onHeap(make([]byte, 4<<20))
	c := &Conn{fd: int32(fd)}
	list := []call{{c: c, b: b}}
	r.run(ringOpSend, list)
	if k := list[0]; k.n == 0 || k.n == len(b) || k.errno != 0 {
		t.Fatalf("sent %d (%v)", k.n, k.errno)
	}
	for range 100 { // the kernel moves some on
		if r.run(ringOpSend, list); list[0].errno != 0 {
			break
		}
	}
	if k := list[0]; k.errno != unix.EAGAIN {
		t.Errorf("a full socket: sent %d (%v), want EAGAIN", k.n, k.errno)
	}
}

// TestRingThatRefuses: what the kernel does not take is made one by one, and leaves nothing behind in the queue.
func TestRingThatRefuses(t *testing.T) {
	r := ringForTest(t)
	conns, peers := rawConns(t, 2)
	fd := r.fd
	for i, text := range []string{"refused", "taken"} {
		r.fd = []int{-1, fd}[i]
		b := onHeap([]byte(text))
		list := []call{{c: conns[0], b: b}, {c: conns[1], b: b}}
		r.run(ringOpSend, list)
		for i, p := range peers {
			if list[i].n != len(text) || list[i].errno != 0 {
				t.Errorf("%s: sent %d (%v)", text, list[i].n, list[i].errno)
			}
			hear(t, p, text)
		}
	}
}

// TestRingForbidden: a seccomp profile that refuses io_uring, as container runtimes' own do, leaves a loop that works.
func TestRingForbidden(t *testing.T) {
	done := make(chan error)
	l := steppedLoop(t)
	l.calls.close()
	go func() {
		runtime.LockOSThread() // and no unlocking: the thread ends with the goroutine, and the filter with it
		if err := forbid(unix.SYS_IO_URING_SETUP); err != nil {
			done <- fmt.Errorf("seccomp: %w", err)
			return
		}
		done <- l.UseRing()
	}()
	if err := receive(t, "the refusal", done); !errors.Is(err, unix.EPERM) {
		t.Fatalf("got %v, want EPERM", err)
	}
	_, peers := aheadPair(t, l, [2]Handler{&echo{}, &echo{}})
	say(t, peers, "hello")
	l.lead(waiting(t, l, 2))
	for _, p := range peers {
		hear(t, p, "hello")
	}
	if n := l.Stats.Batches.Load(); n != 0 {
		t.Errorf("%d system calls made several", n)
	}
}

// forbid has the kernel refuse a system call to the calling thread.
func forbid(number uint32) error {
	const load, equal, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{
		{Code: load, K: 0}, // seccomp_data.nr
		{Code: equal, K: number, Jf: 1},
		{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}

// TestRingIsClosed: no descriptor stays behind, also where the kernel has no ring to give.
func TestRingIsClosed(t *testing.T) {
	before := descriptors(t)
	for range 3 {
		l, err := NewLoop(0)
		if err != nil {
			t.Fatal(err)
		}
		err = l.UseRing()
		if e := syscall.Errno(0); err != nil && !errors.As(err, &e) {
			t.Errorf("without io_uring it tells the system call's error, not %v", err)
		}
		if (l.calls.ring == nil) != (err != nil) {
			t.Errorf("a ring, or the reason: %v", err)
		}
		l.closeAll()
	}
	if n := descriptors(t); n != before {
		t.Errorf("%d descriptors, %d before", n, before)
	}
}

// TestBatchesAreCounted: what two connections receive, and what they send, are two system calls of two each.
func TestBatchesAreCounted(t *testing.T) {
	l := steppedLoop(t)
	if l.calls.ring == nil {
		t.Skip("no io_uring here: see TestRing")
	}
	_, peers := aheadPair(t, l, [2]Handler{&echo{}, &echo{}})
	say(t, peers, "hello")
	l.lead(waiting(t, l, 2))
	for _, p := range peers {
		hear(t, p, "hello")
	}
	if n, of := l.Stats.Batches.Load(), l.Stats.Batched.Load(); n != 2 || of != 4 {
		t.Errorf("%d system calls made %d, want 2 and 4", n, of)
	}
}

// TestOneByOne: a loop without a ring passes the tests of input, output and TLS as well.
func TestOneByOne(t *testing.T) {
	oneByOneOnly = true
	t.Cleanup(func() { oneByOneOnly = false })
	for name, f := range map[string]func(*testing.T){
		"ReceivesInARow": TestReceivesInARow, "AheadIsKept": TestAheadIsKept, "AheadEnds": TestAheadEnds, "AheadOfTheClosed": TestAheadOfTheClosed,
		"AheadTLS": TestAheadTLS, "DialledReceivesInARow": TestDialledReceivesInARow, "OutputOfABatch": TestOutputOfABatch,
		"FailedWriteIsTold": TestFailedWriteIsTold, "BackPressure": TestBackPressure, "CloseWriteComesLast": TestCloseWriteComesLast,
		"TLSEcho": TestTLSEcho, "TLSBackPressure": TestTLSBackPressure, "SealsInARow": TestSealsInARow, "CloseInTheSameBatch": TestCloseInTheSameBatch,
	} {
		t.Run(name, f)
	}
}

// BenchmarkInARow is answers of 200 bytes to several connections, by one system call and by one each.
func BenchmarkInARow(b *testing.B) {
	r := ringForTest(b)
	for _, n := range []int{ringCallsMin, 4, 16} {
		conns, peers := rawConns(b, n)
		var raw []int32
		for _, p := range peers {
			raw = append(raw, rawPeer(b, p))
		}
		answer, got := onHeap(payload(0, 200)), make([]byte, 400)
		for name, r := range map[string]*ring{"ring": r, "one each": nil} {
			b.Run(fmt.Sprintf("%d/%s", n, name), func(b *testing.B) {
				l := &Loop{}
				l.calls.ring = r
				b.ReportAllocs()
				for b.Loop() {
					for _, c := range conns {
						l.calls.add(c, answer)
					}
					for _, k := range l.inARow(ringOpSend) {
						if k.n != len(answer) {
							b.Fatalf("sent %d: %v", k.n, k.errno)
						}
					}
					for _, fd := range raw {
						_, _ = recv(fd, got, 0)
					}
				}
			})
		}
	}
}
