package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"
)

// Rows of TCP and UDP services: ports whose connections or datagrams are led to a backend as they come.

const (
	serviceTCP = "TCP"
	serviceUDP = "UDP"

	udpClients     = 64
	udpAnswerLimit = time.Second // a datagram without an answer until then is an error
)

func noService(protocol string) func(candidate) error {
	return func(c candidate) error {
		if !slices.Contains(c.services, protocol) {
			return fmt.Errorf("no configuration with a port for %s is written for %s, or it has none", protocol, c.name)
		}
		return nil
	}
}

func tcpConnections(ctx context.Context, r *rig, p *running) (measurement, error) {
	address := at(p.deployment.Address, p.deployment.TCP)
	return r.measure(ctx, p, load{address: address, host: hostBench, path: pathSmall, conns: passClients, fresh: true}, loadConns, r.origin.plain)
}

func udpQuestions(ctx context.Context, r *rig, p *running) (measurement, error) {
	l := load{address: at(p.deployment.Address, p.deployment.UDP), conns: udpClients}
	w, err := r.underLoad(ctx, p, l, loadDatagrams, r.origin.udp)
	if err != nil {
		return measurement{}, fmt.Errorf("under load: %w", err)
	}
	m := w.measurement()
	m.costs(w, float64(w.work.Requests), 1e6)
	return m, nil
}

// loadDatagrams is the loadFunc of a UDP service: closed loops, each with a socket of its own.
func loadDatagrams(ctx context.Context, l load, duration time.Duration) (loadResult, error) {
	return loadEach(ctx, l, duration, askDatagrams)
}

// askDatagrams asks until ctx ends. Answers that come too late are told from those that are due by the number they bear.
func askDatagrams(ctx context.Context, l load, count *clientCount, giveUp func()) {
	conn, err := net.Dial("udp4", l.address)
	if err != nil {
		count.failed(err)
		giveUp()
		return
	}
	defer conn.Close()
	question, answer := body(sizeSmall), make([]byte, 2*sizeSmall)
	for n := uint64(1); !over(ctx); n++ {
		binary.BigEndian.PutUint64(question, n)
		start := time.Now()
		_ = conn.SetDeadline(start.Add(udpAnswerLimit)) // else the next call fails
		if _, err = conn.Write(question); err == nil {
			err = awaitDatagram(conn, question, answer, count)
		}
		switch {
		case err == nil:
			count.answered(true, start)
		case !over(ctx) && count.failed(err):
			giveUp()
			return
		}
	}
}

// awaitDatagram reads until the answer that is due has come.
func awaitDatagram(conn net.Conn, question, answer []byte, count *clientCount) error {
	for {
		n, err := conn.Read(answer)
		switch {
		case err != nil:
			return err
		case bytes.Equal(answer[:n], question):
			return nil
		case n < 8 || binary.BigEndian.Uint64(answer) >= binary.BigEndian.Uint64(question):
			count.bad++
		}
	}
}

// datagramFile binds a free port and gives the socket away as a file.
func datagramFile(address string, port *int) (*os.File, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	conn, err := net.ListenPacket("udp4", at(address, ports[0]))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	*port = ports[0]
	return conn.(*net.UDPConn).File()
}

// serveDatagrams sends back what comes, for ever.
func serveDatagrams(fd int, file tallyFile) error {
	conn, err := net.FilePacketConn(os.NewFile(uintptr(fd), "datagrams"))
	if err != nil {
		return err
	}
	defer conn.Close()
	c, ok := conn.(*net.UDPConn)
	if !ok {
		return errors.New("the origin's third socket is not UDP's")
	}
	var sum tally
	for b := make([]byte, clientReadBytes); ; {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		if _, err := c.WriteToUDPAddrPort(b[:n], from); err != nil {
			continue // lost, as on any way
		}
		sum.Requests++
		sum.Bytes += uint64(n)
		if err := file.write(sum); err != nil {
			return err
		}
	}
}
