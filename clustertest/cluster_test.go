//go:build cluster

package clustertest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodeAddress is the external address of the cluster's one node, on lo of the network namespace.
const nodeAddress = "198.51.100.1"

// missing is why no test can run; "": all can.
var missing string

func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("CONTROLPLANE_DIR") != "" { // the second start, inside
		os.Exit(m.Run())
	}
	switch err := enter(); {
	case testing.Short():
		missing = "it takes a control plane, which -short does not start"
	case err == nil:
		panic("the control plane has taken over, and is not here")
	case os.Getenv("SLUICE_KUBE") == "required":
		fmt.Fprintln(os.Stderr, "SLUICE_KUBE=required, but:", err)
		os.Exit(1)
	default:
		missing = err.Error()
	}
	os.Exit(m.Run())
}

// enter becomes the control plane, which starts this program again. It returns only when that cannot be.
func enter() error {
	if testing.Short() {
		return nil
	}
	bin, err := filepath.Abs("../bin")
	if err != nil {
		return err
	}
	program := func(name string) string { return filepath.Join(bin, name) }
	for _, name := range []string{"controlplane", "localkubelet", "kubectl", "echo", "helm"} {
		if _, err := os.Stat(program(name)); err != nil {
			return fmt.Errorf("bin/%s is not there: make test-cluster builds it (the first time takes long)", name)
		}
	}
	if err := namespacesWork(); err != nil {
		return err
	}
	sluice := os.Getenv("SLUICE_BIN")
	if sluice == "" {
		sluice = filepath.Join(os.TempDir(), fmt.Sprintf("sluice-clustertest-%d", os.Getuid()), "sluice")
		if err := os.MkdirAll(filepath.Dir(sluice), 0o755); err != nil {
			return err
		}
		build := exec.Command("go", "build", "-o", sluice, "..")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("go build: %w\n%s", err, out)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	kubelet := strings.Join([]string{program("localkubelet"), "--external-ip", nodeAddress, "--image", "echo=" + program("echo"),
		"--image", "sluice=" + sluice}, " ")
	argv := append([]string{program("controlplane"), "--netns", "--addr", nodeAddress + "/32", "--kubelet", kubelet, "--", self}, os.Args[1:]...)
	for name, value := range map[string]string{"SLUICE_BIN": sluice, "PATH": bin + ":" + os.Getenv("PATH")} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return syscall.Exec(argv[0], argv, os.Environ())
}

// namespacesWork tells whether a network and its mounts can be made here.
func namespacesWork() error {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("a network namespace cannot be made here: it takes root, or user namespaces for everybody: %w", err)
	}
	return nil
}

// Tests take turns with the API server: those that need it run side by side, then those that stop it, one by one. A kubelet or
// a controller that has missed it is slow to come back.
var (
	needing  sync.WaitGroup
	stopping sync.Mutex
)

// cluster skips a test that cannot run.
func cluster(t testing.TB) {
	t.Helper()
	if missing != "" {
		t.Skip(missing)
	}
	needing.Add(1)
	t.Cleanup(needing.Done)
}

// clusterAlone is cluster for a test that stops the API server: it waits for all others, which have begun by now.
func clusterAlone(t *testing.T) {
	t.Helper()
	if missing != "" {
		t.Skip(missing)
	}
	const alone = 2                                                                   // tests that wait here
	if n, _ := strconv.Atoi(flag.Lookup("test.parallel").Value.String()); n > alone { // else nobody else would get a turn
		t.Parallel()
		needing.Wait()
	}
	stopping.Lock()
	t.Cleanup(stopping.Unlock)
}

// kubectl runs kubectl and answers what it prints.
func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := tryKubectl("", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func tryKubectl(input string, args ...string) (string, error) {
	cmd := exec.Command("kubectl", args...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return strings.TrimSpace(out.String()), err
}

// apply applies manifests in a namespace.
func apply(t testing.TB, namespace, manifests string) {
	t.Helper()
	if _, err := tryKubectl(manifests, "apply", "-n", namespace, "-f", "-"); err != nil {
		t.Fatalf("%v\n%s", err, manifests)
	}
}

var serial atomic.Int64

// newNamespace makes a namespace for a test.
func newNamespace(t testing.TB) string {
	t.Helper()
	n := fmt.Sprintf("t%d-%d", os.Getpid(), serial.Add(1))
	namespaces := api().core.Namespaces()
	if _, err := namespaces.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = namespaces.Delete(context.Background(), n, metav1.DeleteOptions{}) })
	return n
}

// server kills or starts one of the control plane's servers.
func server(t testing.TB, verb, name string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(os.Getenv("CONTROLPLANE_DIR"), "control"))
	}}}
	resp, err := c.Post("http://control/"+verb+"/"+name, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s", verb, name, resp.Status, body)
	}
}

// echoApp is a Deployment of echo and its Service, both called name.
func echoApp(name string, replicas int) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers:
      - name: echo
        image: echo
        env: [{name: ECHO_NAME, value: %[1]s}, {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports: [{name: http, port: 8080, targetPort: 8080}]
`, name, replicas)
}

// rolledOut waits until a Deployment is what it should be.
func rolledOut(t testing.TB, namespace, what string) {
	t.Helper()
	kubectl(t, "rollout", "status", "-n", namespace, what, "--timeout=120s")
}

const patience = 60 * time.Second // the machine may be busy

// eventually waits for a condition; last tells what it saw last.
func eventually(t testing.TB, what string, is func() (ok bool, last string)) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		ok, last := is()
		if ok {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("it never came that %s; at last: %s", what, last)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reply is what echo answered, with the answer's status and header.
type reply struct {
	Status  int         `json:"-"`
	Header  http.Header `json:"-"`
	Name    string
	Pod     string
	Method  string
	Host    string
	Path    string
	Proto   string
	Headers http.Header
}

func (r reply) String() string { return fmt.Sprintf("%d from %s", r.Status, cmp.Or(r.Name, "nobody")) }

func readReply(resp *http.Response) (reply, error) {
	defer resp.Body.Close()
	r := reply{Status: resp.StatusCode, Header: resp.Header}
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.Header.Get("Content-Type") == "application/json" {
		err = json.Unmarshal(body, &r)
	}
	return r, err
}
