package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// soakDuration is how long the soak lasts: SLUICE_SOAK says it (`make soak DURATION=30m`), else a minute.
func soakDuration(t *testing.T) time.Duration {
	if s := os.Getenv("SLUICE_SOAK"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < 5*time.Second {
			t.Fatalf("SLUICE_SOAK=%s: give a duration of at least 5s, such as 30m", s)
		}
		return d
	}
	if testing.Short() {
		return 10 * time.Second
	}
	return time.Minute
}

// soakSample is the state of the process at a moment.
type soakSample struct {
	at       time.Duration
	memory   int64 // bytes
	files    int
	answers  int64
	failures int64
}

// soak is a process under a mixed load whose configuration and backends change all the time.
type soak struct {
	t       *testing.T
	p       *process
	stop    atomic.Bool
	group   sync.WaitGroup
	fleets  []*fleet
	streams atomic.Int64 // of HTTP/2, answered
	reset   atomic.Int64 // … and not
	echoes  atomic.Int64 // over tunnels
	broken  atomic.Int64 // tunnels
	samples []soakSample
}

// soakSockmap is how --sockmap stands: SLUICE_SOAK_SOCKMAP says it (`make soak SOCKMAP=on`).
func soakSockmap() string { return cmp.Or(os.Getenv("SLUICE_SOAK_SOCKMAP"), "off") }

// TestSoak runs HTTP/1.1 with and without TLS, HTTP/2, WebSocket and pass-through beside each other while a manifest changes every
// second and a backend dies and comes back: no request fails, memory and descriptors stay flat.
func TestSoak(t *testing.T) {
	duration := soakDuration(t)
	steady := []*backend{newBackend(t, "steady-1", nil), newBackend(t, "steady-2", nil), newBackend(t, "steady-3", nil)}
	flapping := newBackend(t, "flapping", nil)
	secured, chat := newBackend(t, "secured", issue(t, "pass.example")), upgrader(t)
	plain := map[string]string{"ssl-redirect": "false"}
	shop := site{name: "shop", host: "shop.example", secret: "shop", annotations: plain}
	nowhere, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0) // takes the access log, as a pipe would
	if err != nil {
		t.Fatal(err)
	}
	defer nowhere.Close()
	s := &soak{t: t, p: startProcess(t, nowhere, "", shop.yaml()+
		site{name: "flap", host: "flap.example", ports: []int{steady[2].port(), flapping.port()}, secret: "flap", annotations: plain}.yaml()+
		site{name: "chat", host: "chat.example", ports: []int{chat.port()}, secret: "chat", annotations: plain}.yaml()+
		passSite("pass", "pass.example", secured.port())+secretOf(t, "chat", issue(t, "chat.example"))+secretOf(t, "flap", issue(t, "flap.example")), "--sockmap="+soakSockmap())}
	s.p.write("shop-endpoints.yaml", endpointsOf("shop", steady[0].port(), steady[1].port()))
	s.p.write("shop-secret.yaml", secretOf(t, "shop", issue(t, "shop.example")))

	within(t, callTimeout, "the first certificate", func() bool {
		c := &caller{address: s.p.https, tls: trusting(t, "shop.example")}
		defer c.hangUp()
		a, err := c.call(request("shop.example", "/"))
		return err == nil && a.status == 200
	})
	web := &testProxy{HTTP: s.p.http, HTTPS: s.p.https}
	s.fleets = []*fleet{
		web.start(t, load{host: "shop.example", config: trusting(t, "shop.example"), posts: true, fresh: 50, pause: 4 * time.Millisecond, callers: 4}),
		web.start(t, load{host: "flap.example", config: trusting(t, "flap.example"), fresh: 200, pause: 8 * time.Millisecond, callers: 2}),
	}
	through := &fleet{t: t}
	for range 2 {
		through.lead(&caller{address: s.p.https, tls: trusting(t, "pass.example")}, load{host: "pass.example", fresh: 30, pause: 8 * time.Millisecond})
	}
	s.fleets = append(s.fleets, through)
	for range 2 {
		s.group.Go(s.talk)
		s.group.Go(s.multiplex)
	}
	s.group.Go(func() { s.edit(shop, steady) })
	s.group.Go(func() { s.flap(flapping) })
	s.watch(duration)
	s.stop.Store(true)
	s.group.Wait()
	s.judge()
}

// multiplex opens HTTP/2 connections, one after the other, and asks on several streams of each.
func (s *soak) multiplex() {
	for !s.stop.Load() {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: trusting(s.t, "shop.example"),
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", s.p.https)
			}}
		client := &http.Client{Transport: transport, Timeout: time.Minute}
		var streams sync.WaitGroup
		for range 4 {
			streams.Go(func() {
				for n := 0; n < 50 && !s.stop.Load(); n++ {
					if err := s.stream(client); err != nil && s.reset.Add(1) <= 5 {
						s.t.Errorf("a stream: %v", err)
					}
					time.Sleep(8 * time.Millisecond)
				}
			})
		}
		streams.Wait()
		transport.CloseIdleConnections()
	}
}

func (s *soak) stream(client *http.Client) error {
	answer, err := client.Get("https://shop.example/")
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != 200 || answer.ProtoMajor != 2 || len(body) == 0 {
		return fmt.Errorf("%s %s, %d bytes", answer.Proto, answer.Status, len(body))
	}
	s.streams.Add(1)
	return nil
}

