package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPaceWakes: an open loop is woken for each request that is due, although no peer says a word. A timer that is not
// read wakes once, and then requests leave only when an answer comes or the loop's wait ends: every proxy looked as if
// it stalled for 50 ms, the faster ones more.
func TestPaceWakes(t *testing.T) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	p, err := newPace(epoll, 1000, 0, time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	l := loadLoop{pace: p}
	events := make([]unix.EpollEvent, 1)
	for woken := 0; woken < 20; {
		n, err := unix.EpollWait(epoll, events, 10_000)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || n != 1:
			t.Fatalf("after %d wake-ups: %d events, %v", woken, n, err)
		}
		if err := l.dispatch(events[0]); err != nil {
			t.Fatal(err)
		}
		woken++
	}
	if p.look(); p.due < 20 {
		t.Errorf("%d requests are due after 20 intervals", p.due)
	}
}
