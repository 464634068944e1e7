package ebpf

import (
	"bytes"
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

// pair is a TCP connection over loopback, both ends non-blocking.
func pair() (client, server int, err error) {
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	door, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil && unix.Bind(door, sa) != nil { // a machine without IPv4
		_ = unix.Close(door)
		sa = &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
		if door, err = unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(door, sa)
		}
	}
	if err != nil {
		return -1, -1, err
	}
	defer unix.Close(door)
	if err := unix.Listen(door, 1); err != nil {
		return -1, -1, err
	}
	at, err := unix.Getsockname(door)
	if err != nil {
		return -1, -1, err
	}
	family := unix.AF_INET
	if _, v6 := at.(*unix.SockaddrInet6); v6 {
		family = unix.AF_INET6
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
