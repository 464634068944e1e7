package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// lateMax bounds how many requests an open loop that fell behind counts at its end, one by one.
const lateMax = 1 << 20

// A pace says when the requests of an open loop are due: at equal distances from its start, whatever becomes of
// those before. A timer in the loop's epoll set wakes it when one is.
type pace struct {
	timer    int
	start    time.Time
	interval time.Duration
	most     int64 // requests that are due before the end
	due      int64 // requests that should have been sent by now
	sent     int64
}

// newPace starts after a delay, in which connections are made, and ends at end.
func newPace(epoll int, rate float64, delay time.Duration, end time.Time) (*pace, error) {
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	p := &pace{timer: timer, interval: max(time.Microsecond, time.Duration(float64(time.Second)/rate))}
	delay = max(delay, p.interval)
	p.start = time.Now().Add(delay)
	p.most = int64(end.Sub(p.start) / p.interval)
	times := unix.ItimerSpec{
		Value:    unix.NsecToTimespec(delay.Nanoseconds()),
		Interval: unix.NsecToTimespec(p.interval.Nanoseconds()),
	}
	if err := unix.TimerfdSettime(timer, 0, &times, nil); err != nil {
		p.close()
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(timer)}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, timer, &event); err != nil {
		p.close()
		return nil, fmt.Errorf("timerfd: %w", err)
	}
	return p, nil
}

// woken takes an event of the timer, which goes on only when it is read: the kernel counts what it missed meanwhile, but
// never wakes anybody a second time.
func (p *pace) woken() error {
	var expiries [8]byte
	if _, err := unix.Read(p.timer, expiries[:]); err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return fmt.Errorf("timerfd: %w", err)
	}
	return nil
}

// look reads the clock.
func (p *pace) look() {
	if since := time.Since(p.start); since >= 0 {
		p.due = min(p.most, int64(since/p.interval)+1)
	}
}

func (p *pace) owes() bool { return p.sent < p.due }

// next is when the next request is, or was, due.
func (p *pace) next() time.Time {
	at := p.start.Add(time.Duration(p.sent) * p.interval)
	p.sent++
	return at
}

func (p *pace) close() { unix.Close(p.timer) }
