//go:build cluster

package clustertest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// proxy is Sluice as a process beside the cluster, with the rights of its ServiceAccount alone.
type proxy struct {
	testing.TB
	class string // its own ingress class
	cmd   *exec.Cmd
	ended chan struct{}
	log   *os.File
	http  string // HOST:PORT
	https string
	admin string
	*http.Client
}

var rightsOnce sync.Once

// account makes a ServiceAccount with Sluice's rights and answers a kubeconfig of it.
func account(t testing.TB) string {
	t.Helper()
	const namespace, name = "default", "sluice"
	rightsOnce.Do(func() {
		kubectl(t, "apply", "-n", namespace, "-f", "testdata/rbac.yaml")
		kubectl(t, "create", "serviceaccount", "-n", namespace, name)
		kubectl(t, "create", "clusterrolebinding", name, "--clusterrole=sluice", "--serviceaccount="+namespace+":"+name)
		kubectl(t, "create", "rolebinding", "-n", namespace, name, "--role=sluice", "--serviceaccount="+namespace+":"+name)
	})
	token := kubectl(t, "create", "token", "-n", namespace, name, "--duration=8h")
	server := kubectl(t, "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}")
	ca := kubectl(t, "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}")
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}],
users: [{name: u, user: {token: %s}}],
contexts: [{name: c, context: {cluster: c, user: u, namespace: %s}}]}`, server, ca, token, namespace)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// startProxy starts Sluice for an ingress class of its own and waits until it is ready.
func startProxy(t testing.TB, flags ...string) *proxy {
	t.Helper()
	return launchProxy(t, fmt.Sprintf("class-%d-%d", os.Getpid(), serial.Add(1)), flags...)
}

func launchProxy(t testing.TB, class string, flags ...string) *proxy {
	t.Helper()
	p := launch(t, account(t), class, flags...)
	eventually(t, "Sluice is ready", func() (bool, string) { return p.ready(), p.logs() })
	return p
}

// launch starts Sluice and does not wait.
func launch(t testing.TB, kubeconfig, class string, flags ...string) *proxy {
	t.Helper()
	p := &proxy{TB: t, class: class, ended: make(chan struct{})}
	ports := freePorts(t, 3)
	p.http, p.https, p.admin = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[1], "127.0.0.1:"+ports[2]
	var err error
	if p.log, err = os.Create(filepath.Join(t.TempDir(), "sluice.log")); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Getenv("SLUICE_BIN"), append([]string{"--kubeconfig=" + kubeconfig, "--ingress-class=" + p.class,
		"--controller-class=example.org/" + p.class, "--election-id=" + p.class, "--election-ttl=3", "--log-level=debug", "--loops=1",
		"--http-port=" + ports[0], "--https-port=" + ports[1], "--admin-address=" + p.admin}, flags...)...)
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	p.Client = p.newClient()
	return p
}

// ready is what /readyz says.
func (p *proxy) ready() bool {
	select {
	case <-p.ended:
		p.Fatalf("Sluice ended: %v\n%s", p.cmd.ProcessState, p.logs())
	default:
	}
	resp, err := http.Get("http://" + p.admin + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// stop ends the process; a test that failed shows its log.
func (p *proxy) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Error("Sluice did not end on SIGTERM")
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	if p.Failed() {
		p.Logf("the log of Sluice:\n%s", p.logs())
	}
}

func (p *proxy) logs() string {
	b, _ := os.ReadFile(p.log.Name())
	return string(b[max(0, len(b)-20_000):])
}

// newClient is a client whose connections go to the proxy, whatever the URL says.
func (p *proxy) newClient() *http.Client {
	return &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				to := p.http
				if strings.HasSuffix(address, ":443") {
					to = p.https
				}
				return new(net.Dialer).DialContext(ctx, network, to)
			},
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // tests look at the certificate themselves
		},
	}
}

// ask sends a request.
func (p *proxy) ask(method, url string) (reply, error) {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return reply{}, err
	}
	resp, err := p.Do(req)
	if err != nil {
		return reply{}, err
	}
	return readReply(resp)
}

// serves waits until a URL is answered as wanted, and answers how long that took.
func (p *proxy) serves(url string, wanted func(reply) bool) time.Duration {
	p.Helper()
	return eventually(p, url+" is answered as wanted", func() (bool, string) {
		r, err := p.ask(http.MethodGet, url)
		if err != nil {
			return false, err.Error()
		}
		return wanted(r), r.String()
	})
}

func from(name string) func(reply) bool {
	return func(r reply) bool { return r.Status == http.StatusOK && r.Name == name }
}

func status(code int) func(reply) bool {
	return func(r reply) bool { return r.Status == code }
}

// ingress is a manifest of an Ingress of the proxy's class; rest is the remainder of its spec, indented by two blanks.
func (p *proxy) ingress(name, rest string) string {
	return fmt.Sprintf("---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: %s}\nspec:\n  ingressClassName: %s\n%s\n", name, p.class, rest)
}

// rule is a line of spec.rules with one Prefix path.
func rule(host, path, service string) string {
	return fmt.Sprintf("  - {host: %q, http: {paths: [{path: %q, pathType: Prefix, backend: {service: {name: %s, port: {number: 8080}}}}]}}\n",
		host, path, service)
}

// metric is the value of a metric, by the beginning of its line.
func (p *proxy) metric(begins string) string {
	p.Helper()
	resp, err := http.Get("http://" + p.admin + "/metrics")
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if value, ok := strings.CutPrefix(line, begins); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// load asks a URL all the time, over so many connections, until the answer is called, which tells how it went.
func (p *proxy) load(url string, connections int) (stop func() (requests, failed int64, example string)) {
	ctx, cancel := context.WithCancel(context.Background())
	var requests, failed atomic.Int64
	var example atomic.Value
	example.Store("")
	var all sync.WaitGroup
	for range connections {
		client := p.newClient()
		all.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Get(url)
				if err == nil {
					var r reply
					if r, err = readReply(resp); err == nil && r.Status != http.StatusOK {
						err = fmt.Errorf("%v %v", r, r.Header)
					}
				}
				requests.Add(1)
				if err != nil {
					failed.Add(1)
					example.Store(err.Error())
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	return func() (int64, int64, string) {
		cancel()
		all.Wait()
		return requests.Load(), failed.Load(), example.Load().(string)
	}
}

func freePorts(t testing.TB, n int) (ports []string) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		ports = append(ports, port)
	}
	return ports
}
