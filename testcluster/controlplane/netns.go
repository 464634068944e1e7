package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
)

// inNetns starts this program again, with the same flags less --netns, in a new network namespace.
func inNetns(args []string, addresses string) int {
	self, err := os.Executable()
	if err != nil {
		return fail(err)
	}
	cmd := exec.Command(self, append([]string{nameNetns, addresses}, withoutNetns(args)...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	if err := cmd.Start(); err != nil {
		return fail(fmt.Errorf("a new network namespace needs root or unprivileged user namespaces: %w", err))
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		for range signals {
			_ = cmd.Process.Signal(syscall.SIGTERM)
		}
	}()
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

// withoutNetns takes the flag out of the arguments; what follows "--" is the command's.
func withoutNetns(args []string) []string {
	for i, a := range args {
		switch a {
		case "--":
			return args
		case "--netns", "-netns", "--netns=true", "-netns=true":
			return append(append([]string{}, args[:i]...), args[i+1:]...)
		}
	}
	return args
}

// enterNetns is that second start: it brings lo up, adds the addresses and goes on.
func enterNetns(args []string) int {
	addresses := strings.Split(args[0], ",")
	for _, ip := range firstServiceIPs(parseOptions(args[1:]).serviceCIDR) {
		if ip.To4() != nil { // pods find the API server there
			addresses = append(addresses, ip.String()+"/32")
		}
	}
	if err := setUpLoopback(addresses); err != nil {
		return fail(fmt.Errorf("lo: %w", err))
	}
	// Pods reach each other over a bridge without it; where /proc is read-only, only hosts beyond are out of reach.
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
	if err := os.Setenv(envNetns, "1"); err != nil {
		return fail(err)
	}
	return up(args[1:])
}

// envNetns tells up that the network namespace is its own.
const envNetns = "CONTROLPLANE_NETNS"

func setUpLoopback(addresses []string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, one := range addresses {
		if one == "" {
			continue
		}
		a, err := netlink.ParseAddr(one)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, a); err != nil {
			return err
		}
	}
	return nil
}
