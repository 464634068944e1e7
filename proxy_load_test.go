package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// The tests of this file hold docs/hardening.md 3.4: no request fails while the configuration changes, while backends
// come and go, and when the process ends. A client repeats a request once, and only when a connection that had answered
// before ends without a byte.

// fleet is a set of clients that ask all the time.
type fleet struct {
	t       *testing.T
	stop    atomic.Bool
	group   sync.WaitGroup
	callers []*caller

	answers  atomic.Int64
	failures atomic.Int64
	by       sync.Map // how often each backend answered
}

// load is what the clients of a fleet do.
type load struct {
	host    string
	config  *tls.Config   // of the callers with TLS; nil: there are none
	posts   bool          // every fourth request is a POST
	fresh   int           // requests after which a client takes another connection; 0: never by itself
	pause   time.Duration // between two requests of a client
	callers int           // of each kind
}

// start lets n clients of each kind ask until done.
func (p *testProxy) start(t *testing.T, l load) *fleet {
	t.Helper()
	f := &fleet{t: t}
	for range l.callers {
		f.lead(&caller{address: p.HTTP}, l)
		if l.config != nil {
			f.lead(&caller{address: p.HTTPS, tls: l.config}, l)
		}
	}
	t.Cleanup(func() { f.stop.Store(true); f.group.Wait() })
	return f
}

func (f *fleet) lead(c *caller, l load) {
	f.callers = append(f.callers, c)
	f.group.Go(func() {
		defer c.hangUp()
		for n := 1; !f.stop.Load(); n++ {
			text := request(l.host, "/")
			if l.posts && n%4 == 0 {
				text = postOf(l.host, "/", []byte("a body that has to arrive once"), n%8 == 0)
			}
			f.judge(c.call(text))
			if l.fresh > 0 && n%l.fresh == 0 {
				c.hangUp()
			}
			time.Sleep(l.pause/2 + rand.N(l.pause+1))
		}
	})
}

