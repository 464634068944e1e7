//go:build cluster

package clustertest

import (
	"fmt"
	"net/http"
	"testing"
)

// serviceMap is a ConfigMap of services with one entry.
func serviceMap(name, port, to string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {%q: %q}\n", name, port, to)
}

// The ConfigMap of TCP services is followed while it changes: a port opens, leads elsewhere and closes, without a restart.
func TestServices(t *testing.T) {
	cluster(t)
	t.Parallel()
	namespace := newNamespace(t)
	port := freePorts(1)[0]
	p := startProxy(t, "--tcp-services-configmap="+namespace+"/tcp")
	for _, name := range []string{"one", "two"} {
		apply(t, namespace, hostApp(name, freePorts(1)[0]))
	}
	for _, name := range []string{"one", "two"} {
		rolledOut(t, namespace, "deployment/"+name)
	}
	leads := func(to string) {
		t.Helper()
		d := eventually(t, "the port leads to "+to, func() (bool, string) { got := askStream(port); return got == to, got })
		t.Logf("the port leads to %-6s %8.1f ms", to, float64(d)/1e6)
	}
	leads("nobody")
	apply(t, namespace, serviceMap("tcp", port, namespace+"/one:8080"))
	leads("one")
	apply(t, namespace, serviceMap("tcp", port, namespace+"/two:8080"))
	leads("two")
	kubectl(t, "patch", "configmap", "-n", namespace, "tcp", "--type=json", "-p", fmt.Sprintf(`[{"op":"remove","path":"/data/%s"}]`, port))
	leads("nobody")
	apply(t, namespace, serviceMap("tcp", port, namespace+"/one:8080"))
	leads("one")
	kubectl(t, "delete", "configmap", "-n", namespace, "tcp")
	leads("nobody")
	if got := askStream(port); got != "nobody" || !p.ready() {
		t.Errorf("at the end the TCP port leads to %s, and the proxy is ready: %v", got, p.ready())
	}
}

// askStream tells who answers HTTP behind a TCP port.
func askStream(port string) string {
	client := &http.Client{Timeout: lookTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://127.0.0.1:" + port)
	if err != nil {
		return "nobody"
	}
	r, err := readReply(resp)
	if err != nil {
		return err.Error()
	}
	return r.Name
}
