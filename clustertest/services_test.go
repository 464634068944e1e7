//go:build cluster

package clustertest

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// serviceMap is a ConfigMap of TCP or UDP services with one entry.
func serviceMap(name, port, to string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {%q: %q}\n", name, port, to)
}

// dualApp is hostApp whose Service has its port for UDP, too.
func dualApp(name, port string) string {
	tcp := "{name: http, port: 8080, targetPort: " + port + "}"
	return strings.Replace(hostApp(name, port), tcp, tcp+", {name: ask, protocol: UDP, port: 8080, targetPort: "+port+"}", 1)
}

// The ConfigMaps of TCP and UDP services are followed while they change: ports open, lead elsewhere and close, without a
// restart. So are the endpoints of their Services, by clients of UDP that have a session, too.
func TestServices(t *testing.T) {
	cluster(t)
	t.Parallel()
	namespace := newNamespace(t)
	ports := map[string]string{"one": freePorts(1)[0], "two": freePorts(1)[0]} // of pods, TCP and UDP
	moving := func(to string) string {                                         // not one number for both: kubectl apply would take the change for the first port alone
		return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: moving}\nspec:\n  selector: {app: %s}\n"+
			"  ports: [{name: tcp, port: 53, targetPort: %[2]s}, {name: udp, protocol: UDP, port: 54, targetPort: %[2]s}]\n", to, ports[to])
	}
	apply(t, namespace, dualApp("one", ports["one"])+dualApp("two", ports["two"])+moving("one")+
		"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: config}\ndata: {proxy-stream-responses: \"1000\"}\n") // sessions stay
	p := startProxy(t, "--configmap="+namespace+"/config", "--tcp-services-configmap="+namespace+"/tcp", "--udp-services-configmap="+namespace+"/udp")
	for name, port := range ports {
		rolledOut(t, namespace, "deployment/"+name)
		pod := kubectl(t, "get", "pods", "-n", namespace, "-l", "app="+name, "-o", "jsonpath={.items[0].status.podIP}")
		answerDatagrams(t, net.JoinHostPort(pod, port), name)
	}
	for _, name := range []string{"tcp", "udp"} {
		port := freePorts(1)[0]
		asks := map[string]func() string{"": func() string { return askStream(port) }}
		if name == "udp" {
			asks = map[string]func() string{"": func() string { return askDatagram(dialDatagrams(t, port)) }}
			resident := dialDatagrams(t, port)
			asks[", for a client with a session,"] = func() string { return askDatagram(resident) }
		}
		leads := func(to string) {
			t.Helper()
			for who, ask := range asks {
				what := name + " port" + who + " leads to " + to
				d := eventually(t, what, func() (bool, string) { got := ask(); return got == to, got })
				t.Logf("%-50s %8.1f ms", what, float64(d)/1e6)
			}
		}
		leads("nobody")
		apply(t, namespace, serviceMap(name, port, namespace+"/moving:"+name))
		leads("one")
		apply(t, namespace, moving("two"))
		leads("two")
		apply(t, namespace, serviceMap(name, port, namespace+"/one:8080")+moving("one"))
		leads("one")
		kubectl(t, "patch", "configmap", "-n", namespace, name, "--type=json", "-p", fmt.Sprintf(`[{"op":"remove","path":"/data/%s"}]`, port))
		leads("nobody")
		apply(t, namespace, serviceMap(name, port, namespace+"/two:8080"))
		leads("two")
		kubectl(t, "delete", "configmap", "-n", namespace, name)
		leads("nobody")
	}
	if !p.ready() {
		t.Error("at the end the proxy is not ready")
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

func dialDatagrams(t testing.TB, port string) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// askDatagram tells who answers on a UDP port.
func askDatagram(conn net.Conn) string {
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
