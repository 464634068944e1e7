package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"
)

// Resolver looks a name up. A ttl of 0 means that it does not know one.
type Resolver interface {
	Resolve(ctx context.Context, name string) (addrs []netip.Addr, ttl time.Duration, err error)
}

// systemResolver asks as the system is configured to.
type systemResolver struct{}

func (systemResolver) Resolve(ctx context.Context, name string) ([]netip.Addr, time.Duration, error) {
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	return addrs, 0, err
}

// nameState is what is known of a name: its last good addresses, and when to ask again.
type nameState struct {
	addrs []netip.Addr
	due   time.Time
	bad   bool // the last answer was none
}

// watchNames takes up the names that are wanted, and lets go of others. c.mu is held.
func (c *Cluster) watchNames() {
	names := make(map[string]*nameState)
	added := false
	for _, a := range c.wanted {
		if a.Name == "" || names[a.Name] != nil {
			continue
		}
		n := c.names[a.Name]
		if n == nil {
			n, added = &nameState{}, true
		}
		names[a.Name] = n
	}
	c.names = names
	switch {
	case !added:
	case c.wake == nil:
		ctx, cancel := context.WithCancel(context.Background())
		c.wake, c.cancel = make(chan struct{}, 1), cancel
		go c.resolve(ctx)
	default:
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// resolve asks for every name when it is due, until ctx ends. It is the cluster's one goroutine.
func (c *Cluster) resolve(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-timer.C:
		}
		for _, name := range c.dueNames() {
			c.resolveOne(ctx, name)
		}
		timer.Reset(c.untilDue())
	}
}

func (c *Cluster) dueNames() (due []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for name, n := range c.names {
		if !n.due.After(now) {
			due = append(due, name)
		}
	}
	slices.Sort(due)
	return due
}

func (c *Cluster) untilDue() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait := resolveMax
	for _, n := range c.names {
		wait = min(wait, time.Until(n.due))
	}
	return max(wait, 0)
}

var errNoAddress = errors.New("the name has no address")

func (c *Cluster) resolveOne(ctx context.Context, name string) {
	limited, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, ttl, err := c.env.resolver().Resolve(limited, name)
	if err == nil && len(addrs) == 0 {
		err = errNoAddress
	}
	if ctx.Err() == nil {
		c.resolved(name, addrs, ttl, err)
	}
}

// resolved takes an answer. Without one the last good addresses stay.
func (c *Cluster) resolved(name string, addrs []netip.Addr, ttl time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.names[name]
	if n == nil || c.closed {
		return
	}
	if err != nil {
		n.due = time.Now().Add(resolveMin)
		if !n.bad {
			c.env.log().Warn("a backend's name cannot be resolved; its last good addresses are used, and it is asked again every few seconds",
				"cluster", c.id, "name", name, "addresses", len(n.addrs), "error", err)
		}
		n.bad = true
		return
	}
	if ttl <= 0 {
		ttl = resolveDefault
	}
	n.due, n.bad = time.Now().Add(min(max(ttl, resolveMin), resolveMax)), false
	addrs = tidy(addrs)
	if !slices.Equal(addrs, n.addrs) {
		n.addrs = addrs
		c.rebuild()
	}
}

// tidy sorts addresses and takes each once, so that a resolver's shuffling changes nothing.
func tidy(addrs []netip.Addr) []netip.Addr {
	list := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		list = append(list, a.Unmap())
	}
	slices.SortFunc(list, netip.Addr.Compare)
	list = slices.Compact(list)
	return list[:min(len(list), resolvedMax)]
}
