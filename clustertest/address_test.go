//go:build cluster

package clustertest

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// hostApp is echoApp with one pod on the node's own network, at a port of its own.
func hostApp(name, port string) string {
	return strings.NewReplacer("    spec:\n      containers:", "    spec:\n      hostNetwork: true\n      containers:",
		"image: echo\n", "image: echo\n        args: [--port="+port+"]\n", "        ports: [{name: http, containerPort: 8080}]\n", "",
		"tcpSocket: {port: 8080}", "tcpSocket: {port: "+port+"}", "targetPort: 8080", "targetPort: "+port).Replace(echoApp(name, 1))
}

// A hostNetwork pod on Sluice's own node is reached; Sluice's own ports are not, nor is the node by a hand-made slice
// (docs/decisions/0040-pods-on-the-nodes-own-address.md).
func TestNodesOwnAddress(t *testing.T) {
	cluster(t)
	t.Parallel()
	p := startProxy(t)
	namespace := newNamespace(t)
	port := freePorts(1)[0]
	pods := hostApp("host", port)
	_, admin, _ := strings.Cut(p.admin, ":")
	apply(t, namespace, pods+fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: admin}
spec: {selector: {app: host}, ports: [{port: 8080, targetPort: %s}]}
`, admin)+p.ingress("web", "  rules:\n"+rule("host.example", "/", "host")+rule("hand.example", "/", "hand")+rule("admin.example", "/", "admin")))
	rolledOut(t, namespace, "deployment/host")
	node := kubectl(t, "get", "pods", "-n", namespace, "-l", "app=host", "-o", "jsonpath={.items[0].status.podIP}")
	apply(t, namespace, fmt.Sprintf(`---
apiVersion: v1
kind: Service
metadata: {name: hand}
spec: {ports: [{port: 8080}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: hand-1, labels: {kubernetes.io/service-name: hand, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
addressType: IPv4
ports: [{port: %s}]
endpoints: [{addresses: [%s], targetRef: {kind: Pod, name: forged}}]
`, port, node))
	p.serves("http://host.example/", from("host"))
	for _, host := range []string{"hand.example", "admin.example"} {
		eventually(t, "the log says that endpoints of "+host+" are refused", func() (bool, string) {
			r, err := p.ask("GET", "http://"+host+"/metrics")
			if err != nil || r.Status != http.StatusServiceUnavailable {
				t.Fatalf("%s answers %v, %v", host, r, err)
			}
			service, _, _ := strings.Cut(host, ".")
			resp, err := http.Get("http://" + p.admin + "/debug/problems")
			if err != nil {
				t.Fatal(err)
			}
			problems := readAll(t, resp)
			return strings.Contains(problems, node+":") && strings.Contains(problems, service), problems
		})
	}
}
