//go:build cluster

package clustertest

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A Deployment is scaled 3→1→5 and rolled by the real controllers while requests go on: none fails.
func TestRolloutUnderLoad(t *testing.T) {
	cluster(t)
	t.Parallel()
	p := startProxy(t)
	namespace := newNamespace(t)
	apply(t, namespace, echoApp("web", 3)+p.ingress("web", "  rules:\n"+rule("web.example", "/", "web")))
	rolledOut(t, namespace, "deployment/web")
	p.serves("http://web.example/", from("web"))
	p.reaches("http://web.example/", 3)
	stop := p.load("http://web.example/", 8)
	seen := map[string]bool{}
	for _, replicas := range []int{1, 5} {
		kubectl(t, "scale", "-n", namespace, "deployment/web", fmt.Sprint("--replicas=", replicas))
		rolledOut(t, namespace, "deployment/web")
		eventually(t, fmt.Sprint("there are ", replicas, " pods"), func() (bool, string) {
			pods := strings.Fields(kubectl(t, "get", "pods", "-n", namespace, "-l", "app=web", "-o", "name"))
			return len(pods) == replicas, fmt.Sprint(pods)
		})
		p.reaches("http://web.example/", replicas)
	}
	old := kubectl(t, "get", "pods", "-n", namespace, "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
	kubectl(t, "rollout", "restart", "-n", namespace, "deployment/web")
	rolledOut(t, namespace, "deployment/web")
	eventually(t, "all old pods have gone", func() (bool, string) {
		now := kubectl(t, "get", "pods", "-n", namespace, "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
		for _, pod := range strings.Fields(old) {
			if strings.Contains(now, pod) {
				return false, now
			}
		}
		return true, now
	})
	for range 50 {
		if r, err := p.ask("GET", "http://web.example/"); err == nil {
			seen[r.Pod] = true
		}
	}
	requests, failed, example := stop()
	t.Logf("%d requests, %d failed, %d pods at the end", requests, failed, len(seen))
	if failed > 0 || requests < 100 {
		t.Errorf("%d of %d requests failed, such as: %s", failed, requests, example)
	}
	for pod := range seen {
		if strings.Contains(old, pod) {
			t.Errorf("pod %s has gone and answers", pod)
		}
	}
}

// kube-apiserver is killed while requests go on, and started again: no request fails, and changes made after are followed.
// $SLUICE_OUTAGE says for how long.
func TestAPIServerOutage(t *testing.T) {
	clusterAlone(t)
	outage, err := time.ParseDuration(cmp.Or(os.Getenv("SLUICE_OUTAGE"), "5s"))
	if err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, "--publish-status-address="+nodeAddress)
	namespace := newNamespace(t)
	apply(t, namespace, echoApp("web", 2)+p.ingress("web", "  rules:\n"+rule("outage.example", "/", "web")))
	rolledOut(t, namespace, "deployment/web")
	p.serves("http://outage.example/", from("web"))
	stop := p.load("http://outage.example/", 8)
	server(t, "kill", "kube-apiserver")
	time.Sleep(outage)
	server(t, "start", "kube-apiserver")
	eventually(t, "kube-apiserver is back", func() (bool, string) {
		_, err := tryKubectl("", "get", "--raw", "/readyz")
		return err == nil, fmt.Sprint(err)
	})
	eventually(t, "a change can be made", func() (bool, string) {
		_, err := tryKubectl(p.ingress("late", "  rules:\n"+rule("late.example", "/", "web")), "apply", "-n", namespace, "-f", "-")
		return err == nil, fmt.Sprint(err)
	})
	took := p.serves("http://late.example/", from("web"))
	awaitAddress(t, namespace, "late", nodeAddress)
	requests, failed, example := stop()
	t.Logf("away for %v: %d requests, %d failed; a change after it took %v", outage, requests, failed, took.Round(time.Millisecond))
	if failed > 0 {
		t.Errorf("%d of %d requests failed, such as: %s", failed, requests, example)
	}
	for _, line := range []string{"the API server does not answer: what it said last is served on", "the API server answers"} {
		if !strings.Contains(read(t, p.log.Name()), line) { // all of it: much was logged since
			t.Errorf("the log does not say %q", line)
		}
	}
}

// Sluice starts before the API server: it says so, is not ready, and works when the server is there.
func TestStartsBeforeTheAPIServer(t *testing.T) {
	clusterAlone(t)
	a := newAccount(t)
	server(t, "kill", "kube-apiserver")
	p := launch(t, a)
	eventually(t, "the log tells", func() (bool, string) {
		return strings.Contains(p.logs(), "nothing is served before it has"), p.logs()
	})
	if p.ready() {
		t.Error("it is ready without an API server")
	}
	server(t, "start", "kube-apiserver")
	eventually(t, "Sluice is ready", func() (bool, string) { return p.ready(), p.logs() })
}

// Of two replicas in pods one writes the statuses. It is deleted, then killed: the other takes over, and the status is
// right throughout.
func TestTwoReplicas(t *testing.T) {
	cluster(t)
	t.Parallel()
	namespace := newAccount(t).namespace
	class := namespace
	apply(t, namespace, fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sluice}
spec:
  replicas: 2
  selector: {matchLabels: {app: sluice}}
  template:
    metadata: {labels: {app: sluice}}
    spec:
      serviceAccountName: sluice
      terminationGracePeriodSeconds: 20
      containers:
      - name: sluice
        image: sluice
        args: [--ingress-class=%s, --controller-class=example.org/%[1]s, --election-id=sluice, --election-ttl=3, --admin-address=:10254, --loops=1]
        env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        readinessProbe: {httpGet: {path: /readyz, port: 10254}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 2}}} # so that each pod knows which others end, too
