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
	"strconv"
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
	log   *os.File // what it says
	asked *os.File // its access log
	http  string   // HOST:PORT
	https string
	admin string
	*http.Client
}

// startProxy starts Sluice for an ingress class of its own and waits until it is ready.
func startProxy(t testing.TB, flags ...string) *proxy {
	t.Helper()
	p := launch(t, newAccount(t), flags...)
	eventually(t, "Sluice is ready", func() (bool, string) { return p.ready(), p.logs() })
	return p
}

// launch starts Sluice as an account and does not wait.
func launch(t testing.TB, a account, flags ...string) *proxy {
	t.Helper()
	p := &proxy{TB: t, class: a.namespace, ended: make(chan struct{})}
	at := freePorts(3)
	p.http, p.https, p.admin = "127.0.0.1:"+at[0], "127.0.0.1:"+at[1], "127.0.0.1:"+at[2]
	var err error
	if p.log, err = os.Create(filepath.Join(t.TempDir(), "sluice.log")); err != nil {
		t.Fatal(err)
	}
	if p.asked, err = os.Create(filepath.Join(t.TempDir(), "access.log")); err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.Command(os.Getenv("SLUICE_BIN"), append([]string{"--kubeconfig=" + a.kubeconfig, "--ingress-class=" + p.class,
		"--controller-class=" + controllerOf(p.class), "--election-id=sluice", "--election-ttl=3", "--log-level=debug", "--loops=1",
		"--http-port=" + at[0], "--https-port=" + at[1], "--admin-address=" + p.admin}, flags...)...)
	p.cmd.Stderr = p.log
	p.cmd.Stdout = p.asked
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
		p.Logf("the log of Sluice:\n%s\nrequests that it answered by an error of a backend's:\n%s", p.logs(), p.unanswered())
	}
}

// unanswered are the last lines of the access log with 502, 503 or 504.
func (p *proxy) unanswered() string {
	var lines []string
	for line := range strings.Lines(read(p, p.asked.Name())) {
		if strings.Contains(line, `" 502 `) || strings.Contains(line, `" 503 `) || strings.Contains(line, `" 504 `) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

func (p *proxy) logs() string {
	b, _ := os.ReadFile(p.log.Name())
	return string(b[max(0, len(b)-20_000):])
}

// newClient is a client whose connections go to the proxy, whatever the URL says.
func (p *proxy) newClient() *http.Client {
	return &http.Client{
		Timeout:       patience,
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

// lookTimeout is how long a look at what is served may take: the answer may wait for a backend that has just gone.
const lookTimeout = time.Second

// ask sends a request.
func (p *proxy) ask(method, url string) (reply, error) { return p.askWithin(patience, method, url) }

func (p *proxy) askWithin(limit time.Duration, method, url string) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
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
		r, err := p.askWithin(lookTimeout, http.MethodGet, url)
		if err != nil {
			return false, err.Error()
		}
		return wanted(r), r.String()
	})
}

// reaches waits until so many pods have answered. A Deployment is called rolled out as soon as its pods are ready, which is before
// the EndpointSlices tell of them: until then nobody can be sent to them, and may have no one left when others go.
func (p *proxy) reaches(url string, pods int) {
	p.Helper()
	seen := map[string]bool{}
	eventually(p, fmt.Sprintf("%d pods answer %s", pods, url), func() (bool, string) {
		if r, err := p.askWithin(lookTimeout, http.MethodGet, url); err == nil && r.Status == http.StatusOK {
			seen[r.Pod] = true
		}
		return len(seen) >= pods, fmt.Sprint(seen)
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

// ports counts up from a range that neither the kernel nor anybody else in the network namespace hands out.
var ports atomic.Int64

func freePorts(n int) (list []string) {
	const first = 20_000
	for range n {
		list = append(list, strconv.FormatInt(first+ports.Add(1), 10))
	}
	return list
}
