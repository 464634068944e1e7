package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// This file compares ways of moving a tunnel's bytes: TLS that is passed through by its server name, as far as a proxy sees
// it; after the hello the peers speak a protocol of their own, so that nobody's cryptography is measured.

const tunnelsHelp = `bench tunnels compares ways of moving the bytes of TLS pass-through.

  --sluice=FILE   the program (bin/sluice); it runs with --sockmap=off and on
  --haproxy=FILE  (haproxy)
  --nginx=FILE    (nginx), with stream and ssl_preread
  --netns         proxies stand in a network namespace of their own, behind veth
  --rounds=N      (3); candidates take turns in who begins
  --time=D        of each measurement (500ms)
  --works=TEXT    only measurements whose name begins so: "ping-pong", "bulk down"
  --only=A,B      only these candidates, by their names in the report
  --json=FILE     what was measured is added to FILE, and the report is of all that it has: a comparison in several short runs
`

// tunnelWork is a measurement of a round.
type tunnelWork struct {
	name    string
	size    int // of a message; 0: bulk; below 0: connections with one message each way
	down    bool
	clients int // of connections
}

var tunnelWorks = []tunnelWork{
	{name: "ping-pong 1 B", size: 1}, {name: "ping-pong 512 B", size: 512}, {name: "ping-pong 16 KiB", size: 16 << 10},
	{name: "bulk up"}, {name: "bulk down", down: true},
	{name: "connections", size: -1, clients: passClients}, {name: "connections of one client", size: -1, clients: 1},
}

// tunnelFigures are one candidate's of one work: CPU in µs a round trip or connection, or ms a GB.
type tunnelFigures struct {
	Process float64 `json:"process"`
	Machine float64 `json:"machine"`
	Rate    float64 `json:"rate"` // round trips or connections a second, or GB/s
	P50     float64 `json:"p50"`  // µs
	P99     float64 `json:"p99"`
}

