package ebpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// What the test at start allows.
const (
	testLimit     = 3 * time.Second // for all of it
	testPatience  = time.Second     // for one step
	testQueuedMin = 64 << 10        // the limit with which it is done, at least: its steps must not meet it unawares
	testPoll      = 200 * time.Microsecond
	testOffer     = 64 << 20 // offered to a reader that does not read
	testHeldExtra = 16 << 20 // of it, the most that the kernel may take beside the limit, both buffers included
)

// tunnel is two connections over loopback: peerA ─ a, b ─ peerB. a and b are joined.
type tunnel struct {
	peerA, a, b, peerB int
	s                  *Sockmap
	Joined
}

// test drives real sockets through the program: what waited is moved, a half-close arrives after the data, and a reader that
// stalls stops its sender.
func (s *Sockmap) test() error {
	began := time.Now()
	for _, step := range []struct {
		name string
		run  func(*Sockmap) error
	}{
		{"queued bytes", testQueued},
		{"a segment that repeats", testRepeats},
		{"a half-close", testEnd},
		{"a stalled reader", testStalled},
	} {
		if err := step.run(s); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if time.Since(began) > testLimit {
			return fmt.Errorf("%s: it took over %v", step.name, testLimit)
		}
	}
	return nil
}

// testQueued joins sockets on which bytes wait, and on which more follow, both ways.
func testQueued(s *Sockmap) error {
	t, err := newTunnel(s)
	if err != nil {
		return err
	}
	defer t.close()
	up, down := pattern(1, 3000), pattern(2, 5000)
	if err := errors.Join(sendAll(t.peerA, up[:1000]), sendAll(t.peerB, down[:1000])); err != nil {
		return err
	}
	if err := t.join(); err != nil {
		return err
	}
	if err := errors.Join(sendAll(t.peerA, up[1000:]), sendAll(t.peerB, down[1000:])); err != nil {
		return err
	}
	return errors.Join(expect(t.peerB, up), expect(t.peerA, down))
}

// testRepeats has a segment arrive that begins with bytes which came before, as retransmissions may. TCP queues it whole, and
// the program has to take them off. To make one at will the connection begins in its middle.
func testRepeats(s *Sockmap) error {
	const came, fresh = 300, 200 // together less than the smallest segment that TCP cuts
	t, err := newTunnel(s)
	if err != nil {
		return err
	}
	defer t.close()
	_ = unix.Close(t.peerA)
	_ = unix.Close(t.a)
	if t.peerA, t.a, err = repairedPair(came); err != nil {
		return fmt.Errorf("a connection that begins in its middle: %w", err)
	}
	if err := t.join(); err != nil {
		return err
	}
	before, stream := s.Repeated(), pattern(5, came+fresh)
	if err := errors.Join(sendAll(t.peerA, stream), expect(t.peerB, stream[came:])); err != nil {
		return err
	}
	if err := errors.Join(sendAll(t.peerA, stream), expect(t.peerB, stream)); err != nil {
		return err
	}
	if n := s.Repeated() - before; n != came {
		return fmt.Errorf("%d bytes were taken off, and %d came again", n, came)
	}
	return nil
}

// testEnd sends bytes and a FIN: the FIN alone must not end the other socket, the bytes must have arrived, and the way back
// stays open.
func testEnd(s *Sockmap) error {
	t, err := newTunnel(s)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.join(); err != nil {
		return err
	}
	up, down := pattern(3, 20_000), pattern(4, 20_000)
	if err := sendAll(t.peerA, up); err != nil {
		return err
	}
	if err := unix.Shutdown(t.peerA, unix.SHUT_WR); err != nil {
		return err
	}
	err = until("the counters to agree", func() bool {
		from, err1 := Count(t.a, true)
		to, err2 := Count(t.b, false)
		return err1 == nil && err2 == nil && from.Received == uint64(len(up)) && to.Queued == from.Received
	})
	if err != nil {
		return err
	}
	if err := unix.Shutdown(t.b, unix.SHUT_WR); err != nil {
		return err
	}
	if err := errors.Join(expect(t.peerB, up), expectEnd(t.peerB), sendAll(t.peerB, down)); err != nil {
		return err
	}
	return expect(t.peerA, down)
}

