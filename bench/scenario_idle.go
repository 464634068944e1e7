package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Idle rows: what a proxy's resident memory grows by for each connection that made one request and stays. Kernel
// memory of sockets is not in it. Every round has a new instance, for a second crowd would find the first one's
// memory.

const (
	idleOpeners   = 16          // connections opened at once
	idleTLSShare  = 4           // of --idle-conns, one in so many for TLS: each is a handshake
	idleWarmConns = idleOpeners // as many requests at once as later; what these few leave to reuse is not missed later
	idleWarm      = time.Second
	idlePoll      = 250 * time.Millisecond
	idlePolls     = 16 // at most, until memory is steady
)

func idlePlain(ctx context.Context, r *rig, p *running) (measurement, error) {
	return r.measureIdle(ctx, p, load{address: p.plain, host: hostBench, path: pathSmall}, r.options.idleConns)
}

func idleTLS(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{address: p.tls, host: hostBench, path: pathSmall, tls: r.certificate.client(hostBench, false)}
	return r.measureIdle(ctx, p, l, r.options.idleConns/idleTLSShare)
}

func idleHTTP2(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{address: p.tls, host: hostBench, path: pathSmall, speaks: speakHTTP2, tls: r.certificate.clientHTTP2(hostBench)}
	m, err := r.measureIdle(ctx, p, l, r.options.idleConns/idleTLSShare)
	return m, orLacking("HTTP/2", err)
}

func idlePlainHTTP2(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{address: p.plain, host: hostBench, path: pathSmall, speaks: speakHTTP2}
	m, err := r.measureIdle(ctx, p, l, r.options.idleConns)
	return m, orLacking("HTTP/2", err)
}

func noPlainHTTP2(c candidate) error { return c.plainHTTP2 }

// measureIdle warms the proxy until its pools and buffers exist, then compares memory before and after n
// connections.
func (r *rig) measureIdle(ctx context.Context, p *running, l load, n int) (measurement, error) {
	if most := r.descriptors/2 - descriptorsSpare - idleWarmConns; n > most {
		return measurement{}, fmt.Errorf("%d connections need more descriptors than the %d allowed", n, r.descriptors)
	}
	seen, err := probe(ctx, l)
	if err != nil {
		return measurement{}, err
	}
	warm := l
	warm.conns = idleWarmConns
	if _, err := loadKept(ctx, warm, idleWarm); err != nil {
		return measurement{}, fmt.Errorf("warm-up: %w", err)
	}
	before, err := steadyRSS(ctx, p)
	if err != nil {
		return measurement{}, err
	}
	l.fresh = true // from several addresses
	crowd, result := openCrowd(ctx, l, n)
	defer crowd.close()
	after, err := steadyRSS(ctx, p)
	if err != nil {
		return measurement{}, err
	}
	result.errors += int64(crowd.closedByPeer())
	if len(crowd) == 0 {
		return measurement{}, errors.New("no connection could be kept")
	}
	m := measurement{
		Cost:   (float64(after) - float64(before)) / 1024 / float64(len(crowd)),
		Errors: result.errors, Bad: result.bad, Example: result.example,
		Connections: len(crowd), RSSKiB: before >> 10,
		Handshake: seen.handshake(),
	}
	return m, ctx.Err()
}

// steadyRSS reads resident memory until two readings differ by less than 0.2 %, or often enough.
func steadyRSS(ctx context.Context, p *running) (uint64, error) {
	var last uint64
	for range idlePolls {
		if err := sleep(ctx, idlePoll); err != nil {
			return 0, err
		}
		now, err := residentBytes(p.pid())
		if err != nil {
			return 0, err
		}
		if max(now, last)-min(now, last) < now/500 {
			return now, nil
		}
		last = now
	}
	return last, nil
}

// A crowd is a set of idle connections.
type crowd []net.Conn

// openCrowd opens n connections, some at a time, and makes one request on each. What fails is counted.
func openCrowd(ctx context.Context, l load, n int) (crowd, loadResult) {
	counts := make([]*clientCount, idleOpeners)
	crowds := make([]crowd, idleOpeners)
	var taken atomic.Int64
	var wg sync.WaitGroup
	for i := range counts {
		counts[i] = newClientCount()
		wg.Go(func() {
			for taken.Add(1) <= int64(n) && ctx.Err() == nil && counts[i].errors < errorsMax {
				if conn := openIdle(ctx, l, counts[i]); conn != nil {
					crowds[i] = append(crowds[i], conn)
				}
			}
		})
	}
	wg.Wait()
	var all crowd
	for _, c := range crowds {
		all = append(all, c...)
	}
	return all, total(counts...)
}

// openIdle is one connection with one request, nil when that failed.
func openIdle(ctx context.Context, l load, count *clientCount) net.Conn {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	conn, err := dial(ctx, l)
	if err == nil {
		err = converse(conn, l, count)
	}
	if err != nil {
		if !errors.Is(err, errNotTheOrigin) { // that is counted already
			count.failed(err)
		}
		if conn != nil {
			conn.Close()
		}
		return nil
	}
	return conn
}

func (c crowd) close() {
	for _, conn := range c {
		conn.Close()
	}
}

// closedByPeer counts connections that the proxy has ended: a proxy that closes them needs no memory for them.
func (c crowd) closedByPeer() int {
	closed := 0
	for _, conn := range c {
		if !alive(conn) {
			closed++
		}
	}
	return closed
}

// alive peeks at the socket: the end of the stream or an error means that the peer has left.
func alive(conn net.Conn) bool {
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secured.NetConn()
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	open := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		open = n > 0 || err == unix.EAGAIN
	})
	return err == nil && open
}
