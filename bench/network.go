package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
)

// A network is where the proxies stand. Its zero value is the loopback device, on which the sender pays for the
// receiver's work. With --netns proxies live in a network namespace of their own, reached over a pair of veth devices:
// clients and origin are on this side, so every byte crosses the pair twice.
type network struct {
	namespace string // "": loopback
	device    string // this side's
}

// Addresses of the pair: from the range that RFC 2544 set aside for benchmarks. This side has one for the origin and
// as many more as clients leave from.
const (
	networkOrigin  = "198.18.0.1"
	networkProxy   = "198.18.0.254"
	networkPrefix  = 24
	networkSources = 2 // the last byte of the first address that clients leave from; on loopback too
)

// newNetwork makes the namespace and the devices; close takes them away. It needs root and ip(8).
func newNetwork(ctx context.Context) (network, error) {
	id := strconv.Itoa(os.Getpid())
	n := network{namespace: "bench-" + id, device: "bench" + id[max(0, len(id)-5):]}
	far := n.device + "p"
	steps := [][]string{
		{"netns", "add", n.namespace},
		{"link", "add", n.device, "type", "veth", "peer", "name", far, "netns", n.namespace},
		{"link", "set", n.device, "up"},
		{"-n", n.namespace, "addr", "add", cidr(networkProxy), "dev", far},
		{"-n", n.namespace, "link", "set", far, "up"},
		{"-n", n.namespace, "link", "set", "lo", "up"},
		// As on loopback: or ports in TIME_WAIT run out, and whoever connects then looks for one at length.
		{"netns", "exec", n.namespace, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_tw_reuse"},
		{"addr", "add", cidr(networkOrigin), "dev", n.device},
	}
	for i := range sources {
		steps = append(steps, []string{"addr", "add", cidr(n.source(i)), "dev", n.device})
	}
	for _, step := range steps {
		if printed, err := output(ctx, "ip", step...); err != nil {
			n.close()
			return network{}, fmt.Errorf("--netns: %w: %s (it needs root)", err, firstLine(printed))
		}
	}
	return n, nil
}

// close removes the namespace; the devices go with it, once the last process in it has ended.
func (n network) close() {
	if n.namespace != "" {
		_, _ = output(context.Background(), "ip", "link", "del", n.device)
		_, _ = output(context.Background(), "ip", "netns", "del", n.namespace)
	}
}

func cidr(address string) string { return fmt.Sprintf("%s/%d", address, networkPrefix) }

// proxy and origin are the addresses that these listen on.
func (n network) proxy() string  { return n.either(networkProxy) }
func (n network) origin() string { return n.either(networkOrigin) }

func (n network) either(address string) string {
	if n.namespace == "" {
		return loopback
	}
	return address
}

func (network) source(i int) string { return fmt.Sprintf("198.18.0.%d", networkSources+i) }

// enter makes a command run in the namespace. ip(8) becomes the command, under the same process id.
func (n network) enter(cmd *exec.Cmd) error {
	if n.namespace == "" {
		return nil
	}
	ip, err := exec.LookPath("ip")
	if err != nil {
		return err
	}
	cmd.Args = append([]string{ip, "netns", "exec", n.namespace, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = ip
	return nil
}

// sourceTowards is an address to leave from towards a proxy: one of several, as the ports of one would run out.
func sourceTowards(proxy string, i int) net.IP {
	last := byte(networkSources + i%sources)
	if address, err := netip.ParseAddrPort(proxy); err == nil && !address.Addr().IsLoopback() {
		return net.IPv4(198, 18, 0, last)
	}
	return net.IPv4(127, 0, 0, last)
}