// testStalled offers much to a peer that does not read. The direction must be given back, and the kernel must refuse most.
func testStalled(s *Sockmap) error {
	t, err := newTunnel(s)
	if err != nil {
		return err
	}
	defer t.close()
	if err := t.join(); err != nil {
		return err
	}
	piece := make([]byte, 64<<10)
	taken, blocked := 0, time.Time{}
	for taken < testOffer {
		n, err := unix.SendmsgN(t.peerA, piece, nil, nil, unix.MSG_NOSIGNAL)
		switch {
		case err == nil:
			taken, blocked = taken+n, time.Time{}
			continue
		case err != unix.EAGAIN:
			return err
		case blocked.IsZero():
			blocked = time.Now()
		case time.Since(blocked) > 20*time.Millisecond:
			return t.held(taken)
		}
		time.Sleep(testPoll)
	}
	return fmt.Errorf("the kernel took all %d bytes for a reader that does not read", taken)
}

// held judges what the kernel took before it refused more.
func (t *tunnel) held(taken int) error {
	moved, why := t.s.Direction(t.A)
	switch {
	case why != ReleasedLimit:
		return fmt.Errorf("the limiter did not act: %d bytes were taken, %d redirected, the direction is %v", taken, moved, why)
	case moved > uint64(t.s.queued)+testHeldExtra || taken > int(t.s.queued)+testHeldExtra:
		return fmt.Errorf("%d bytes were taken and %d redirected, with a limit of %d", taken, moved, t.s.queued)
	}
	return nil
}

func newTunnel(s *Sockmap) (*tunnel, error) {
	t := &tunnel{s: s, peerA: -1, a: -1, b: -1, peerB: -1}
	var err error
	if t.peerA, t.a, err = pair(); err == nil {
		t.peerB, t.b, err = pair()
	}
	if err != nil {
		t.close()
		return nil, fmt.Errorf("a loopback connection: %w", err)
	}
	return t, nil
}

func (t *tunnel) join() (err error) {
	if t.Joined, err = t.s.Join(Socket{FD: t.a}, Socket{FD: t.b}); err != nil {
		return err
	}
	if !t.AB || !t.BA {
		return errors.New("only one direction could be joined")
	}
	return nil
}

func (t *tunnel) close() {
	t.s.Forget(&t.Joined)
	for _, fd := range []int{t.peerA, t.a, t.b, t.peerB} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// bound is a TCP socket with an address of loopback's.
func bound() (fd, family int, at unix.Sockaddr, err error) {
	for _, at = range []unix.Sockaddr{
		&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}},
		&unix.SockaddrInet6{Addr: [16]byte{15: 1}}, // a machine without IPv4
	} {
		family = unix.AF_INET
		if _, v6 := at.(*unix.SockaddrInet6); v6 {
			family = unix.AF_INET6
		}
		if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			continue
		}
		if err = unix.Bind(fd, at); err == nil {
			at, err = unix.Getsockname(fd)
		}
		if err == nil {
			return fd, family, at, nil
		}
		_ = unix.Close(fd)
	}
	return -1, 0, nil, err
}

// pair is a TCP connection over loopback, both ends non-blocking.
func pair() (client, server int, err error) {
	door, family, at, err := bound()
	if err != nil {
		return -1, -1, err
	}
	defer unix.Close(door)
	if err := unix.Listen(door, 1); err != nil {
		return -1, -1, err
	}
	if client, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, -1, err
	}
	if err := unix.Connect(client, at); err != nil {
		_ = unix.Close(client)
		return -1, -1, err
	}
	server, _, err = unix.Accept4(door, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		_ = unix.Close(client)
		return -1, -1, err
	}
	return client, server, unix.SetNonblock(client, true)
}

