package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// commandHold is the sub-command that keeps a pod's network namespace alive.
const commandHold = "network-hold"

const bridgeName = "pods0"

// podNetwork is a bridge that has the gateways' addresses; a pod is a veth on it.
type podNetwork struct {
	bridge             *netlink.Bridge
	gateway4, gateway6 netip.Prefix
	links              atomic.Int64

	mu   sync.Mutex
	used map[netip.Addr]bool
	last netip.Addr
}

func newPodNetwork(network4, network6 string) (*podNetwork, error) {
	p4, err := netip.ParsePrefix(network4)
	if err != nil {
		return nil, err
	}
	n := &podNetwork{used: map[netip.Addr]bool{}}
	n.gateway4 = netip.PrefixFrom(p4.Addr().Next(), p4.Bits())
	n.last = n.gateway4.Addr()
	if network6 != "" {
		p6, err := netip.ParsePrefix(network6)
		if err != nil {
			return nil, err
		}
		n.gateway6 = netip.PrefixFrom(p6.Addr().Next(), p6.Bits())
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	n.bridge = &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(n.bridge); errors.Is(err, unix.EEXIST) { // of a kubelet before this one
		if err = netlink.LinkDel(n.bridge); err == nil {
			err = netlink.LinkAdd(n.bridge)
		}
		if err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, fmt.Errorf("bridge: %w (run under controlplane --netns)", err)
	}
	for _, p := range []netip.Prefix{n.gateway4, n.gateway6} {
		if p.IsValid() {
			if err := netlink.AddrAdd(n.bridge, address(p)); err != nil {
				return nil, fmt.Errorf("bridge address %v: %w", p, err)
			}
		}
	}
	return n, netlink.LinkSetUp(n.bridge)
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // usable at once
	}
	return a
}

// allocate hands out addresses in turn, so that a freed one does not come again at once.
func (n *podNetwork) allocate() (a4, a6 netip.Addr, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for range 1 << 16 {
		n.last = n.last.Next()
		if !n.gateway4.Masked().Contains(n.last) {
			n.last = n.gateway4.Addr().Next()
		}
		b := n.last.As4()
		if n.used[n.last] || b[3] == 0 || b[3] == 255 {
			continue
		}
		n.used[n.last] = true
		if n.gateway6.IsValid() {
			b6 := n.gateway6.Masked().Addr().As16()
			copy(b6[12:], b[:])
			a6 = netip.AddrFrom16(b6)
		}
		return n.last, a6, nil
	}
	return a4, a6, errors.New("no pod address is left")
}

func (n *podNetwork) release(a netip.Addr) {
	n.mu.Lock()
	delete(n.used, a)
	n.mu.Unlock()
}

// forkLock keeps processes that are made in new namespaces from racing each other.
var forkLock sync.Mutex

func startLocked(c *exec.Cmd) error {
	forkLock.Lock()
	defer forkLock.Unlock()
	return c.Start()
}

// sandbox starts the process that holds a pod's network namespace, and wires it to the bridge.
func (n *podNetwork) sandbox(a4, a6 netip.Addr) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{commandHold, netip.PrefixFrom(a4, n.gateway4.Bits()).String(), n.gateway4.Addr().String()}
	if a6.IsValid() {
		args = append(args, netip.PrefixFrom(a6, n.gateway6.Bits()).String(), n.gateway6.Addr().String())
	}
	cmd := exec.Command(self, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := startLocked(cmd); err != nil {
		return nil, err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "p" + strconv.FormatInt(n.links.Add(1), 10)
	attributes.MasterIndex = n.bridge.Attrs().Index
	attributes.Flags = net.FlagUp
	err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsPid(cmd.Process.Pid)})
	if err == nil {
		_, err = in.Write([]byte("go\n"))
	}
	line := ""
	if err == nil {
		line, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil || line != "ok\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, fmt.Errorf("%s: %w", line, errors.Join(err, errors.New("the namespace is not wired")))
	}
	go func() { _ = cmd.Wait() }()
	return cmd, nil
}

// holdNetwork is the far side: it sets addresses and routes, given in pairs of network and gateway, and keeps the
// namespace alive until the kubelet goes.
func holdNetwork(args []string) error {
	in := bufio.NewReader(os.Stdin)
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	if err := wire(args); err != nil {
		fmt.Println(err)
		return err
	}
	fmt.Println("ok")
	_, _ = in.ReadString('\n')
	return nil
}

func wire(args []string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	for i := 0; i < len(args); i += 2 {
		p, err := netip.ParsePrefix(args[i])
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(eth, address(p)); err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return err
	}
	for i := 1; i < len(args); i += 2 {
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.ParseIP(args[i])}); err != nil {
			return fmt.Errorf("route via %s: %w", args[i], err)
		}
	}
	return nil
}
