//go:build cluster

package clustertest

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// serviceMap is a ConfigMap of TCP or UDP services with one entry.
func serviceMap(name, port, to string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {%q: %q}\n", name, port, to)
}

// The ConfigMaps of TCP and UDP services are followed while they change: ports open, lead elsewhere and close, without a
// restart, and so do the endpoints of their Services.
func TestServices(t *testing.T) {
	cluster(t)
	t.Parallel()
	namespace := newNamespace(t)
	at, ports := freePorts(2), map[string]string{"one": freePorts(1)[0], "two": freePorts(1)[0]} // of doors; of pods, TCP and UDP
	p := startProxy(t, "--tcp-services-configmap="+namespace+"/tcp", "--udp-services-configmap="+namespace+"/udp")
	udpService := "---\napiVersion: v1\nkind: Service\nmetadata: {name: udp-%[1]s}\nspec:\n  selector: {app: %[1]s}\n" +
		"  ports: [{name: ask, protocol: UDP, port: 53, targetPort: %[2]s}]\n"
	for _, name := range []string{"one", "two"} {
		apply(t, namespace, hostApp(name, ports[name])+fmt.Sprintf(udpService, name, ports[name]))
	}
	for _, name := range []string{"one", "two"} {
		rolledOut(t, namespace, "deployment/"+name)
		answerDatagrams(t, net.JoinHostPort(nodeAddress, ports[name]), name)
	}
	for _, c := range []struct {
		name, port, to string
		ask            func(port string) string
	}{
		{"tcp", at[0], namespace + "/%s:8080", askStream},
		{"udp", at[1], namespace + "/udp-%s:53", askDatagram},
	} {
		leads := func(to string) {
			t.Helper()
			d := eventually(t, c.name+" port leads to "+to, func() (bool, string) { got := c.ask(c.port); return got == to, got })
			t.Logf("%s port leads to %-6s %8.1f ms", c.name, to, float64(d)/1e6)
		}
		leads("nobody")
		apply(t, namespace, serviceMap(c.name, c.port, fmt.Sprintf(c.to, "one")))
		leads("one")
		apply(t, namespace, serviceMap(c.name, c.port, fmt.Sprintf(c.to, "two")))
		leads("two")
		kubectl(t, "patch", "configmap", "-n", namespace, c.name, "--type=json", "-p", fmt.Sprintf(`[{"op":"remove","path":"/data/%s"}]`, c.port))
		leads("nobody")
		apply(t, namespace, serviceMap(c.name, c.port, fmt.Sprintf(c.to, "one")))
		leads("one")
		kubectl(t, "delete", "configmap", "-n", namespace, c.name)
		leads("nobody")
	}
	if got := askStream(at[0]); got != "nobody" || !p.ready() {
		t.Errorf("at the end the TCP port leads to %s, and the proxy is ready: %v", got, p.ready())
	}
}

// answerDatagrams answers with a name what comes to an address, in place of a pod on the node's own network.
func answerDatagrams(t testing.TB, address, name string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		b := make([]byte, 2048)
		for {
			_, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo([]byte(name), from)
		}
	}()
}

// askDatagram tells who answers on a UDP port.
func askDatagram(port string) string {
	conn, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(lookTimeout))
	b := make([]byte, 2048)
	if _, err := conn.Write([]byte("who?")); err != nil {
		return "nobody"
	}
	n, err := conn.Read(b)
	if err != nil {
		return "nobody"
	}
	return string(b[:n])
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