// repairedPair is pair with a server that has received, and read, the first bytes of what its client is going to send, so many.
// Such sockets are made by TCP_REPAIR, which takes CAP_NET_ADMIN.
func repairedPair(came int) (client, server int, err error) {
	const first = 1 << 20
	client, _, atClient, err := bound()
	if err != nil {
		return -1, -1, err
	}
	server, _, atServer, err := bound()
	if err != nil {
		_ = unix.Close(client)
		return -1, -1, err
	}
	err = errors.Join(queuesAt(client, first, first), queuesAt(server, first, first+came))
	if err == nil {
		err = errors.Join(beginAt(client, atServer), beginAt(server, atClient))
	}
	if err != nil {
		_ = unix.Close(client)
		_ = unix.Close(server)
		return -1, -1, err
	}
	return client, server, nil
}

// queuesAt says with which sequence numbers a socket is going to send and receive.
func queuesAt(fd, send, receive int) error {
	const receiveQueue, sendQueue = 1, 2 // linux/tcp.h: TCP_RECV_QUEUE, TCP_SEND_QUEUE
	for _, set := range [][2]int{{unix.TCP_REPAIR, unix.TCP_REPAIR_ON},
		{unix.TCP_REPAIR_QUEUE, sendQueue}, {unix.TCP_QUEUE_SEQ, send},
		{unix.TCP_REPAIR_QUEUE, receiveQueue}, {unix.TCP_QUEUE_SEQ, receive}} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, set[0], set[1]); err != nil {
			return err
		}
	}
	return nil
}

// beginAt connects a socket under repair, which sends nothing, tells it what it may send, and ends the repair.
func beginAt(fd int, peer unix.Sockaddr) error {
	if err := unix.Connect(fd, peer); err != nil {
		return err
	}
	next, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ) // of the receive queue
	if err != nil {
		return err
	}
	const scale, most = 3, 0xffff // windows are not scaled, as the peer would have to be told by a SYN
	for option, words := range map[int][]int{
		unix.TCP_REPAIR_OPTIONS: {scale, 0},                     // linux/tcp.h: struct tcp_repair_opt
		unix.TCP_REPAIR_WINDOW:  {next, most, most, most, next}, // struct tcp_repair_window
	} {
		var b []byte
		for _, w := range words {
			b = binary.NativeEndian.AppendUint32(b, uint32(w))
		}
		if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, option, string(b)); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, unix.TCP_REPAIR_OFF_NO_WP); err != nil {
		return err
	}
	return unix.SetNonblock(fd, true)
}

// until waits for what must come soon.
func until(what string, cond func() bool) error {
	for end := time.Now().Add(testPatience); !cond(); time.Sleep(testPoll) {
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}

func sendAll(fd int, b []byte) error {
	n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_NOSIGNAL)
	if err == nil && n < len(b) {
		err = fmt.Errorf("%d of %d bytes were taken", n, len(b))
	}
	return err
}

func expect(fd int, want []byte) error {
	got, buf := []byte(nil), make([]byte, len(want)+1)
	err := until(fmt.Sprintf("%d bytes", len(want)), func() bool {
		if n, err := unix.Read(fd, buf); err == nil {
			got = append(got, buf[:n]...)
		}
		return len(got) >= len(want)
	})
	if err != nil {
		return fmt.Errorf("%w: %d came", err, len(got))
	}
	if !bytes.Equal(got, want) {
		return errors.New("other bytes came than were sent")
	}
	return nil
}

func expectEnd(fd int) error {
	return until("the end", func() bool {
		n, err := unix.Read(fd, make([]byte, 1))
		return n == 0 && err == nil
	})
}

func pattern(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i*7) + byte(i>>8)
	}
	return b
}
