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
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file compares ways of moving a tunnel's bytes: TLS that is passed through by its server name, as far as a proxy sees
// it; after the hello the peers speak a protocol of their own, so that nobody's cryptography is measured.

const tunnelsHelp = `bench tunnels compares ways of moving the bytes of TLS pass-through.

  --sluice=FILE   the program (bin/sluice); it runs with --sockmap=off and on
  --haproxy=FILE  (haproxy)
  --nginx=FILE    (nginx), with stream and ssl_preread
  --netns         proxies stand in a network namespace of their own, behind veth
  --rounds=N      (3)
  --time=D        of each measurement (500ms)
`

// tunnelWork is a measurement of a round.
type tunnelWork struct {
	name string
	size int // of a message; 0: bulk
	down bool
}

var tunnelWorks = []tunnelWork{
	{name: "ping-pong 1 B", size: 1}, {name: "ping-pong 512 B", size: 512}, {name: "ping-pong 16 KiB", size: 16 << 10},
	{name: "bulk up"}, {name: "bulk down", down: true}, {name: "connections", size: -1},
}

// tunnelFigures are one candidate's of one work: CPU in µs a round trip or connection, or ms a GB.
type tunnelFigures struct {
	process, machine float64
	rate             float64 // round trips or connections a second, or GB/s
	p50, p99         float64 // µs
}

