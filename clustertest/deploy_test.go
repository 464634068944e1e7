//go:build cluster

package clustertest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

// deployed is a variant of deploy/ as kustomize builds it. Its image is the program under test.
func deployed(t testing.TB, dir string) string {
	t.Helper()
	text := kubectl(t, "kustomize", "../"+dir)
	text = strings.ReplaceAll(text, "ghcr.io/sluiceproxy/sluice:latest", "sluice")
	return strings.ReplaceAll(text, "$(POD_NAMESPACE)", "sluice") // the tests' kubelet does not expand it
}

// TestDeployIsValid asks the real API server about every variant of deploy/, without keeping anything.
func TestDeployIsValid(t *testing.T) {
	cluster(t)
	for _, namespace := range []string{"sluice", "ingress-nginx"} { // what is namespaced needs it even for a dry run
		_, _ = tryKubectl("", "create", "namespace", namespace)
	}
	dryRun := func(manifests string) error {
		_, err := tryKubectl(manifests, "apply", "--server-side", "--dry-run=server", "--validate=strict", "--field-manager=test", "-f", "-")
		return err
	}
	for _, dir := range []string{"deploy", "deploy/nonroot", "deploy/ingress-nginx"} {
		text := kubectl(t, "kustomize", "../"+dir)
		if err := dryRun(text); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
		if err := dryRun(strings.Replace(text, "maxSurge:", "maxsurge:", 1)); err == nil {
			t.Errorf("%s: the API server takes a misspelt field, so this test proves nothing", dir)
		}
	}
	service, _, _ := strings.Cut(string(read(t, "../deploy/monitoring/servicemonitor.yaml")), "\n---\n") // the rest needs the operator
	if err := dryRun(service); err != nil {
		t.Errorf("deploy/monitoring: %v", err)
	}
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// right is one verb on one resource, in one rule of a role.
type right struct {
	kind           string // ClusterRole, Role
	rule, resource int
	verb           int
}

// roles are those of deploy/.
type roles struct {
	cluster rbacv1.ClusterRole
	own     rbacv1.Role
}

func deployedRoles(t testing.TB) (r roles) {
	t.Helper()
	for text := range strings.SplitSeq(kubectl(t, "kustomize", "../deploy"), "\n---\n") {
		var to any
		switch {
		case strings.Contains(text, "\nkind: ClusterRole\n"):
			to = &r.cluster
		case strings.Contains(text, "\nkind: Role\n"):
			to = &r.own
		default:
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(text), to); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// each calls f with every right there is.
func (r *roles) each(f func(right, rbacv1.PolicyRule)) {
	for kind, rules := range map[string][]rbacv1.PolicyRule{"ClusterRole": r.cluster.Rules, "Role": r.own.Rules} {
		for i, rule := range rules {
			for j := range rule.Resources {
				for k := range rule.Verbs {
					f(right{kind, i, j, k}, rule)
				}
			}
		}
	}
}

// without are the rules but for one right.
func without(rules []rbacv1.PolicyRule, x right) (list []rbacv1.PolicyRule) {
	for i, rule := range rules {
		if i != x.rule {
			list = append(list, rule)
			continue
		}
		for j, resource := range rule.Resources {
			one := rule
			one.Resources = []string{resource}
			if j == x.resource {
				one.Verbs = slices.Delete(slices.Clone(rule.Verbs), x.verb, x.verb+1)
			}
			list = append(list, one)
		}
	}
	return list
}

// lessRights is a ServiceAccount with the roles of deploy/, less one right. It answers a kubeconfig and the namespace.
func lessRights(t testing.TB, r roles, x *right) (kubeconfig, namespace string) {
	t.Helper()
	namespace = newNamespace(t)
	account, full := "sluice", r
	if x != nil && x.kind == "ClusterRole" {
		full.cluster.Rules = without(r.cluster.Rules, *x)
	}
	if x != nil && x.kind == "Role" {
		full.own.Rules = without(r.own.Rules, *x)
	}
	full.cluster.Name = namespace
	full.cluster.Labels, full.own.Labels, full.own.Namespace = nil, nil, namespace
	var text strings.Builder
	for _, o := range []any{full.cluster, full.own} {
		b, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "---\n%s", b)
	}
	apply(t, namespace, text.String())
	t.Cleanup(func() {
		_, _ = tryKubectl("", "delete", "clusterrole,clusterrolebinding", namespace, "--wait=false", "--ignore-not-found")
	})
	kubectl(t, "create", "serviceaccount", "-n", namespace, account)
	kubectl(t, "create", "clusterrolebinding", namespace, "--clusterrole="+namespace, "--serviceaccount="+namespace+":"+account)
	kubectl(t, "create", "rolebinding", "-n", namespace, account, "--role=sluice", "--serviceaccount="+namespace+":"+account)
	token := kubectl(t, "create", "token", "-n", namespace, account)
	server := kubectl(t, "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.server}")
	ca := kubectl(t, "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}")
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c,
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}],
users: [{name: u, user: {token: %s}}],
contexts: [{name: c, context: {cluster: c, user: u, namespace: %s}}]}`, server, ca, token, namespace)
	if err := os.WriteFile(kubeconfig, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig, namespace
}

// rightsSite uses every right: a route to a backend, settings, a Secret of another type than those that are watched, an
// annotation that is a Problem and so an Event, and a status.
const rightsSite = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: sluice}
data: {hsts: "false"}
---
apiVersion: v1
kind: Pod
metadata: {name: self, labels: {app: self}}
spec: {containers: [{name: c, image: nothing}]}
---
apiVersion: v1
kind: Secret
metadata: {name: rare}
type: example.org/rare
stringData: {tls.crt: nothing, tls.key: nothing}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations: {nginx.ingress.kubernetes.io/proxy-body-size: "%s"}
spec:
  ingressClassName: %s
  tls: [{hosts: [web.example], secretName: rare}]
  rules: [{host: web.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
`

