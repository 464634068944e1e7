//go:build cluster

package clustertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"
)

// makeCertificate puts a self-signed certificate into a Secret and answers its serial number.
func makeCertificate(t testing.TB, namespace, name, host string) *big.Int {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	number, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: number, Subject: pkix.Name{CommonName: "clustertest"}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b64 := func(kind string, b []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	apply(t, namespace, fmt.Sprintf("---\napiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: %s}\ndata: {tls.crt: %s, tls.key: %s}\n",
		name, b64("CERTIFICATE", der), b64("PRIVATE KEY", private)))
	return number
}

// addressesOf are those of an Ingress's status.
func addressesOf(t testing.TB, namespace, ingress string) string {
	t.Helper()
	return kubectl(t, "get", "ingress", "-n", namespace, ingress, "-o", "jsonpath={.status.loadBalancer.ingress[*].ip}")
}

func awaitAddress(t testing.TB, namespace, ingress, want string) {
	t.Helper()
	eventually(t, "the status of "+ingress+" is "+want, func() (bool, string) {
		got := addressesOf(t, namespace, ingress)
		return got == want, got
	})
}

// Whatever is created, changed and deleted with kubectl, the traffic follows. The latencies that are printed are those
// from kubectl's end to the first answer as wanted.
func TestFollowsChanges(t *testing.T) {
	cluster(t)
	p := startProxy(t, "--publish-status-address="+nodeAddress)
	namespace := newNamespace(t)
	apply(t, namespace, echoApp("one", 2)+echoApp("two", 1))
	rolledOut(t, namespace, "deployment/one")
	rolledOut(t, namespace, "deployment/two")
	step := func(what string, do func(), url string, wanted func(reply) bool) {
		t.Helper()
		do()
		t.Logf("%-34s %8.1f ms", what, float64(p.serves(url, wanted))/1e6)
	}
	put := func(manifest string) func() { return func() { apply(t, namespace, manifest) } }
	shown := func(want *big.Int) func(reply) bool {
		return func(reply) bool {
			conn, err := tls.Dial("tcp", p.https, &tls.Config{ServerName: "secure.example", InsecureSkipVerify: true})
			if err != nil {
				return false
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(want) == 0
		}
	}

	step("Ingress created", put(p.ingress("web", "  rules:\n"+rule("web.example", "/", "one"))), "http://web.example/", from("one"))
	awaitAddress(t, namespace, "web", nodeAddress)
	step("Ingress changed: backend", put(p.ingress("web", "  rules:\n"+rule("web.example", "/", "two"))), "http://web.example/", from("two"))
	step("Ingress changed: path", put(p.ingress("web", "  rules:\n"+rule("web.example", "/two", "two"))), "http://web.example/", status(http.StatusNotFound))
	step("annotation added", func() {
		kubectl(t, "annotate", "ingress", "-n", namespace, "web", "nginx.ingress.kubernetes.io/permanent-redirect=https://example.org")
	}, "http://web.example/two", status(http.StatusMovedPermanently))
	step("annotation removed", func() {
		kubectl(t, "annotate", "ingress", "-n", namespace, "web", "nginx.ingress.kubernetes.io/permanent-redirect-")
	}, "http://web.example/two", from("two"))
	step("Service deleted", func() { kubectl(t, "delete", "service", "-n", namespace, "two") }, "http://web.example/two", status(http.StatusServiceUnavailable))
	step("Service created", put(echoApp("two", 1)), "http://web.example/two", from("two"))
	step("Service changed: selector", func() {
		kubectl(t, "patch", "service", "-n", namespace, "two", "-p", `{"spec":{"selector":{"app":"one"}}}`)
	}, "http://web.example/two", from("one"))
	step("Deployment scaled to 0", func() { kubectl(t, "scale", "-n", namespace, "deployment/one", "--replicas=0") },
		"http://web.example/two", status(http.StatusServiceUnavailable))
	step("Deployment scaled to 1", func() { kubectl(t, "scale", "-n", namespace, "deployment/one", "--replicas=1") }, "http://web.example/two", from("one"))

	first := makeCertificate(t, namespace, "pair", "secure.example")
	step("Ingress with a certificate", put(p.ingress("secure", "  tls: [{hosts: [secure.example], secretName: pair}]\n  rules:\n"+rule("secure.example", "/", "one"))),
		"https://secure.example/", func(r reply) bool { return from("one")(r) && shown(first)(r) })
	var second *big.Int
	step("Secret changed", func() { second = makeCertificate(t, namespace, "pair", "secure.example") }, "https://secure.example/",
		func(r reply) bool { return shown(second)(r) })
	step("Secret deleted", func() { kubectl(t, "delete", "secret", "-n", namespace, "pair") }, "https://secure.example/",
		func(r reply) bool { return !shown(second)(r) })
	step("Ingress deleted", func() { kubectl(t, "delete", "ingress", "-n", namespace, "web") }, "http://web.example/two", status(http.StatusNotFound))

	byHand := func(address string) string {
		return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: hand}\nspec: {ports: [{port: 8080}]}\n---\n"+
			"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: hand-1, labels: {kubernetes.io/service-name: hand}}\n"+
			"addressType: IPv4\nports: [{port: 8080}]\nendpoints: [{addresses: [%s]}]\n", address)
	}
	pod := kubectl(t, "get", "pods", "-n", namespace, "-l", "app=one", "-o", "jsonpath={.items[0].status.podIP}")
	apply(t, namespace, p.ingress("hand", "  rules:\n"+rule("hand.example", "/", "hand")))
	step("EndpointSlice created", put(byHand(pod)), "http://hand.example/", from("one"))
	step("EndpointSlice deleted", func() { kubectl(t, "delete", "endpointslice", "-n", namespace, "hand-1") }, "http://hand.example/", status(http.StatusServiceUnavailable))
	for _, kind := range []string{"routes", "endpoints"} {
		number, sum := p.metric(`sluice_change_latency_seconds_count{kind="`+kind+`"} `), p.metric(`sluice_change_latency_seconds_sum{kind="`+kind+`"} `)
		if number == "" || number == "0" {
			t.Errorf("the metric of the latency of %s has %q changes", kind, number)
		}
		t.Logf("sluice_change_latency_seconds of %s: %s changes, %s s in all", kind, number, sum)
	}
}