func tunnelsCommand(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("tunnels", flag.ContinueOnError)
	flags.Usage = func() { fmt.Fprint(out, tunnelsHelp) }
	program := flags.String("sluice", "bin/sluice", "")
	haproxy, nginx := flags.String("haproxy", "haproxy", ""), flags.String("nginx", "nginx", "")
	netns, rounds, span := flags.Bool("netns", false, ""), flags.Int("rounds", 3, ""), flags.Duration("time", 500*time.Millisecond, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &tunnelBench{address: "127.0.0.1", origin: "127.0.0.1", span: *span}
	if *netns {
		n, err := newNetwork(ctx)
		if err != nil {
			return err
		}
		defer n.close()
		b.namespace, b.address, b.origin = n.namespace, networkProxy, networkOrigin
	}
	var err error
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
	relays := tunnelRelays(*program, *haproxy, *nginx)
	results := map[string]map[string][]tunnelFigures{}
	for range *rounds {
		for i := range relays {
			if err := b.round(&relays[i], results); err != nil {
				return fmt.Errorf("%s: %w", relays[i].name, err)
			}
		}
	}
	b.report(out, relays, results)
	return nil
}

// tunnelBench is what a run has.
type tunnelBench struct {
	namespace, address, origin, dir string
	originPort                      int
	port                            int // of the candidate that runs
	hello                           []byte
	span                            time.Duration
}

// round starts a candidate and measures everything once.
func (b *tunnelBench) round(r *tunnelRelay, results map[string]map[string][]tunnelFigures) error {
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
	for _, w := range tunnelWorks {
		f, err := b.measure(c.pid(), w)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		if results[r.name] == nil {
			results[r.name] = map[string][]tunnelFigures{}
		}
		results[r.name][w.name] = append(results[r.name][w.name], f)
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
	return b.count(pid, w, step)
}

// connections opens tunnels, one message each way, and ends them.
func (b *tunnelBench) connections(pid int, w tunnelWork) (tunnelFigures, error) {
	return b.count(pid, w, func() (int, error) {
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
	})
}

// count repeats a step for the time of a measurement.
func (b *tunnelBench) count(pid int, w tunnelWork, step func() (int, error)) (f tunnelFigures, err error) {
	cpu, err := readUsage(pid)
	if err != nil {
		return f, err
	}
	machine, err := machineBusy()
	if err != nil {
		return f, err
	}
	var times []time.Duration
	n, begin := 0, time.Now()
	for last := begin; last.Sub(begin) < b.span; {
		k, err := step()
		if err != nil {
			return f, err
		}
		now := time.Now()
		n += k
		times = append(times, now.Sub(last))
		last = now
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
	f.rate = units / took.Seconds()
	f.process, f.machine = used.Seconds()*1e6/units, (busy-machine).Seconds()*1e6/units
	if w.size == 0 {
		units = float64(n) / 1e9
		f.rate = units / took.Seconds()
		f.process, f.machine = used.Seconds()*1e3/units, (busy-machine).Seconds()*1e3/units
	}
	slices.Sort(times)
	f.p50, f.p99 = times[len(times)/2].Seconds()*1e6, times[len(times)*99/100].Seconds()*1e6
	return f, nil
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

// report prints medians, with the smallest and the largest of the CPU.
func (b *tunnelBench) report(out io.Writer, relays []tunnelRelay, results map[string]map[string][]tunnelFigures) {
	fmt.Fprintf(out, "%d processors, %s, %v a measurement\n", runtime.NumCPU(), cmp.Or(b.namespace, "loopback"), b.span)
	for _, w := range tunnelWorks {
		fmt.Fprintf(out, "\n| %s | process CPU (min-max) | machine CPU | rate | p50 µs | p99 µs |\n| --- | --- | --- | --- | --- | --- |\n", w.name)
		for _, r := range relays {
			list := results[r.name][w.name]
			of := func(get func(tunnelFigures) float64) (low, mid, high float64) {
				var v []float64
				for _, f := range list {
					v = append(v, get(f))
				}
				slices.Sort(v)
				return v[0], v[len(v)/2], v[len(v)-1]
			}
			low, cpu, high := of(func(f tunnelFigures) float64 { return f.process })
			_, machine, _ := of(func(f tunnelFigures) float64 { return f.machine })
			_, rate, _ := of(func(f tunnelFigures) float64 { return f.rate })
			_, p50, _ := of(func(f tunnelFigures) float64 { return f.p50 })
			_, p99, _ := of(func(f tunnelFigures) float64 { return f.p99 })
			fmt.Fprintf(out, "| %s | %.1f (%.1f-%.1f) | %.1f | %.2f | %.0f | %.0f |\n", r.name, cpu, low, high, machine, rate, p50, p99)
		}
	}
}

// tunnelRelay is a candidate: start writes its configuration and answers its command.
type tunnelRelay struct {
	name  string
	start func(b *tunnelBench) ([]string, error)
}

func tunnelRelays(program, haproxy, nginx string) []tunnelRelay {
	self := func(how string) func(b *tunnelBench) ([]string, error) {
		return func(b *tunnelBench) ([]string, error) {
			exe, err := os.Executable()
			return []string{exe, "relay", how, net.JoinHostPort(b.address, strconv.Itoa(b.port)), net.JoinHostPort(b.origin, strconv.Itoa(b.originPort))}, err
		}
	}
	sluice := func(sockmap string) func(b *tunnelBench) ([]string, error) {
		return func(b *tunnelBench) ([]string, error) {
			dir := filepath.Join(b.dir, "manifests")
			err := os.MkdirAll(dir, 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "all.yaml"), fmt.Appendf(nil, tunnelManifests, hostPass, b.origin, b.originPort), 0o644)
			}
			return []string{program, "--manifests=" + dir, "--http-port=0", fmt.Sprint("--https-port=", b.port), "--bind-address=" + b.address,
				"--admin-address=", "--loops=2", "--enable-ssl-passthrough", "--sockmap=" + sockmap, "--allow-backend-cidr=127.0.0.0/8"}, err
		}
	}
	return []tunnelRelay{
		{"Go copy", self("copy")}, {"Go io.Copy", self("splice")},
		{"Sluice", sluice("off")}, {"Sluice sockmap", sluice("on")},
		{"HAProxy", func(b *tunnelBench) ([]string, error) {
			file := filepath.Join(b.dir, "haproxy.cfg")
			return []string{haproxy, "-f", file, "-db"}, os.WriteFile(file, fmt.Appendf(nil, tunnelHAProxy, b.address, b.port, hostPass, b.origin, b.originPort), 0o644)
		}},
		{"nginx", func(b *tunnelBench) ([]string, error) {
			file := filepath.Join(b.dir, "nginx.conf")
			return []string{nginx, "-c", file, "-p", b.dir}, os.WriteFile(file, fmt.Appendf(nil, tunnelNginx, b.dir, hostPass, b.origin, b.originPort, b.address, b.port), 0o644)
		}},
	}
}

// relayCommand is a tunnel as plain Go writes it: `bench relay copy|splice LISTEN TO`.
func relayCommand(args []string) error {
	if len(args) != 3 {
		return errors.New("relay: give copy or splice, an address to listen on, and one to connect to")
	}
	ln, err := net.Listen("tcp", args[1])
	if err != nil {
		return err
	}
	for {
		a, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer a.Close()
			b, err := net.Dial("tcp", args[2])
			if err != nil {
				return
			}
			defer b.Close()
			done := make(chan struct{})
			move := func(to, from net.Conn) {
				if args[0] == "copy" {
					_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
				} else {
					_, _ = io.Copy(to, from)
				}
				_ = to.(*net.TCPConn).CloseWrite()
			}
			go func() { move(b, a); close(done) }()
			move(a, b)
			<-done
		}()
	}
}

const tunnelManifests = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: pass
  namespace: default
  annotations: {nginx.ingress.kubernetes.io/ssl-passthrough: "true"}
spec:
  ingressClassName: nginx
  rules:
  - host: %s
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: pass, port: {number: 443}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: pass, namespace: default}
spec: {ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pass, namespace: default, labels: {kubernetes.io/service-name: pass}}
addressType: IPv4
endpoints: [{addresses: [%q]}]
ports: [{port: %d}]
`

const tunnelHAProxy = `global
    nbthread 2
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option splice-auto
frontend sni
    bind %s:%d
    tcp-request inspect-delay 5s
    tcp-request content accept if { req.ssl_hello_type 1 }
    use_backend pass if { req.ssl_sni -i %s }
backend pass
    server origin %s:%d
`

const tunnelNginx = `daemon off;
worker_processes 2;
pid %s/nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
stream {
    map $ssl_preread_server_name $to { %s %s:%d; }
    server {
        listen %s:%d reuseport;
        ssl_preread on;
        proxy_half_close on;
        proxy_pass $to;
    }
}
`