func (f *fleet) judge(a *answer, err error) {
	switch {
	case err != nil:
		f.failed(err.Error())
	case a.status != 200:
		f.failed(fmt.Sprintf("%d %.100q", a.status, a.body))
	default:
		f.answers.Add(1)
		name, _, _ := strings.Cut(a.body, "\n")
		n, _ := f.by.LoadOrStore(name, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}
}

func (f *fleet) failed(why string) {
	if f.failures.Add(1) <= 5 {
		f.t.Errorf("a request failed: %s", why)
	}
}

// served is how often a backend answered so far.
func (f *fleet) served(name string) int64 {
	n, ok := f.by.Load(name)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load()
}

// end stops the clients and reports.
func (f *fleet) end(what string) (repeats int) {
	f.t.Helper()
	f.stop.Store(true)
	f.group.Wait()
	dials := 0
	for _, c := range f.callers {
		repeats += c.repeats
		dials += c.dials
	}
	f.t.Logf("%s: %d requests on %d connections, %d failed, %d repeated", what, f.answers.Load()+f.failures.Load(), dials, f.failures.Load(), repeats)
	if f.failures.Load() > 0 {
		f.t.Errorf("%d requests failed", f.failures.Load())
	}
	if f.answers.Load() == 0 {
		f.t.Error("nothing was answered, so nothing is proved")
	}
	return repeats
}

// shorter is n, or few in short runs.
func shorter(n, few int) int {
	if testing.Short() {
		return few
	}
	return n
}

// TestLoadManifestChanges edits manifests 200 times under load: endpoints, routes, certificates, annotations, settings.
func TestLoadManifestChanges(t *testing.T) {
	backends := []*backend{newBackend(t, "one", nil), newBackend(t, "two", nil), newBackend(t, "three", nil)}
	shop := site{name: "shop", host: "shop.example", ports: []int{backends[0].port()}, secret: "shop", annotations: map[string]string{"ssl-redirect": "false"}}
	p := startProxy(t, configMapOf("keep-alive-requests", "500"), configMapFlag)
	var secrets []string
	for range 8 {
		secrets = append(secrets, secretOf(t, "shop", issue(t, "shop.example")))
	}
	p.write("secret.yaml", secrets[0])
	p.write("shop.yaml", shop.yaml())
	within(t, editLimit, "the host", func() bool { return p.shown(t, "shop.example") == "shop.example" })
	applied := p.metric(t, "sluice_applies_total", `result="applied"`)

	f := p.start(t, load{host: "shop.example", config: trusting(t, "shop.example"), posts: true, fresh: 40, pause: 2 * time.Millisecond, callers: 6})
	edits := shorter(200, 40)
	for i := range edits {
		switch i % 5 {
		case 0:
			shop.ports = []int{backends[i/5%3].port(), backends[(i/5+1)%3].port()}
			p.write("shop.yaml", shop.yaml())
		case 1:
			p.write("extra.yaml", site{name: "extra", host: "shop.example", path: fmt.Sprint("/extra", i), ports: shop.ports,
				annotations: map[string]string{"ssl-redirect": "false"}}.yaml())
		case 2:
			p.write("secret.yaml", secrets[i/5%len(secrets)])
		case 3:
			shop.annotations["proxy-read-timeout"] = fmt.Sprint(20 + i)
			p.write("shop.yaml", shop.yaml())
		case 4:
			p.write("all.yaml", configMapOf("keep-alive-requests", fmt.Sprint(500+i)))
		}
		time.Sleep(35 * time.Millisecond) // longer than changes are gathered for
	}
	if repeats := f.end(fmt.Sprintf("%d edits", edits)); repeats > 0 {
		t.Errorf("%d connections ended without a word", repeats)
	}
	if n := p.metric(t, "sluice_applies_total", `result="applied"`) - applied; n < float64(edits)*0.8 {
		t.Errorf("%d edits made %v applies: they were gathered, and less is proved", edits, n)
	}
	for _, b := range backends {
		if f.served(b.name) == 0 {
			t.Errorf("backend %s has answered nothing", b.name)
		}
	}
	ask(t, p.HTTP, nil, "shop.example", fmt.Sprint("/extra", edits-4)).want(t, 200, "")
}

// TestLoadRollingUpdate replaces every endpoint by a new one, as a Deployment does: the new one is ready, the old one is
// terminating, then gone, and a moment later its process ends.
func TestLoadRollingUpdate(t *testing.T) {
	var pods []*backend
	p := startProxy(t, site{name: "shop", host: "shop.example", secret: "shop", annotations: map[string]string{"ssl-redirect": "false"}}.yaml()+
		secretOf(t, "shop", issue(t, "shop.example")))
	apply := func() {
		var ports []int
		for _, b := range pods {
			ports = append(ports, b.port())
		}
		p.write("endpoints.yaml", endpointsOf("shop", ports...))
	}
	generation := func(n int) string { return fmt.Sprint("pod-", n) }
	for n := range 3 {
		pods = append(pods, newBackend(t, generation(n), nil))
	}
	apply()
	within(t, editLimit, "the first pods", func() bool { return ask(t, p.HTTP, nil, "shop.example", "/").status == 200 })
	f := p.start(t, load{host: "shop.example", config: trusting(t, "shop.example"), posts: true, pause: time.Millisecond, callers: 6})
	for n := 3; n < shorter(12, 6); n++ {
		pods = append(pods, newBackend(t, generation(n), nil))
		apply()
		within(t, editLimit, "the new pod", func() bool { return f.served(generation(n)) > 0 })
		old := pods[0]
		pods = pods[1:]
		apply()
		time.Sleep(150 * time.Millisecond) // a pod's end waits for the news to spread
		if err := old.retire(); err != nil {
			t.Fatal(err)
		}
		before := old.served.Load()
		if time.Sleep(20 * time.Millisecond); old.served.Load() != before {
			t.Error("a pod that is gone is still asked")
		}
	}
	if repeats := f.end("rolling update"); repeats > 0 {
		t.Errorf("%d connections ended without a word", repeats)
	}
}

// TestLoadDyingEndpoint has one of two endpoints crash and come back, again and again, without a word to the proxy.
func TestLoadDyingEndpoint(t *testing.T) {
	steady, dying := newBackend(t, "steady", nil), newBackend(t, "dying", nil)
	port := dying.port()
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{steady.port(), port}, secret: "shop",
		annotations: map[string]string{"ssl-redirect": "false"}}.yaml()+secretOf(t, "shop", issue(t, "shop.example")))
	f := p.start(t, load{host: "shop.example", config: trusting(t, "shop.example"), pause: time.Millisecond, callers: 6})
	for n := range shorter(6, 2) {
		dying.delay.Store(int64(2 * time.Millisecond)) // so that requests are under way when it dies
		steadyBefore := f.served("steady")
		time.Sleep(200 * time.Millisecond)
		dying.kill()
		<-dying.done
		within(t, 5*time.Second, "requests of the other endpoint", func() bool { return f.served("steady") > steadyBefore+100 })
		dying = newBackendAt(t, fmt.Sprint("dying-", n), fmt.Sprint("127.0.0.1:", port))
		within(t, 20*time.Second, "the endpoint's return", func() bool { return dying.served.Load() > 10 })
	}
	if repeats := f.end("dying endpoint"); repeats > 0 {
		t.Errorf("%d connections ended without a word", repeats)
	}
}