// What is wrong with an Ingress stands beside it as Events, and the rest of it serves.
func TestEventsOfProblems(t *testing.T) {
	cluster(t)
	t.Parallel()
	p := startProxy(t, "--publish-status-address="+nodeAddress)
	namespace := newNamespace(t)
	manifest := strings.Replace(p.ingress("web", "  rules:\n"+rule("events.example", "/", "nobody")), "metadata: {",
		`metadata: {annotations: {nginx.ingress.kubernetes.io/server-snippet: "return 200;", nginx.ingress.kubernetes.io/proxy-body-size: nonsense}, `, 1)
	apply(t, namespace, manifest+p.ingress("alone", "  rules:\n"+rule("alone.example", "/", "nobody")))
	eventually(t, "there are three Events", func() (bool, string) {
		events := kubectl(t, "get", "events", "-n", namespace, "-o", "jsonpath={range .items[*]}{.reason} {.message}{\"\\n\"}{end}")
		return strings.Contains(events, "AnnotationProblem metadata.annotations[nginx.ingress.kubernetes.io/server-snippet]") &&
			strings.Contains(events, "AnnotationProblem metadata.annotations[nginx.ingress.kubernetes.io/proxy-body-size]") &&
			strings.Contains(events, "nobody does not exist"), events
	})
	if shown := kubectl(t, "describe", "ingress", "-n", namespace, "web"); !strings.Contains(shown, "proxy-body-size") {
		t.Errorf("kubectl describe says\n%s", shown)
	}
}