// use runs Sluice as an account and answers what it was forbidden, as "verb resource".
func use(t *testing.T, kubeconfig, namespace string, settled func(log string) bool) (log string) {
	t.Helper()
	class := namespace
	apply(t, namespace, fmt.Sprintf(rightsSite, "bad", class))
	file := filepath.Join(t.TempDir(), "log")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ports := freePorts(t, 2)
	cmd := exec.Command(os.Getenv("SLUICE_BIN"), "--kubeconfig="+kubeconfig, "--ingress-class="+class, "--controller-class=example.org/"+class,
		"--configmap="+namespace+"/sluice", "--election-id=sluice", "--election-ttl=3", "--log-level=debug", "--loops=1",
		"--http-port="+ports[0], "--https-port="+ports[1], "--admin-address=")
	cmd.Env = append(os.Environ(), "POD_NAMESPACE="+namespace, "POD_NAME=self")
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	changed := false
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		log = string(read(t, file))
		if settled(log) {
			return log
		}
		if !changed && strings.Contains(log, "msg=serving") { // again, so that an Event is patched
			changed = true
			apply(t, namespace, fmt.Sprintf(rightsSite, "worse", class))
		}
	}
	return log
}

var forbidden = regexp.MustCompile(`cannot (\w+) resource \\?"([\w/]+)\\?"`)

// TestRightsAreEnough runs Sluice as the ServiceAccount of deploy/: nothing is forbidden it. TestRightsAreMinimal takes
// one right away at a time: each is missed.
func TestRightsAreEnough(t *testing.T) {
	cluster(t)
	kubeconfig, namespace := lessRights(t, deployedRoles(t), nil)
	began := time.Now()
	log := use(t, kubeconfig, namespace, func(log string) bool {
		return forbidden.MatchString(log) || time.Since(began) > 15*time.Second && strings.Contains(log, "msg=serving")
	})
	if m := forbidden.FindStringSubmatch(log); m != nil || !strings.Contains(log, "msg=serving") {
		t.Errorf("forbidden: %q; the log is\n%s", m, log)
	}
}

func TestRightsAreMinimal(t *testing.T) {
	cluster(t)
	all := deployedRoles(t)
	n := 0
	all.each(func(x right, rule rbacv1.PolicyRule) {
		n++
		verb, resource := rule.Verbs[x.verb], rule.Resources[x.resource]
		t.Run(strings.ReplaceAll(verb+" "+resource, "/", "."), func(t *testing.T) {
			kubeconfig, namespace := lessRights(t, all, &x)
			missed := func(log string) bool {
				for _, m := range forbidden.FindAllStringSubmatch(log, -1) {
					if m[1] == verb && m[2] == strings.SplitN(resource, "/", 2)[0] || m[1] == verb && m[2] == resource {
						return true
					}
				}
				return false
			}
			if log := use(t, kubeconfig, namespace, missed); !missed(log) {
				t.Errorf("nothing misses the right to %s %s; the log is\n%s", verb, resource, log)
			}
		})
	})
	if n < 15 {
		t.Errorf("there are only %d rights in deploy/", n)
	}
}

// ---- the DaemonSet

