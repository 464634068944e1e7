package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

// What is under way when a load ends is no error: it would have been answered. Unless nothing has moved for so long
// that it never would: a proxy that forgets a connection fails nobody, and without a limit its clients would only be
// fewer. What moves is what counts, as a body of 100 MiB may take longer than that by right.
//
// wrk, h2load and the questions over UDP have limits of their own.

// silenceMost is how long nothing may have moved at the end: far longer than a proxy under these loads keeps anybody
// waiting, and than what the origin takes for its slow answer.
const silenceMost = time.Second

// silence is the error of a peer that was silent for so long; nil if that is not long.
func silence(took time.Duration) error {
	if took <= silenceMost {
		return nil
	}
	return fmt.Errorf("never answered: nothing came for %v, to the end", took.Round(time.Millisecond))
}

// look notes that what has arrived by now is about to be heard. Silence is told by the last look and not by the end:
// a loop that was kept from looking has not heard what there was.
func (p *loadLoop) look(now time.Time) { p.looked, p.now = now, now }

// settleUp books the requests of a connection that are under way at the end, and those of an open loop with how long
// they have waited until then.
func (c *loadConn) settleUp() {
	p, asked := c.loop, false
	c.talk.underWay(func(since, moved time.Time) {
		asked = true
		if p.pace != nil {
			p.waited(since)
		}
		if p.upload > 0 {
			moved = c.moved // its body is still being sent, perhaps
		}
		p.hush(moved)
	})
	if !asked && c.talk.room() == 0 { // it waits to be let in
		p.hush(c.moved)
	}
}

// hush books an error if nothing has come since moved, which is long ago.
func (p *loadLoop) hush(moved time.Time) {
	until := p.looked
	if p.end.Before(until) {
		until = p.end // a look that comes late says no more than that nothing came
	}
	if err := silence(until.Sub(moved)); err != nil {
		p.failed(err)
	}
}

// A heardConn knows when a byte last went either way.
type heardConn struct {
	net.Conn
	moved time.Time
}

func (c *heardConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.note(n)
	return n, err
}

func (c *heardConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.note(n)
	return n, err
}

func (c *heardConn) note(n int) {
	if n > 0 {
		c.moved = time.Now()
	}
}

// endOf is when ctx ended or will end: at its deadline, unless it was cancelled before.
func endOf(ctx context.Context) time.Time {
	now := time.Now()
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(now) {
		return deadline
	}
	return now
}
