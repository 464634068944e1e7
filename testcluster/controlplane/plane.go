package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Names of the servers, of their logs, and of the sub-commands that run them.
const (
	nameEtcd              = "etcd"
	nameAPIServer         = "kube-apiserver"
	nameControllerManager = "kube-controller-manager"
	nameKubelet           = "kubelet"
	nameNetns             = "netns-init"
)

const (
	etcdTimeout        = 30 * time.Second
	commandStopTimeout = 10 * time.Second
	serverStopTimeout  = 3 * time.Second
	kubeletStopTimeout = 10 * time.Second // it ends its pods
	readyPoll          = 50 * time.Millisecond
	logTailBytes       = 4000
)

// plane is the running control plane.
type plane struct {
	options
	died     chan string // names of servers that ended unasked
	etcdTook time.Duration
	apiTook  time.Duration
	apiURL   string
	admin    *http.Client
	control  net.Listener
	mu       sync.Mutex // guards servers and what they point to
	servers  []*server  // in the order of their start
}

// server is one process. It dies with this one.
type server struct {
	name string
	argv []string
	env  []string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	want bool          // it is meant to run
}

func newPlane(o options) *plane {
	return &plane{options: o, died: make(chan string, 16)}
}

// start starts the servers in their order and answers once kube-apiserver is ready.
func (p *plane) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ports, err := freePorts(p.bind, 2)
	if err != nil {
		return err
	}
	etcdURL := "http://" + net.JoinHostPort(p.bind, ports[0])
	p.apiURL = "https://" + net.JoinHostPort(p.bind, ports[1])
	keys, err := writePKI(p.dir, p.bind, p.apiURL, p.kubeconfig, firstServiceIPs(p.serviceCIDR))
	if err != nil {
		return err
	}
	p.admin = keys.client()

	began := time.Now()
	if err := p.spawn(nameEtcd, []string{self, nameEtcd, filepath.Join(p.dir, "etcd"), etcdURL}); err != nil {
		return err
	}
	if err := p.waitOK(ctx, http.DefaultClient, etcdURL+"/health", etcdTimeout); err != nil {
		return fmt.Errorf("%s: %w", nameEtcd, err)
	}
	p.etcdTook, began = time.Since(began), time.Now()

	if err := p.spawn(nameAPIServer, append([]string{self, nameAPIServer}, p.apiServerFlags(etcdURL, ports[1])...)); err != nil {
		return err
	}
	if err := p.waitOK(ctx, p.admin, p.apiURL+"/readyz", p.timeout); err != nil {
		return fmt.Errorf("%s: %w", nameAPIServer, err)
	}
	p.apiTook = time.Since(began)
	if p.controllers != "" {
		if err := p.spawn(nameControllerManager, append([]string{self, nameControllerManager}, p.controllerFlags()...)); err != nil {
			return err
		}
	}
	if p.kubelet != "" {
		env := []string{"KUBECONFIG=" + p.kubeconfig}
		if ips := firstServiceIPs(p.serviceCIDR); os.Getenv(envNetns) != "" && len(ips) > 0 {
			env = append(env, "KUBERNETES_SERVICE_HOST="+ips[0].String(), "KUBERNETES_SERVICE_PORT="+ports[1])
		}
		if err := p.spawn(nameKubelet, strings.Fields(p.kubelet), env...); err != nil {
			return err
		}
	}
	return p.openControl()
}

func (p *plane) file(name string) string { return filepath.Join(p.dir, name) }

func (p *plane) apiServerFlags(etcdURL, port string) []string {
	bind := p.bind
	if os.Getenv(envNetns) != "" { // nobody else is in there, and pods come by another address
		bind = "0.0.0.0"
	}
	flags := []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=" + bind, "--secure-port=" + port,
		"--advertise-address=" + p.bind, "--endpoint-reconciler-type=none", // else it looks for a default route
		"--tls-cert-file=" + p.file("apiserver.crt"), "--tls-private-key-file=" + p.file("apiserver.key"),
		"--client-ca-file=" + p.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.file("sa.pub"), "--service-account-signing-key-file=" + p.file("sa.key"),
		"--service-cluster-ip-range=" + p.serviceCIDR,
		"--authorization-mode=RBAC",
		"--allow-privileged=true",
		"--kubelet-preferred-address-types=InternalIP", // for kubectl logs
		"--enable-priority-and-fairness=false",
		"--shutdown-delay-duration=0s",
		"--v=1",
	}
	return append(flags, strings.Fields(p.apiArgs)...)
}

func (p *plane) controllerFlags() []string {
	return []string{
		"--kubeconfig=" + p.file("controller-manager.kubeconfig"),
		"--secure-port=0", "--leader-elect=false",
		"--service-account-private-key-file=" + p.file("sa.key"), "--root-ca-file=" + p.file("ca.crt"),
		"--use-service-account-credentials=true", // without, its own user may create and delete next to nothing
		"--controllers=" + p.controllers,
		"--kube-api-qps=500", "--kube-api-burst=1000",
		"--min-resync-period=12h", "--v=1",
	}
}

// spawn starts a server whose end is watched.
func (p *plane) spawn(name string, argv []string, env ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &server{name: name, argv: argv, env: env}
	p.servers = append(p.servers, s)
	return p.launch(s)
}

// launch starts a server's process; the caller holds the lock.
func (p *plane) launch(s *server) error {
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if !p.verbose {
		log, err := os.OpenFile(p.file(s.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	cmd.SysProcAttr = ownGroup()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	done := make(chan struct{})
	s.cmd, s.done, s.want = cmd, done, true
	go func() {
		_ = cmd.Wait()
		p.mu.Lock()
		unasked := s.want && s.cmd == cmd
		p.mu.Unlock()
		close(done)
		if unasked {
			p.died <- s.name
		}
	}()
	return nil
}

// ownGroup puts a child in a process group of its own, which ends with this process.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func (p *plane) waitOK(ctx context.Context, c *http.Client, url string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := probe(ctx, c, url)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", last)
		case name := <-p.died:
			return fmt.Errorf("%s ended at start", name)
		case <-time.After(readyPoll):
		}
	}
}

func probe(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, logTailBytes)) // for the message only
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

// stop ends the servers, the last started first.
func (p *plane) stop() {
	if p.control != nil {
		_ = p.control.Close()
	}
	p.mu.Lock()
	servers := p.servers
	for _, s := range servers {
		s.want = false
	}
	p.mu.Unlock()
	for i := len(servers) - 1; i >= 0; i-- {
		s := servers[i]
		if s.cmd == nil {
			continue
		}
		limit := serverStopTimeout
		if s.name == nameKubelet {
			limit = kubeletStopTimeout
		}
		_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-s.done:
		case <-time.After(limit):
			_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
			<-s.done
		}
	}
}

// dumpLogs writes the ends of all logs, to tell why something failed.
func (p *plane) dumpLogs(w io.Writer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.servers {
		b, _ := os.ReadFile(p.file(s.name + ".log")) // none with -v
		if len(b) > logTailBytes {
			b = b[len(b)-logTailBytes:]
		}
		fmt.Fprintf(w, "---- %s, end of log ----\n%s\n", s.name, b)
	}
}

func freePorts(host string, n int) (ports []string, err error) {
	for range n {
		l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, err
		}
		defer l.Close() // not before all are found, else one may come twice
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports, nil
}