// talk opens tunnels, one after the other, and has each echo a while.
func (s *soak) talk() {
	for !s.stop.Load() {
		if err := s.tunnel(); err != nil {
			if s.broken.Add(1) <= 5 {
				s.t.Errorf("a tunnel: %v", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *soak) tunnel() error {
	c, err := net.Dial("tcp", s.p.http)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: chat.example\r\n"+upgradeFields+"\r\n"); err != nil {
		return err
	}
	br := bufio.NewReader(c)
	res, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("%v, %w", res, err)
	}
	if err := expectText(br, "hello"); err != nil {
		return err
	}
	for n := 0; n < 200 && !s.stop.Load(); n++ {
		text := fmt.Sprint("message ", n)
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		if err := expectText(br, text); err != nil {
			return err
		}
		s.echoes.Add(1)
		time.Sleep(10 * time.Millisecond)
	}
	return nil
}

// edit changes a manifest every second: endpoints, certificate, settings, another host.
func (s *soak) edit(shop site, backends []*backend) {
	for n := 0; !s.stop.Load(); n++ {
		switch n % 4 {
		case 0:
			shop.ports = []int{backends[n/4%3].port(), backends[(n/4+1)%3].port()}
			s.p.write("shop-endpoints.yaml", endpointsOf("shop", shop.ports...))
		case 1:
			s.p.write("shop-secret.yaml", secretOf(s.t, "shop", issue(s.t, "shop.example")))
		case 2:
			s.p.write("extra.yaml", site{name: "extra", host: fmt.Sprintf("extra-%d.example", n), ports: shop.ports}.yaml())
		case 3:
			s.p.write("settings.yaml", site{name: "more", host: "shop.example", path: "/more", ports: shop.ports,
				annotations: map[string]string{"ssl-redirect": "false", "proxy-read-timeout": fmt.Sprint(20 + n%100)}}.yaml())
		}
		time.Sleep(time.Second)
	}
}

// flap has a backend crash and come back, again and again.
func (s *soak) flap(b *backend) {
	address := fmt.Sprint("127.0.0.1:", b.port())
	for n := 0; !s.stop.Load(); n++ {
		time.Sleep(time.Second)
		b.kill()
		<-b.done
		time.Sleep(500 * time.Millisecond)
		b = newBackendAt(s.t, fmt.Sprint("flapping-", n), address)
	}
}

// watch samples the process until the time is over.
func (s *soak) watch(duration time.Duration) {
	began := time.Now()
	every := min(max(duration/1000, 250*time.Millisecond), 5*time.Second)
	for tick := time.NewTicker(every); time.Since(began) < duration && !s.t.Failed(); <-tick.C {
		sample := soakSample{at: time.Since(began), memory: s.p.memory(), files: s.p.files()}
		for _, f := range s.fleets {
			sample.answers += f.answers.Load()
			sample.failures += f.failures.Load()
		}
		sample.answers += s.streams.Load()
		sample.failures += s.reset.Load() + s.broken.Load()
		s.samples = append(s.samples, sample)
	}
}

// judge ends the load, writes what was seen, and compares the end with the time after the start.
func (s *soak) judge() {
	t := s.t
	for i, name := range []string{"HTTP/1.1", "flapping backend", "pass-through"} {
		s.fleets[i].end(name)
	}
	t.Logf("HTTP/2: %d requests, %d failed", s.streams.Load(), s.reset.Load())
	t.Logf("%d echoes over tunnels, %d broken; %v applies", s.echoes.Load(), s.broken.Load(), s.p.metric("sluice_applies_total", `result="applied"`))
	if s.echoes.Load() == 0 || s.streams.Load() == 0 {
		t.Error("no tunnel echoed, or no stream was answered")
	}
	if soakSockmap() != "off" {
		joined := s.p.metric("sluice_sockmap_tunnels_total", "")
		t.Logf("sockmap: %v tunnels joined, %v refused, %v directions given back, %v bytes moved, %v came again",
			joined, s.p.metric("sluice_sockmap_refused_total", ""), s.p.metric("sluice_sockmap_released_total", ""),
			s.p.metric("sluice_sockmap_bytes_total", ""), s.p.metric("sluice_sockmap_repeated_bytes_total", ""))
		if joined == 0 {
			t.Error("no tunnel was joined in the kernel")
		}
	}
	if n := s.p.metric("sluice_loop_panics_total", ""); n > 0 {
		t.Errorf("%v panics", n)
	}
	if dir := os.Getenv("SLUICE_SOAK_OUT"); dir != "" {
		for name, text := range map[string]string{"tmp-soak.csv": soakCSV(s.samples), "tmp-soak.svg": soakSVG(s.samples)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Error(err)
			}
		}
	}
	if len(s.samples) < 10 {
		t.Fatalf("only %d samples", len(s.samples))
	}
	fifth := len(s.samples) / 5
	early, late := s.samples[fifth:2*fifth], s.samples[len(s.samples)-fifth:]
	memory := func(x soakSample) int64 { return x.memory }
	files := func(x soakSample) int64 { return int64(x.files) }
	if a, b := median(early, memory), median(late, memory); b > a+a/5+8<<20 {
		t.Errorf("memory grew from %d to %d MiB", a>>20, b>>20)
	}
	if a, b := median(early, files), median(late, files); b > a+a/5+20 {
		t.Errorf("descriptors grew from %d to %d", a, b)
	}
}

func median[T any, N cmp.Ordered](list []T, of func(T) N) N {
	values := make([]N, len(list))
	for i := range list {
		values[i] = of(list[i])
	}
	slices.Sort(values)
	return values[len(values)/2]
}