// TestDrainInProcess has 40 requests in flight, over plain HTTP and TLS, connections that are idle, and a tunnel.
func TestDrainInProcess(t *testing.T) {
	port, arrived, release := slowBackend(t)
	chat := upgrader(t)
	p := startProxy(t, site{name: "slow", host: "slow.example", ports: []int{port}, secret: "slow", annotations: map[string]string{"ssl-redirect": "false"}}.yaml()+
		site{name: "chat", host: "chat.example", ports: []int{chat.port()}}.yaml()+secretOf(t, "slow", issue(t, "slow.example")))
	var idle []*caller
	for i := range 20 {
		c := &caller{address: p.HTTP}
		if i%2 == 0 {
			c = &caller{address: p.HTTPS, tls: trusting(t, "slow.example")}
		}
		if _, err := c.call(request("nobody.example", "/")); err != nil {
			t.Fatal(err)
		}
		defer c.hangUp()
		idle = append(idle, c)
	}
	tunnel, reader := upgraded(t, p.HTTP, nil, "chat.example")
	var group sync.WaitGroup
	for i := range 40 {
		c := &caller{address: p.HTTP}
		if i%2 == 0 {
			c = &caller{address: p.HTTPS, tls: trusting(t, "slow.example")}
		}
		group.Go(func() {
			defer c.hangUp()
			if a, err := c.call(request("slow.example", "/")); err != nil || a.body != "done" || !a.close || c.dials != 1 {
				t.Errorf("a request in flight: %+v, %v", a, err)
			}
		})
	}
	for range 40 {
		<-arrived
	}
	began, drained := time.Now(), make(chan error, 1)
	go func() { drained <- p.drain(context.Background()) }()
	for _, c := range idle {
		if got, err := ended(c.conn); got != "" || err != nil {
			t.Errorf("an idle connection got %q, %v", got, err)
		}
	}
	if took := time.Since(began); took > newcomerWait { // a second, if they have just been answered
		t.Errorf("idle connections ended after %v", took)
	}
	for _, address := range []string{p.HTTP, p.HTTPS} {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			t.Errorf("%s is still open", address)
		}
	}
	echoes(t, tunnel, reader, "the tunnel goes on")
	release()
	group.Wait()
	select {
	case <-drained:
		t.Error("the drain did not wait for the tunnel")
	case <-time.After(100 * time.Millisecond):
	}
	_ = tunnel.Close()
	closed := time.Now()
	if err := <-drained; err != nil || time.Since(closed) > 3*time.Second {
		t.Errorf("the drain went on for %v after the last connection: %v", time.Since(closed), err)
	}
}

// TestDrainNewcomers has clients whose connections were accepted just before the port closed, and which say what they want
// only then: without a word, with half a hello, and with a hello whose answer they have not read.
func TestDrainNewcomers(t *testing.T) {
	b := newBackend(t, "one", nil)
	p := startProxy(t, site{name: "shop", host: "shop.example", ports: []int{b.port()}, secret: "shop", annotations: map[string]string{"ssl-redirect": "false"}}.yaml()+
		secretOf(t, "shop", issue(t, "shop.example")))
	late := 200 * time.Millisecond
	var group sync.WaitGroup
	for i := range 20 {
		c := &caller{address: p.HTTP}
		if i%2 == 0 {
			c = &caller{address: p.HTTPS, tls: trusting(t, "shop.example"), wrap: func(n net.Conn) net.Conn {
				return &pieces{Conn: n, size: 100 * i, limit: 100 * i, pause: late}
			}}
		}
		group.Go(func() {
			if err := c.dial(); err != nil {
				t.Error(err)
				return
			}
			defer c.hangUp()
			time.Sleep(late)
			if a, err := c.call(request("shop.example", "/")); err != nil || a.status != 200 || !a.close || c.dials != 1 {
				t.Errorf("client %d: %+v, %v", i, a, err)
			}
		})
	}
	within(t, callTimeout, "all connections", func() bool { return p.door("http").Stats.Accepted.Load()+p.door("https").Stats.Accepted.Load() == 20 })
	if err := p.drain(context.Background()); err != nil {
		t.Error(err)
	}
	group.Wait()
}

