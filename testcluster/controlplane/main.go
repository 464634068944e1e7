// Command controlplane runs a real Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager) as plain
// local processes on loopback, for tests. It needs no container engine, no image and no downloaded release: the servers
// are linked into this one program from their Go modules, and it starts itself once for each under another name.
//
//	controlplane                          run until SIGINT or SIGTERM, print the kubeconfig's path
//	controlplane -- go test ./...         run the command with KUBECONFIG set, then stop
//	controlplane --netns --kubelet 'bin/localkubelet --image echo=bin/echo' -- bash
//
// With --netns everything runs in a new network namespace (and, for a user who is not root, a new user namespace): ports
// 80 and 443 are free there, and pods have addresses of their own, which EndpointSlices need, since the API refuses
// loopback.
//
// The command finds in $CONTROLPLANE_DIR the servers' logs and the socket "control", over which it can kill a server and
// start it again; see control.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case nameEtcd:
			os.Exit(runEtcd(os.Args[2:]))
		case nameAPIServer:
			os.Exit(runAPIServer(os.Args[2:]))
		case nameControllerManager:
			os.Exit(runControllerManager(os.Args[2:]))
		case nameNetns:
			os.Exit(enterNetns(os.Args[2:]))
		}
	}
	os.Exit(up(os.Args[1:]))
}

// controllersDefault are those that tests of an ingress proxy want.
var controllersDefault = strings.Join([]string{
	"endpoints-controller", "endpointslice-controller", "endpointslice-mirroring-controller",
	"serviceaccount-controller", "serviceaccount-token-controller", "root-ca-certificate-publisher-controller",
	"namespace-controller", "garbage-collector-controller", "clusterrole-aggregation-controller",
	"deployment-controller", "replicaset-controller", "daemonset-controller", "disruption-controller",
}, ",")

type options struct {
	dir         string
	kubeconfig  string
	bind        string
	serviceCIDR string
	controllers string
	kubelet     string
	apiArgs     string
	addresses   string
	netns       bool
	keep        bool
	verbose     bool
	timeout     time.Duration
	command     []string
}

func parseOptions(args []string) options {
	var o options
	f := flag.NewFlagSet("controlplane", flag.ExitOnError)
	f.StringVar(&o.dir, "dir", "", "state directory (default: a new temporary one, removed at the end)")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "where to write the admin's kubeconfig (default DIR/kubeconfig)")
	f.StringVar(&o.bind, "bind", "127.0.0.1", "address to listen on")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16,fd00:10:96::/112", "addresses of Services")
	f.StringVar(&o.controllers, "controllers", controllersDefault, "controllers of kube-controller-manager; empty: do not run it")
	f.StringVar(&o.kubelet, "kubelet", "", "command line of a kubelet to run beside it, with KUBECONFIG set")
	f.StringVar(&o.apiArgs, "apiserver-args", "", "further flags of kube-apiserver, separated by blanks")
	f.StringVar(&o.addresses, "addr", "", "with --netns: further networks of lo, as 198.51.100.1/24, separated by commas")
	f.BoolVar(&o.netns, "netns", false, "run in a new network namespace")
	f.BoolVar(&o.keep, "keep", false, "keep the state directory")
	f.BoolVar(&o.verbose, "v", false, "the servers' logs go to standard error instead of DIR/*.log")
	f.DurationVar(&o.timeout, "start-timeout", 2*time.Minute, "how long kube-apiserver may take to be ready")
	_ = f.Parse(args) // ExitOnError
	o.command = f.Args()
	return o
}

// up is the whole program: start, run the command or wait, stop. It answers the exit status.
func up(args []string) int {
	o := parseOptions(args)
	if o.netns {
		return inNetns(args, o.addresses)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	remove, err := makeDir(&o)
	if err != nil {
		return fail(err)
	}
	defer remove()

	began := time.Now()
	p := newPlane(o)
	defer p.stop()
	if err := p.start(ctx); err != nil {
		p.dumpLogs(os.Stderr)
		return fail(err)
	}
	fmt.Fprintf(os.Stderr, "controlplane: ready in %v (etcd %v, kube-apiserver %v)\n", time.Since(began).Round(time.Millisecond),
		p.etcdTook.Round(time.Millisecond), p.apiTook.Round(time.Millisecond))

	if len(o.command) > 0 {
		return p.runCommand(ctx)
	}
	fmt.Println(o.kubeconfig)
	select {
	case <-ctx.Done():
		return 0
	case name := <-p.died:
		p.dumpLogs(os.Stderr)
		return fail(fmt.Errorf("%s ended", name))
	}
}

// makeDir makes the state directory, in memory where possible. remove removes what nobody wants to keep.
func makeDir(o *options) (remove func(), err error) {
	remove = func() {}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp(sharedMemory(), "controlplane-"); err != nil {
			return remove, err
		}
		if !o.keep {
			remove = func() { _ = os.RemoveAll(o.dir) }
		}
	} else if err = os.MkdirAll(o.dir, 0o700); err != nil {
		return remove, err
	}
	if o.dir, err = filepath.Abs(o.dir); err == nil && o.kubeconfig == "" {
		o.kubeconfig = filepath.Join(o.dir, "kubeconfig")
	}
	return remove, err
}

// sharedMemory is where etcd's files cost no disk; "": the usual directory of temporary files.
func sharedMemory() string {
	const dir = "/dev/shm"
	f, err := os.CreateTemp(dir, "probe-")
	if err != nil {
		return ""
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	return dir
}

// runCommand runs the command beside the servers and answers its exit status. A server that ends unasked ends it.
func (p *plane) runCommand(ctx context.Context) int {
	cmd := exec.Command(p.command[0], p.command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig, "CONTROLPLANE_DIR="+p.dir)
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		select {
		case err = <-done:
		case <-time.After(commandStopTimeout):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			err = <-done
		}
	case name := <-p.died:
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
		<-done
		p.dumpLogs(os.Stderr)
		return fail(fmt.Errorf("%s ended", name))
	}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "controlplane:", err)
	return 1
}