func tunnelsCommand(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tunnels", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(out, tunnelsHelp) }
	program := flags.String("sluice", "bin/sluice", "")
	haproxy, nginx := flags.String("haproxy", "haproxy", ""), flags.String("nginx", "nginx", "")
	works, only, file := flags.String("works", "", ""), flags.String("only", "", ""), flags.String("json", "", "")
	netns, rounds, span := flags.Bool("netns", false, ""), flags.Int("rounds", 3, ""), flags.Duration("time", 500*time.Millisecond, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &tunnelBench{address: "127.0.0.1", origin: "127.0.0.1", span: *span,
		nginx: versionOf(ctx, *nginx, "-V"), haproxy: versionOf(ctx, *haproxy, "-v")}
	if *netns {
		n, err := newNetwork(ctx)
		if err != nil {
			return err
		}
		defer n.close()
		b.namespace, b.address, b.origin = n.namespace, networkProxy, networkOrigin
	}
	relays, err := b.choose(tunnelRelays(*program, *haproxy, *nginx), *works, *only)
	if err != nil {
		return err
	}
	if b.hello, err = tunnelHello(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "bench-tunnels-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	ln, err := net.Listen("tcp", net.JoinHostPort(b.origin, "0"))
	if err != nil {
		return err
	}
	defer ln.Close()
	b.originPort = ln.Addr().(*net.TCPAddr).Port
	go tunnelOrigin(ln)
	results, err := readTunnelResults(*file)
	if err != nil {
		return err
	}
	for n := range *rounds {
		for i := range relays {
			r := &relays[(i+n)%len(relays)]
			if err := b.round(r, results); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	b.report(out, results)
	return results.write(*file)
}

// choose keeps the measurements and the candidates that were asked for.
func (b *tunnelBench) choose(relays []tunnelRelay, works, only string) ([]tunnelRelay, error) {
	b.works = slices.DeleteFunc(slices.Clone(tunnelWorks), func(w tunnelWork) bool { return !strings.HasPrefix(w.name, works) })
	if len(b.works) == 0 {
		return nil, fmt.Errorf("tunnels: no measurement's name begins with %q", works)
	}
	if only == "" {
		return relays, nil
	}
	var chosen []tunnelRelay
	for _, name := range strings.Split(only, ",") {
		i := slices.IndexFunc(relays, func(r tunnelRelay) bool { return r.name == name })
		if i < 0 {
			return nil, fmt.Errorf("tunnels: there is no candidate %q", name)
		}
		chosen = append(chosen, relays[i])
	}
	return chosen, nil
}

// tunnelBench is what a run has.
type tunnelBench struct {
	namespace, address, origin, dir string
	nginx, haproxy                  string // their versions
	originPort                      int
	port                            int // of the candidate that runs
	hello                           []byte
	span                            time.Duration
	works                           []tunnelWork
}

// round starts a candidate and measures everything once.
func (b *tunnelBench) round(r *tunnelRelay, results tunnelResults) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	b.port = ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	args, err := r.start(b)
	if err != nil {
		return err
	}
	if b.namespace != "" {
		args = append([]string{"ip", "netns", "exec", b.namespace}, args...)
	}
	c, err := startChild(r.name, exec.Command(args[0], args[1:]...))
	if err != nil {
		return err
	}
	defer c.stop()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := b.dial('p')
		if err == nil {
			_, err = tunnelPing(conn, make([]byte, 1))
			conn.Close()
		}
		if err == nil {
			break
		}
		if time.Now().After(end) {
			return fmt.Errorf("it does not serve: %w: %s", err, c.tail)
		}
	}
	for _, w := range b.works {
		f, err := b.measure(c.pid(), w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if results[w.name] == nil {
			results[w.name] = map[string][]tunnelFigures{}
		}
		results[w.name][r.name] = append(results[w.name][r.name], f)
	}
	return nil
}

// dial opens a tunnel in a mode of the origin's.
func (b *tunnelBench) dial(mode byte) (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(b.address, strconv.Itoa(b.port)), time.Second)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = conn.Write(append(slices.Clone(b.hello), mode))
	if err != nil {
		conn.Close()
	}
	return conn, err
}

func (b *tunnelBench) measure(pid int, w tunnelWork) (f tunnelFigures, err error) {
	if w.size < 0 {
		return b.connections(pid, w)
	}
	mode := byte('p')
	if w.size == 0 {
		mode = 'u'
		if w.down {
			mode = 'd'
		}
	}
	conn, err := b.dial(mode)
	if err != nil {
		return f, err
	}
	defer conn.Close()
	buf := make([]byte, cmp.Or(w.size, 256<<10))
	step := func() (int, error) {
		switch mode {
		case 'p':
			return tunnelPing(conn, buf)
		case 'u':
			return conn.Write(buf)
		}
		return conn.Read(buf)
	}
	for end := time.Now().Add(b.span / 4); time.Now().Before(end); { // warm, and handed over where it is to be
		if _, err := step(); err != nil {
			return f, err
		}
	}
	return b.count(pid, w, 1, step)
}

// connections opens tunnels, one message each way, and ends them; each client does so again and again.
func (b *tunnelBench) connections(pid int, w tunnelWork) (tunnelFigures, error) {
	step := func() (int, error) {
		conn, err := b.dial('p')
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		if _, err := tunnelPing(conn, make([]byte, 128)); err != nil {
			return 0, err
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		_, err = conn.Read(make([]byte, 1))
		if err == io.EOF {
			err = nil
		}
		return 1, err
	}
	if _, _, err := repeat(w.clients, b.span/2, step); err != nil { // warm
		return tunnelFigures{}, err
	}
	return b.count(pid, w, w.clients, step)
}

// count has clients repeat a step for the time of a measurement.
func (b *tunnelBench) count(pid int, w tunnelWork, clients int, step func() (int, error)) (f tunnelFigures, err error) {
	cpu, err := readUsage(pid)
	if err != nil {
		return f, err
	}
	machine, err := machineBusy()
	if err != nil {
		return f, err
	}
	begin := time.Now()
	n, times, err := repeat(clients, b.span, step)
	if err != nil {
		return f, err
	}
	took := time.Since(begin)
	after, err := readUsage(pid)
	if err != nil {
		return f, err
	}
	busy, err := machineBusy()
	if err != nil {
		return f, err
	}
	used := after.since(cpu).cpu
	units := float64(len(times))
	f.Rate = units / took.Seconds()
	f.Process, f.Machine = used.Seconds()*1e6/units, (busy-machine).Seconds()*1e6/units
	if w.size == 0 {
		units = float64(n) / 1e9
		f.Rate = units / took.Seconds()
		f.Process, f.Machine = used.Seconds()*1e3/units, (busy-machine).Seconds()*1e3/units
	}
	f.P50, f.P99 = times[len(times)/2].Seconds()*1e6, times[len(times)*99/100].Seconds()*1e6
	return f, nil
}

// repeat has so many clients take steps, one after the other, for a time: the sum of what the steps answered, and how long each
// took, sorted.
func repeat(clients int, span time.Duration, step func() (int, error)) (sum int, times []time.Duration, err error) {
	sums, taken, errs := make([]int, clients), make([][]time.Duration, clients), make([]error, clients)
	var all sync.WaitGroup
	for i, begin := 0, time.Now(); i < clients; i++ {
		all.Go(func() {
			for last := begin; last.Sub(begin) < span; {
				n, err := step()
				if err != nil {
					errs[i] = err
					return
				}
				now := time.Now()
				sums[i] += n
				taken[i] = append(taken[i], now.Sub(last))
				last = now
			}
		})
	}
	all.Wait()
	for _, n := range sums {
		sum += n
	}
	times = slices.Concat(taken...)
	slices.Sort(times)
	return sum, times, errors.Join(errs...)
}

// machineBusy is the CPU time that all of the machine's processors have spent, kernel threads and interrupts included.
func machineBusy() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, errProcFormat
	}
	sum := int64(0)
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, errProcFormat
		}
		sum += n
	}
	return time.Duration(sum) * clockTick, nil
}

func tunnelPing(conn net.Conn, buf []byte) (int, error) {
	if _, err := conn.Write(buf); err != nil {
		return 0, err
	}
	return io.ReadFull(conn, buf)
}

// tunnelHello is a ClientHello for hostPass.
func tunnelHello() ([]byte, error) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go func() { _ = tls.Client(near, &tls.Config{ServerName: hostPass}).Handshake() }()
	head := make([]byte, 5)
	if _, err := io.ReadFull(far, head); err != nil {
		return nil, err
	}
	hello := append(head, make([]byte, binary.BigEndian.Uint16(head[3:]))...)
	_, err := io.ReadFull(far, hello[5:])
	return hello, err
}

// tunnelOrigin reads a hello and a mode: p sends everything back, u swallows, d sends.
func tunnelOrigin(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			head := make([]byte, 5)
			if _, err := io.ReadFull(conn, head); err != nil {
				return
			}
			rest := make([]byte, int(binary.BigEndian.Uint16(head[3:]))+1)
			if _, err := io.ReadFull(conn, rest); err != nil {
				return
			}
			buf := make([]byte, 256<<10)
			for err == nil {
				n := len(buf)
				mode := rest[len(rest)-1]
				if mode != 'd' {
					n, err = conn.Read(buf)
				}
				if mode != 'u' && n > 0 {
					_, err = conn.Write(buf[:n])
				}
			}
		}()
	}
}
