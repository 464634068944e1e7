//go:build cluster

package clustertest

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// deployed is a variant of deploy/ as kustomize builds it. Its image is the program under test.
func deployed(t testing.TB, dir string) string {
	t.Helper()
	return strings.ReplaceAll(kubectl(t, "kustomize", "../"+dir), "ghcr.io/sluiceproxy/sluice:latest", "sluice")
}

// chart is what the Helm chart makes of values.
func chart(t testing.TB, values ...string) string {
	t.Helper()
	args := []string{"template", "sluice", "../deploy/chart", "--namespace=sluice", "--kube-version=1.37"}
	for _, v := range values {
		args = append(args, "--set="+v)
	}
	cmd := exec.Command("helm", args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %v: %v", args, err)
	}
	return string(out)
}

// withoutCertManager drops the objects of kinds that this cluster does not know.
func withoutCertManager(manifests string) string {
	var kept []string
	for _, text := range strings.Split(manifests, "\n---\n") {
		if !strings.Contains(text, "apiVersion: cert-manager.io/") {
			kept = append(kept, text)
		}
	}
	return strings.Join(kept, "\n---\n")
}

// TestDeployIsValid asks the real API server about every variant of deploy/ and of the chart, without keeping anything.
func TestDeployIsValid(t *testing.T) {
	cluster(t)
	t.Parallel()
	for _, namespace := range []string{"sluice", "ingress-nginx"} { // what is namespaced needs it even for a dry run
		_, _ = tryKubectl("", "create", "namespace", namespace) // another test may have made it
	}
	dryRun := func(manifests string) error {
		_, err := tryKubectl(manifests, "apply", "--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts", "--field-manager=dry-run", "-f", "-")
		return err
	}
	service, _, _ := strings.Cut(read(t, "../deploy/monitoring/servicemonitor.yaml"), "\n---\n") // the rest needs the operator
	withoutMonitor, _, _ := strings.Cut(chart(t, "monitoring.serviceMonitor.create=true", "monitoring.dashboard.create=true"), "\n---\n# Source: sluice/templates/monitoring.yaml\napiVersion: monitoring.coreos.com/v1")
	for name, text := range map[string]string{
		"deploy": deployed(t, "deploy"), "deploy/nonroot": deployed(t, "deploy/nonroot"), "deploy/ingress-nginx": deployed(t, "deploy/ingress-nginx"),
		"deploy/webhook":             withoutCertManager(deployed(t, "deploy/webhook")),
		"the chart with the webhook": chart(t, "webhook.create=true", "webhook.secretName=mine", "webhook.caBundle="+base64.StdEncoding.EncodeToString(webhookCertificate(t, t.TempDir()))),
		"deploy/monitoring":          service, "the chart": chart(t), "the chart with monitoring": withoutMonitor,
		"the chart in ingress-nginx's place": chart(t, "ingressClass.name=nginx", "ingressClass.controller=k8s.io/ingress-nginx", "ingressClass.create=false",
			"configMap=ingress-nginx/ingress-nginx-controller", "runAsRoot=false", "ports.http=8080", "ports.https=8443", "drain.preStop=0",
			"priorityClassName=system-node-critical", "podDisruptionBudget.minAvailable=2", "config.hsts=false"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := dryRun(text); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a misspelt field", func(t *testing.T) {
		t.Parallel()
		if err := dryRun(strings.Replace(deployed(t, "deploy"), "maxSurge:", "maxsurge:", 1)); err == nil || !strings.Contains(err.Error(), "maxsurge") {
			t.Errorf("the API server takes it (%v), so the others prove nothing", err)
		}
	})
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Of the DaemonSet's roll-outs.
const (
	drainLimit = 20 // seconds that tunnels of a pod that ends have
	rollOuts   = 2
)

// TestDaemonSetRollOut applies deploy/ and rolls its DaemonSet again and again on the one node, whose network its pods
// have: no request fails, each on a connection of its own, and no WebSocket is cut before the drain limit.
func TestDaemonSetRollOut(t *testing.T) {
	cluster(t)
	t.Parallel()
	const limit = "worker-shutdown-timeout: "
	text := strings.Replace(deployed(t, "deploy"), limit+"240s", fmt.Sprintf("%s%ds", limit, drainLimit), 1)
	if !strings.Contains(text, fmt.Sprintf("%s%ds", limit, drainLimit)) {
		t.Fatal("deploy/ has another drain limit than this test knows")
	}
	if _, err := tryKubectl(text, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			logs, _ := tryKubectl("", "logs", "-n", "sluice", "--selector=app.kubernetes.io/name=sluice", "--prefix")
			pods, _ := tryKubectl("", "get", "pods", "-n", "sluice", "-o", "wide")
			t.Logf("%s\n%s", pods, logs)
		}
		// The rest ends with the cluster: other tests have to do with it.
		_, _ = tryKubectl("", "delete", "-n", "sluice", "daemonset/sluice", "--wait=false")
	})
	rolledOut(t, "sluice", "daemonset/sluice")
	namespace := newNamespace(t)
	p := &proxy{TB: t, class: "sluice"}
	apply(t, namespace, echoApp("web", 2)+p.ingress("web", "  rules:\n"+rule("daemonset.example", "/", "web")))
	rolledOut(t, namespace, "deployment/web")
	const address, host = nodeAddress + ":80", "daemonset.example"
	eventually(t, "it is served on the node's port 80", func() (bool, string) {
		err := askAlone(address, host)
		return err == nil, fmt.Sprint(err)
	})
	awaitAddress(t, namespace, "web", nodeAddress)

	tunnels := openTunnels(t, address, host, 100)
	stop := askOnce(t, address, host, 8)
	pods := map[string]bool{}
	for n := range rollOuts {
		for _, pod := range strings.Fields(kubectl(t, "get", "pods", "-n", "sluice", "-o", "jsonpath={.items[*].metadata.name}")) {
			pods[pod] = true
		}
		began := time.Now()
		kubectl(t, "set", "env", "-n", "sluice", "daemonset/sluice", fmt.Sprint("ROLL=", n))
		rolledOut(t, "sluice", "daemonset/sluice")
		t.Logf("roll-out %d took %.1f s", n, time.Since(began).Seconds())
		if seen := addressesOf(t, namespace, "web"); seen != nodeAddress {
			t.Errorf("after roll-out %d the status is %q", n, seen)
		}
	}
	requests, failed := stop()
	first, last := tunnels.cut(t)
	t.Logf("%d roll-outs, %d requests on as many connections: %d failed; WebSockets lived %.1f to %.1f s from the first roll-out on, the drain limit is %d s",
		rollOuts, requests, failed, first.Seconds(), last.Seconds(), drainLimit)
	if failed > 0 || requests < 100 || len(pods) < rollOuts {
		t.Errorf("%d of %d requests failed, pods were %v", failed, requests, pods)
	}
	if first.Seconds() < drainLimit {
		t.Errorf("a WebSocket was cut after %v", first)
	}
}