// TestLoadSIGTERM ends one of two processes under load: its clients go to the other one when its port is closed, as
// clients of a load balancer do, and none of their requests fails.
func TestLoadSIGTERM(t *testing.T) {
	b := newBackend(t, "one", nil)
	b.delay.Store(int64(20 * time.Millisecond))
	dir := t.TempDir()
	text := site{name: "shop", host: "shop.example", ports: []int{b.port()}, secret: "shop", annotations: map[string]string{"ssl-redirect": "false"}}.yaml() +
		secretOf(t, "shop", issue(t, "shop.example"))
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start := func() (*child, *testProxy) {
		p := &testProxy{HTTP: fmt.Sprint("127.0.0.1:", freePort(t)), HTTPS: fmt.Sprint("127.0.0.1:", freePort(t))}
		_, http, _ := net.SplitHostPort(p.HTTP)
		_, https, _ := net.SplitHostPort(p.HTTPS)
		c := startChild(t, "--manifests="+dir, "--bind-address=127.0.0.1", "--http-port="+http, "--https-port="+https, "--admin-address=", "--loops=2")
		c.logged("msg=serving")
		return c, p
	}
	_, stays := start()
	for range shorter(5, 2) {
		ending, p := start()
		f := &fleet{t: t}
		for i := range 60 {
			c := &caller{address: p.HTTP, next: stays.HTTP}
			if i%3 == 0 {
				c = &caller{address: p.HTTPS, next: stays.HTTPS, tls: trusting(t, "shop.example")}
			}
			f.lead(c, load{host: "shop.example", posts: true, pause: time.Millisecond, fresh: i % 2}) // every second one always connects anew
		}
		time.Sleep(400 * time.Millisecond)
		ending.signal(syscall.SIGTERM)
		ending.ends(10*time.Second, 0)
		time.Sleep(50 * time.Millisecond)
		f.end("SIGTERM")
	}
}

// portClosed tells that nobody listens.
func portClosed(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }

// needRing skips where the kernel gives no ring, with the reason.
func needRing(t *testing.T) {
	t.Helper()
	l, err := fastpath.NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	err = l.UseRing()
	l.Stop()
	l.Run()
	if err != nil {
		t.Skipf("no io_uring here: %v", err)
	}
}

// TestIOUring: under load loops receive and send for several connections by one system call, where the kernel allows it, and
// by one each with --io-uring=off.
func TestIOUring(t *testing.T) {
	b := newBackend(t, "one", nil)
	shop := site{name: "shop", host: "shop.example", ports: []int{b.port()}, annotations: map[string]string{"ssl-redirect": "false"}}
	for _, value := range []string{"auto", "off"} {
		t.Run(value, func(t *testing.T) {
			p := startProxy(t, shop.yaml(), "--io-uring="+value)
			if value == "auto" {
				needRing(t)
			}
			f := p.start(t, load{host: "shop.example", posts: true, pause: time.Millisecond, callers: 32})
			batches := func() float64 {
				return p.metric(t, "sluice_loop_batches_total", `loop="0"`) + p.metric(t, "sluice_loop_batches_total", `loop="1"`)
			}
			if value == "auto" {
				within(t, 30*time.Second, "batches", func() bool { return batches() > 100 })
			} else {
				within(t, 30*time.Second, "answers", func() bool { return f.answers.Load() > 1000 })
			}
			f.end(value)
			if n := batches(); value == "off" && n != 0 {
				t.Errorf("%v batches", n)
			}
		})
	}
}