// echoingTunnels is a backend in this process that takes every upgrade and echoes.
func echoingTunnels(t *testing.T) (port int) {
	t.Helper()
	ln, err := net.Listen("tcp", nodeAddress+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				_, _ = io.Copy(c, br)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

const tunnelSite = `---
apiVersion: v1
kind: Service
metadata: {name: chat}
spec: {ports: [{name: main, port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: chat-1, labels: {kubernetes.io/service-name: chat}}
addressType: IPv4
endpoints: [{addresses: [%q]}]
ports: [{name: main, port: %d}]
`

// tunnel is a client's end of a WebSocket.
type tunnel struct {
	net.Conn
	reader *bufio.Reader
}

func openTunnel(t *testing.T, address, host string) *tunnel {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
	w := &tunnel{conn, bufio.NewReader(conn)}
	if answer, err := http.ReadResponse(w.reader, nil); err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("no upgrade: %v %v", answer, err)
	}
	return w
}

func (w *tunnel) echoes() error {
	_ = w.SetDeadline(time.Now().Add(patience))
	const text = "are you there?"
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(w.reader, b); err != nil || string(b) != text {
		return fmt.Errorf("%q, %w", b, err)
	}
	return nil
}

// askOnce sends requests to an address, each on a connection of its own, until the answer is called.
func askOnce(t *testing.T, address, host string, clients int) (stop func() (requests, failed int64)) {
	ctx, cancel := context.WithCancel(t.Context())
	var requests, failed atomic.Int64
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
				requests.Add(1)
				if err := askAlone(address, host); err != nil {
					if failed.Add(1) <= 5 {
						t.Errorf("a request failed: %v", err)
					}
				}
			}
		})
	}
	return func() (int64, int64) {
		cancel()
		all.Wait()
		return requests.Load(), failed.Load()
	}
}

func askAlone(address, host string) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}

// TestDaemonSetRollOut applies deploy/ and rolls its DaemonSet again and again on the one node, whose network its pods
// have: no request fails, each on a connection of its own, and no WebSocket is cut.
func TestDaemonSetRollOut(t *testing.T) {
	cluster(t)
	text := strings.Replace(deployed(t, "deploy"), "- --reuse-port\n", "- --reuse-port\n        - --allow-backend-cidr="+nodeAddress+"/32\n        - --loops=1\n", 1)
	if _, err := tryKubectl(text, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := tryKubectl("", "logs", "-n", "sluice", "daemonset/sluice")
			pods, _ := tryKubectl("", "get", "pods", "-n", "sluice", "-o", "wide")
			t.Logf("%s\n%s", pods, logs)
		}
		_, _ = tryKubectl(text, "delete", "--wait=false", "-f", "-")
		_, _ = tryKubectl("", "delete", "pods", "-n", "sluice", "--all", "--force", "--grace-period=0")
	})
	kubectl(t, "rollout", "status", "-n", "sluice", "daemonset/sluice", "--timeout=120s")
	namespace := newNamespace(t)
	routes := "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  ingressClassName: sluice\n  rules:\n" +
		rule("web.example", "/", "web") + rule("chat.example", "/", "chat")
	apply(t, namespace, echoApp("web", 2)+routes+fmt.Sprintf(tunnelSite, nodeAddress, echoingTunnels(t)))
	rolledOut(t, namespace, "deployment/web")
	const address = nodeAddress + ":80"
	for _, host := range []string{"web.example", "chat.example"} {
		eventually(t, host+" is served on the node's port 80", func() (bool, string) {
			if err := askAlone(address, host); err != nil && err.Error() != "status 502" { // the echo answers nothing but upgrades
				return false, err.Error()
			}
			return true, ""
		})
	}
	var tunnels []*tunnel
	for range 100 {
		tunnels = append(tunnels, openTunnel(t, address, "chat.example"))
	}
	stop := askOnce(t, address, "web.example", 8)
	pods := map[string]bool{}
	for n := range 5 {
		kubectl(t, "set", "env", "-n", "sluice", "daemonset/sluice", fmt.Sprint("ROLL=", n))
		kubectl(t, "rollout", "status", "-n", "sluice", "daemonset/sluice", "--timeout=120s")
		pods[kubectl(t, "get", "pods", "-n", "sluice", "-o", "jsonpath={.items[*].metadata.name}")] = true
	}
	requests, failed := stop()
	cut := 0
	for _, w := range tunnels {
		if err := w.echoes(); err != nil {
			cut++
			t.Log(err)
		}
	}
	t.Logf("5 roll-outs, %d requests on as many connections: %d failed; %d of %d WebSockets cut", requests, failed, cut, len(tunnels))
	if failed > 0 || cut > 0 || requests < 100 || len(pods) < 5 {
		t.Errorf("%d of %d requests failed, %d WebSockets were cut, pods were %v", failed, requests, cut, pods)
	}
}
