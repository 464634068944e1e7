package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Active health checks: one goroutine a cluster asks every endpoint now and then, on connections of its own. An endpoint
// that fails gets no requests until it is well again; when too few are well (Outlier.Panic), health is not looked at:
// a check that is wrong must not make a cluster empty.

// fill puts the defaults in.
func (k *Check) fill() {
	if k.Kind == CheckNone {
		return
	}
	if k.Path == "" {
		k.Path = "/"
	}
	k.StatusMin, k.StatusMax = orInt(k.StatusMin, 200), orInt(k.StatusMax, 399)
	k.Interval, k.Timeout = orDuration(k.Interval, checkInterval), orDuration(k.Timeout, checkTimeout)
	k.Healthy, k.Unhealthy = orInt(k.Healthy, checkHealthy), orInt(k.Unhealthy, checkUnhealthy)
}

// health is what checks found out about an endpoint; guarded by Cluster.judging.
type health struct {
	inRow  int  // equal results in a row
	good   bool // … which they were
	known  bool // there was one
	checks uint64
	bad    uint64
	last   string // why the last bad one was bad
}

// watchHealth starts or ends the cluster's checks as its settings say. c.mu is held.
func (c *Cluster) watchHealth() {
	want := c.settings.Check
	if c.closed {
		want = Check{}
	}
	if want == c.checking {
		return
	}
	c.checking = want
	if c.stopChecks != nil {
		c.stopChecks()
		c.stopChecks = nil
	}
	if want.Kind == CheckNone {
		for _, e := range c.byAddr {
			c.judging.Lock()
			e.health.known = false
			e.unhealthy.Store(false)
			c.judging.Unlock()
		}
		c.judgePanic()
		return
	}
	var ctx context.Context
	ctx, c.stopChecks = context.WithCancel(context.Background())
	go c.checkHealth(ctx, want)
}

// checkHealth checks all endpoints every Interval, give or take a tenth, so that proxies do not march in step.
func (c *Cluster) checkHealth(ctx context.Context, k Check) {
	for ctx.Err() == nil {
		c.checkAll(ctx, &k)
		wait := time.NewTimer(k.Interval - k.Interval/10 + rand.N(k.Interval/5+1))
		select {
		case <-ctx.Done():
			wait.Stop()
		case <-wait.C:
		}
	}
}

func (c *Cluster) checkAll(ctx context.Context, k *Check) {
	v := c.current.Load()
	if v.err != nil { // nobody is dialled, and not in clear either
		return
	}
	room := make(chan struct{}, checksAtOnce)
	var all sync.WaitGroup
	for _, e := range v.ready {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			c.judge(ctx, e, k, e.check(ctx, v, k))
		})
	}
	all.Wait()
}

// check is one check of one endpoint.
func (e *Endpoint) check(ctx context.Context, v *view, k *Check) error {
	ctx, cancel := context.WithTimeout(ctx, k.Timeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", e.addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	if k.Kind == CheckGRPC {
		return e.checkGRPC(ctx, conn, v, k)
	}
	if config := e.tlsFor(v); config != nil && k.Kind == CheckHTTP {
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return err
		}
		conn = secured
	}
	if k.Kind != CheckHTTP {
		return nil
	}
	host := k.Host
	if host == "" {
		host = e.addr.String()
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: sluice-health\r\nAccept: */*\r\nConnection: close\r\n\r\n", k.Path, host); err != nil {
		return err
	}
	res, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, checkBytesMax)), nil)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode < k.StatusMin || res.StatusCode > k.StatusMax {
		return fmt.Errorf("it answered %d to GET %s", res.StatusCode, k.Path)
	}
	return nil
}

// judge takes a result, unless checks were given up meanwhile.
func (c *Cluster) judge(ctx context.Context, e *Endpoint, k *Check, err error) {
	c.judging.Lock()
	changed := ctx.Err() == nil && e.learn(k, err)
	c.judging.Unlock()
	if !changed {
		return
	}
	c.judgePanic()
	if err != nil {
		c.env.log().Warn("endpoint unhealthy: its checks fail; other endpoints take its requests", "cluster", c.id, "endpoint", e.addr.String(), "error", err)
	} else {
		c.env.log().Info("endpoint healthy again", "cluster", c.id, "endpoint", e.addr.String())
	}
}

// learn counts a result, and tells whether the endpoint's health is another one now: enough equal ones came in a row.
// c.judging is held.
func (e *Endpoint) learn(k *Check, err error) (changed bool) {
	h := &e.health
	h.checks++
	good := err == nil
	if !good {
		h.bad++
		h.last = err.Error()
	}
	if h.known && h.good == good {
		h.inRow++
	} else {
		h.known, h.good, h.inRow = true, good, 1
	}
	was := e.unhealthy.Load()
	is := was
	switch {
	case good && h.inRow >= k.Healthy:
		is = false
	case !good && h.inRow >= k.Unhealthy:
		is = true
	}
	if is == was {
		return false
	}
	if !is {
		e.warm(e.cluster.current.Load().SlowStart)
	}
	e.unhealthy.Store(is)
	return true
}

// judgePanic decides whether health counts: not when fewer endpoints are healthy than Outlier.Panic says. Checks that end
// at once judge one after the other, so that the last one has seen what all of them found.
func (c *Cluster) judgePanic() {
	c.judging.Lock()
	v := c.current.Load()
	well := 0
	for _, e := range v.ready {
		if !e.unhealthy.Load() {
			well++
		}
	}
	panics := well*100 < len(v.ready)*v.Outlier.Panic
	began := !c.panics.Swap(panics) && panics
	c.judging.Unlock()
	if began {
		c.env.log().Warn("too few endpoints of the cluster are healthy: health does not count until more are", "cluster", c.id, "healthy", well, "ready", len(v.ready))
	}
}

// warm begins the endpoint's slow start.
func (e *Endpoint) warm(d time.Duration) {
	if d > 0 {
		now := fastpath.Now()
		e.warmFrom.Store(now)
		e.warmUntil.Store(now + int64(d))
	}
}
