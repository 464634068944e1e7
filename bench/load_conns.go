package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const clientReadBytes = 64 << 10

// loadConns is the loadFunc for TLS and for new connections: a goroutine for each client, crypto/tls or plain.
func loadConns(ctx context.Context, l load, duration time.Duration) (loadResult, error) {
	return loadEach(ctx, l, duration, runClient)
}

// loadEach runs a goroutine for each client of a load until the time is over or one of them gives up.
func loadEach(ctx context.Context, l load, duration time.Duration, client func(context.Context, load, *clientCount, func())) (loadResult, error) {
	ctx, cancel := context.WithDeadline(ctx, time.Now().Add(duration))
	defer cancel()
	counts := make([]*clientCount, l.conns)
	var wg sync.WaitGroup
	for i := range counts {
		counts[i] = newClientCount()
		wg.Go(func() { client(ctx, l, counts[i], cancel) })
	}
	wg.Wait()
	result := total(counts...)
	if result.errors >= errorsMax {
		return result, fmt.Errorf("%w: %s", errTooMany, result.example)
	}
	return result, nil
}

// runClient is one closed loop: it connects, asks until told otherwise, and connects again. What fails because
// the time is over is not counted, unless the peer had long been silent. A client with too many errors ends them all.
func runClient(ctx context.Context, l load, count *clientCount, giveUp func()) {
	buf := make([]byte, clientReadBytes)
	message := request(l.host, l.path)
	for !over(ctx) {
		start := time.Now()
		conn, err := dial(ctx, l)
		heard := &heardConn{Conn: conn, moved: start}
		for err == nil {
			var answer answerParser
			if err = exchange(heard, message, buf, &answer); err != nil {
				break
			}
			count.answered(answer.right(sizeOf(l.path)), start)
			if l.fresh || answer.close {
				break
			}
			start = time.Now()
		}
		if conn != nil {
			conn.Close()
		}
		if err != nil && over(ctx) {
			err = silence(endOf(ctx).Sub(heard.moved))
		}
		if err != nil && count.failed(err) {
			giveUp()
		}
	}
}

// over says that ctx has ended. A connection's deadline is ctx's and may strike first, so the clock is asked too.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// exchange sends one request and reads its answer to the end.
func exchange(conn net.Conn, message, buf []byte, answer *answerParser) error {
	if _, err := conn.Write(message); err != nil {
		return err
	}
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			done, err := answer.feed(buf[:n])
			if done || err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// Clients that open many connections leave from several addresses, as the ports of one would run out: a closed
// connection keeps its port for a minute.
const sources = 8

var sourceNext atomic.Uint32

// dial connects and, for TLS, shakes hands. The connection ends with ctx. Connections that live for the whole
// run leave from 127.0.0.1 like wrk's.
func dial(ctx context.Context, l load) (net.Conn, error) {
	d := net.Dialer{}
	if l.fresh {
		d.LocalAddr = &net.TCPAddr{IP: sourceTowards(l.address, int(sourceNext.Add(1)))}
		d.Control = bindLate
	}
	conn, err := d.DialContext(ctx, "tcp4", l.address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return conn, err
		}
	}
	if l.tls == nil {
		return conn, nil
	}
	secured := tls.Client(conn, l.tls)
	return secured, secured.HandshakeContext(ctx)
}

// bindLate lets the kernel choose the port at connect, where it need be free towards this peer only.
func bindLate(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	return errors.Join(err, failed)
}
