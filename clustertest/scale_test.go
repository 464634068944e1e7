//go:build cluster

package clustertest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func readAll(t testing.TB, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// crowd makes many objects, fast.
type crowd struct {
	testing.TB
	*admin
	namespace string
}

// make creates n times an Ingress, a Service, and a slice of so many endpoints, which are never dialled but for the first.
func (c *crowd) make(n, endpoints int, class, real string) {
	jobs := make(chan int)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			for i := range jobs {
				if err := c.one(i, endpoints, class, real); err != nil {
					c.Errorf("object %d: %v", i, err)
				}
			}
		})
	}
	for i := range n {
		jobs <- i
	}
	close(jobs)
	all.Wait()
}

func (c *crowd) one(i, endpoints int, class, real string) error {
	ctx := context.Background()
	id := fmt.Sprintf("web-%05d", i)
	meta := metav1.ObjectMeta{Name: id}
	if _, err := c.core.Services(c.namespace).Create(ctx, &corev1.Service{ObjectMeta: meta,
		Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 8080}}}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := c.discovery.EndpointSlices(c.namespace).Create(ctx, sliceOf(id, addressesFrom(i, endpoints, real)), metav1.CreateOptions{}); err != nil {
		return err
	}
	kind := networkingv1.PathTypePrefix
	_, err := c.networking.Ingresses(c.namespace).Create(ctx, &networkingv1.Ingress{ObjectMeta: meta, Spec: networkingv1.IngressSpec{
		IngressClassName: &class,
		Rules: []networkingv1.IngressRule{{Host: id + ".example", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{
			Paths: []networkingv1.HTTPIngressPath{{Path: "/", PathType: &kind, Backend: networkingv1.IngressBackend{
				Service: &networkingv1.IngressServiceBackend{Name: id, Port: networkingv1.ServiceBackendPort{Number: 8080}}}}}}}}},
	}}, metav1.CreateOptions{})
	return err
}

// clear removes the Ingresses.
func (c *crowd) clear() {
	if err := c.networking.Ingresses(c.namespace).DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		c.Error(err)
	}
	eventually(c, "the Ingresses have gone", func() (bool, string) {
		list, err := c.networking.Ingresses(c.namespace).List(context.Background(), metav1.ListOptions{Limit: 1})
		return err == nil && len(list.Items) == 0, fmt.Sprint(err)
	})
}

func sliceOf(service string, addresses []string) *discoveryv1.EndpointSlice {
	port := int32(8080)
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: &port}}}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
	}
	return s
}

// addressesFrom are n addresses of networks that nobody has, or the one that answers for the first of all.
func addressesFrom(i, n int, real string) (list []string) {
	if i == 0 {
		return []string{real}
	}
	for j := range n {
		k := i*n + j
		list = append(list, fmt.Sprintf("100.%d.%d.%d", 64+k>>16, k>>8&255, k&255))
	}
	return list
}

// TestScale loads many objects and tells how long Sluice takes to be ready, how much memory it has, and how fast changes
// are followed: $SLUICE_SCALE is how many Ingresses, each with ten endpoints. `make scale` sets it to 10,000.
func TestScale(t *testing.T) {
	cluster(t)
	n, _ := strconv.Atoi(os.Getenv("SLUICE_SCALE"))
	if n == 0 {
		t.Skip("a measurement: SLUICE_SCALE=10000 go test -run Scale -v ./clustertest, or make scale")
	}
	c := &crowd{t, api(), newNamespace(t)}
	apply(t, c.namespace, echoApp("real", 1))
	rolledOut(t, c.namespace, "deployment/real")
	real := kubectl(t, "get", "pods", "-n", c.namespace, "-l", "app=real", "-o", "jsonpath={.items[0].status.podIP}")
	began := time.Now()
	a := newAccount(t)
	t.Cleanup(c.clear) // before the class goes: Ingresses without one are Problems, and Events, to every other test
	c.make(n, 10, a.namespace, real)
	t.Logf("%d Ingresses, Services and EndpointSlices of 10 endpoints made in %v", n, time.Since(began).Round(time.Second))

	began = time.Now()
	p := launch(t, a, "--log-level=info")
	eventually(t, "Sluice is ready", func() (bool, string) { return p.ready(), p.logs() })
	t.Logf("ready in            %8.2f s", time.Since(began).Seconds())
	p.serves("http://web-00000.example/", from("real"))
	t.Logf("RSS when ready      %8.1f MiB (VmHWM %.1f)", p.memory("VmRSS:"), p.memory("VmHWM:"))

	routes := c.measure(p, func(i int) string {
		host := fmt.Sprintf("new-%d.example", i)
		patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/rules/0/host","value":%q}]`, host)
		if _, err := c.networking.Ingresses(c.namespace).Patch(context.Background(), "web-00000", types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		return "http://" + host + "/"
	})
	p99 := routes[len(routes)*99/100]
	t.Logf("an Ingress changed  median %6.1f ms, p99 %6.1f ms, from the PATCH's answer to the first request that meets it", routes[len(routes)/2], p99)
	if p99 > applyMaxMs {
		t.Errorf("p99 is %.0f ms, and may be %d", p99, applyMaxMs)
	}
	for _, kind := range []string{"routes", "endpoints"} {
		t.Logf("sluice_change_latency_seconds{kind=%q}: %s changes, %s s in all, %s up to 100 ms, %s up to 1 s", kind,
			p.metric(`sluice_change_latency_seconds_count{kind="`+kind+`"} `), p.metric(`sluice_change_latency_seconds_sum{kind="`+kind+`"} `),
			p.metric(`sluice_change_latency_seconds_bucket{kind="`+kind+`",le="0.1"} `), p.metric(`sluice_change_latency_seconds_bucket{kind="`+kind+`",le="1"} `))
	}
	for i := range 100 { // endpoints alone
		s := sliceOf("web-00001", addressesFrom(1, 9-i%2, real))
		if _, err := c.discovery.EndpointSlices(c.namespace).Update(context.Background(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Logf("100 changes of endpoints: %s of them applied, %s s in all", p.metric(`sluice_change_latency_seconds_count{kind="endpoints"} `), p.metric(`sluice_change_latency_seconds_sum{kind="endpoints"} `))
	t.Logf("RSS at the end      %8.1f MiB", p.memory("VmRSS:"))
}

// applyMaxMs is what the 99th percentile of a changed Ingress may take, up to 10,000 of them.
const applyMaxMs = 1000

// measure makes changes one after another and answers the sorted times until each is met, in milliseconds.
func (c *crowd) measure(p *proxy, change func(int) string) (took []float64) {
	for i := range 100 {
		url := change(i)
		took = append(took, float64(p.serves(url, from("real")))/1e6)
	}
	slices.Sort(took)
	return took
}

// memory is a line of /proc/PID/status, in MiB.
func (p *proxy) memory(name string) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if w := strings.Fields(line); len(w) > 1 && w[0] == name {
			kib, _ := strconv.ParseFloat(w[1], 64)
			return kib / 1024
		}
	}
	return 0
}