`, class))
	p := &proxy{TB: t, class: class}
	apply(t, namespace, p.ingress("web", "  rules:\n"+rule("replicas.example", "/", "web")))
	rolledOut(t, namespace, "deployment/sluice")
	awaitAddress(t, namespace, "web", nodeAddress)

	wrong := watchAddresses(t, namespace, "web", nodeAddress)
	leader := leaderOf(t, namespace)
	kubectl(t, "delete", "pod", "-n", namespace, leader, "--wait=false")
	next := awaitLeader(t, namespace, leader)
	kubectl(t, "delete", "pod", "-n", namespace, next, "--grace-period=0", "--force", "--wait=false")
	awaitLeader(t, namespace, next)
	apply(t, namespace, p.ingress("late", "  rules:\n"+rule("late.example", "/", "web")))
	awaitAddress(t, namespace, "late", nodeAddress)
	if seen := wrong(); seen != "" {
		t.Errorf("the status was %s", seen)
	}
	kubectl(t, "scale", "-n", namespace, "deployment/sluice", "--replicas=0")
	awaitAddress(t, namespace, "web", "")
}

// leaderOf is the pod that the Lease names.
func leaderOf(t testing.TB, namespace string) string {
	t.Helper()
	holder := kubectl(t, "get", "lease", "-n", namespace, "sluice", "-o", "jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder, "_")
	return pod
}

func awaitLeader(t testing.TB, namespace, other string) (pod string) {
	t.Helper()
	took := eventually(t, "another pod than "+other+" leads", func() (bool, string) {
		pod = leaderOf(t, namespace)
		return pod != "" && pod != other, pod
	})
	t.Logf("%s leads after %v", pod, took.Round(time.Millisecond))
	return pod
}

// watchAddresses looks at a status all the time; the answer tells what it saw beside want.
func watchAddresses(t testing.TB, namespace, ingress, want string) func() string {
	stop, seen := make(chan struct{}), make(chan string)
	go func() {
		for {
			got, err := tryKubectl("", "get", "ingress", "-n", namespace, ingress, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}")
			if err == nil && got != want {
				<-stop
				seen <- fmt.Sprintf("%q", got)
				return
			}
			select {
			case <-stop:
				seen <- ""
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() string { close(stop); return <-seen }
}
