package watcher

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sluiceproxy/sluice/route"
)

// replica is a cluster source whose states all serve at once.
type replica struct {
	*watching
	leave func()
}

func startReplica(t *testing.T, a *fakeAPI, s Status, problems ...route.Problem) *replica {
	t.Helper()
	return startReplicaBy(t, a, a.server.URL, s, problems...)
}

// startReplicaBy starts one that finds the API server at another address.
func startReplicaBy(t *testing.T, a *fakeAPI, url string, s Status, problems ...route.Problem) *replica {
	t.Helper()
	s.ElectionID = "sluice-leader"
	if s.ElectionTTL == 0 {
		s.ElectionTTL = 2 * time.Second
	}
	w := startWatching(t, a, Cluster{Kubeconfig: a.kubeconfig(url), Status: s})
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case state := <-w.states:
				w.source.Report(Outcome{State: state, Taken: state.Objects.Ingresses, Problems: problems})
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-done })
	return &replica{watching: w, leave: func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		w.source.Leave(ctx)
	}}
}

// statusOf is what the API server has as an Ingress's addresses.
func (a *fakeAPI) statusOf(namespace, name string) string {
	o := a.get(anIngress(namespace, name))
	if o == nil {
		return "no Ingress"
	}
	return addressText(o.(*networkingv1.Ingress).Status.LoadBalancer.Ingress)
}

func (a *fakeAPI) expectStatus(name, want string) {
	a.Helper()
	late := time.Now().Add(clusterPatience)
	for a.statusOf("shop", name) != want {
		if time.Now().After(late) {
			a.Fatalf("the status of %s is %s, want %s", name, a.statusOf("shop", name), want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Addresses that a flag names are written once, and again when somebody else overwrites them.
func TestStatusOfFlags(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"))
	startReplica(t, a, Status{PublishAddresses: []string{"192.0.2.9", "lb.example.org", "192.0.2.1", "192.0.2.9"}})
	const want = "192.0.2.1,192.0.2.9,lb.example.org"
	a.expectStatus("web", want)
	a.put(anIngress("shop", "late"))
	a.expectStatus("late", want)
	if n := a.count("patch ingresses/web"); n != 1 {
		t.Errorf("%d patches of one status", n)
	}
	spoilt := anIngress("shop", "web")
	spoilt.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "203.0.113.1"}}
	spoilt.Annotations = map[string]string{"foreign": "kept"}
	a.put(spoilt)
	a.expectStatus("web", want)
	if a.get(spoilt).GetAnnotations()["foreign"] != "kept" {
		t.Error("a patch of the status took an annotation away")
	}
}

// TestStatusInterval: what could not be written is tried anew as often as the flag says. By itself it would be each few
// seconds, a try or two of the start beside.
func TestStatusInterval(t *testing.T) {
	a := newFakeAPI(t)
	a.deny("patch ingresses", 403)
	a.put(anIngress("shop", "web"))
	startReplica(t, a, Status{PublishAddresses: []string{"192.0.2.1"}, NoElection: true, Interval: 5 * time.Millisecond})
	const tries = 20 // more than statusRetry leads to in the time
	if tries < 3*clusterPatience/statusRetry {
		t.Fatal("so many come by themselves")
	}
	eventually(t, "the status was tried often", func() bool { return a.count("patch ingresses/web") >= tries })
	a.deny("patch ingresses", 0)
	a.expectStatus("web", "192.0.2.1")
}

// Nothing is written to an Ingress before it serves, nor to one that is not ours.
func TestStatusAfterServing(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "ours"), anIngress("shop", "foreign"))
	s := Status{PublishAddresses: []string{"192.0.2.1"}, ElectionID: "x", ElectionTTL: 2 * time.Second}
	w := startWatching(t, a, Cluster{Status: s})
	state := w.until("both", ingresses(2))
	w.says("leader=true")
	time.Sleep(4 * statusQuiet) // that nothing happens has no event
	if got := a.statusOf("shop", "ours"); got != "none" {
		t.Errorf("before it serves the status is %s", got)
	}
	w.source.Report(Outcome{State: state, Taken: state.Objects.Ingresses[1:]})
	a.expectStatus("ours", "192.0.2.1")
	if got := a.statusOf("shop", "foreign"); got != "none" {
		t.Errorf("the status of an Ingress that is not ours is %s", got)
	}
}

func TestStatusOfService(t *testing.T) {
	a := newFakeAPI(t)
	lb := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "lb"}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer}}
	lb.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.7"}}
	a.put(anIngress("shop", "web"), lb)
	startReplica(t, a, Status{PublishService: "infra/lb"})
	a.expectStatus("web", "192.0.2.7")
	lb.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example.org"}}
	a.put(lb)
	a.expectStatus("web", "lb.example.org")
}

func TestServiceAddresses(t *testing.T) {
	for _, c := range []struct {
		spec corev1.ServiceSpec
		want string
	}{
		{corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "lb.example.org"}, "lb.example.org"},
		{corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7"}, "10.96.0.7"},
		{corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: corev1.ClusterIPNone}, "none"},
		{corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: "10.96.0.7", ExternalIPs: []string{"192.0.2.2", "192.0.2.1"}}, "192.0.2.1,192.0.2.2"},
	} {
		if got := addressText(serviceAddresses(&corev1.Service{Spec: c.spec})); got != c.want {
			t.Errorf("%+v: %s, want %s", c.spec, got, c.want)
		}
	}
}

func proxyPod(name, node string, ready bool) *corev1.Pod {
	status := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "sluice", Name: name,
		Labels: map[string]string{"app": "sluice", "controller-revision-hash": name}},
		Spec:   corev1.PodSpec{NodeName: node},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status[ready]}}}}
}

func aNode(name, internal, external string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: internal}, {Type: corev1.NodeHostName, Address: name}}
	if external != "" {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: external})
	}
	return n
}

// The addresses of the nodes whose proxies are ready: external ones where there are any, internal ones when asked for.
func TestStatusOfNodes(t *testing.T) {
	for _, internal := range []bool{false, true} {
		t.Run(fmt.Sprintf("internal=%v", internal), func(t *testing.T) {
			a := newFakeAPI(t)
			foreign := proxyPod("foreign", "n3", true)
			foreign.Labels = map[string]string{"app": "other"}
			a.put(anIngress("shop", "web"), aNode("n1", "10.0.0.1", "192.0.2.1"), aNode("n2", "10.0.0.2", ""), aNode("n3", "10.0.0.3", ""),
				proxyPod("a", "n1", true), proxyPod("b", "n2", false), foreign)
			r := startReplica(t, a, Status{Pod: "a", PodNamespace: "sluice", InternalIP: internal})
			first := map[bool]string{false: "192.0.2.1", true: "10.0.0.1"}[internal]
			both := map[bool]string{false: "10.0.0.2,192.0.2.1", true: "10.0.0.1,10.0.0.2"}[internal]
			a.expectStatus("web", first)
			a.put(proxyPod("b", "n2", true))
			a.expectStatus("web", both)
			going := proxyPod("b", "n2", true)
			now := metav1.Now()
			going.DeletionTimestamp = &now
			a.put(going)
			a.expectStatus("web", first)
			a.put(proxyPod("b", "n2", true))
			a.expectStatus("web", both)
			r.leave()
			a.expectStatus("web", "10.0.0.2")
		})
	}
}

// The last proxy takes its address out when it ends, unless it is told not to; no ready proxy is no reason to.
func TestStatusOnShutdown(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprintf("keep=%v", keep), func(t *testing.T) {
			a := newFakeAPI(t)
			a.put(anIngress("shop", "web"), aNode("n1", "10.0.0.1", ""), proxyPod("a", "n1", true))
			r := startReplica(t, a, Status{Pod: "a", PodNamespace: "sluice", KeepOnShutdown: keep})
			a.expectStatus("web", "10.0.0.1")
			a.put(proxyPod("a", "n1", false), anIngress("shop", "other"))
			time.Sleep(4 * statusQuiet)
			a.expectStatus("web", "10.0.0.1")
			r.leave()
			if want := map[bool]string{false: "none", true: "10.0.0.1"}[keep]; a.statusOf("shop", "web") != want {
				t.Errorf("after the last one has left the status is %s, want %s", a.statusOf("shop", "web"), want)
			}
			r.says("leader=false")
		})
	}
}

// TestLeaveDuringRound: a round of writing that lasts, of thousands of statuses or beside an API server that does not answer, does
// not hold up who leaves.
func TestLeaveDuringRound(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"), aNode("n1", "10.0.0.1", ""), proxyPod("a", "n1", true))
	to, err := url.Parse(a.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan struct{})
	var first atomic.Bool
	forward := httputil.NewSingleHostReverseProxy(to)
	forward.FlushInterval = -1
	forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	way := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/status") && first.CompareAndSwap(false, true) {
			_, _ = io.Copy(io.Discard, r.Body) // only then does net/http see that the client goes
			close(asked)
			<-r.Context().Done()
			return
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(way.Close)
	t.Cleanup(way.CloseClientConnections)
	r := startReplicaBy(t, a, way.URL, Status{Pod: "a", PodNamespace: "sluice"})
	select {
	case <-asked:
	case <-time.After(clusterPatience):
		t.Fatal("nothing is written")
	}
	left := make(chan struct{})
	go func() { defer close(left); r.leave() }()
	select {
	case <-left:
	case <-time.After(clusterPatience):
		t.Fatal("it does not leave")
	}
	r.says("leader=false")
	if n := a.count("patch ingresses/web"); n != 1 { // the API server may have the one that was given up, so that "none" is not what it has for sure
		t.Errorf("%d patches of who left", n)
	}
}

// One of two replicas writes. When it leaves the other takes over at once.
func TestLeaderChange(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"))
	first := startReplica(t, a, Status{Pod: "a", PublishAddresses: []string{"192.0.2.1"}})
	first.says("leader=true")
	second := startReplica(t, a, Status{Pod: "b", PublishAddresses: []string{"192.0.2.2"}})
	a.expectStatus("web", "192.0.2.1")
	eventually(t, "the second one asks for the Lease", func() bool { return a.count("get leases") > 2 })
	if strings.Contains(second.log.String(), "leader=true") {
		t.Fatal("two leaders")
	}
	first.leave()
	second.says("leader=true")
	a.expectStatus("web", "192.0.2.2")
}

// A leader that falls silent, without a word to anybody, is followed by another one when the Lease's time is over, and not
// before. It does not believe that it leads any longer.
func TestLeaderDies(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"))
	to, err := url.Parse(a.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	var dead atomic.Bool
	forward := httputil.NewSingleHostReverseProxy(to)
	forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	way := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if dead.Load() {
			panic(http.ErrAbortHandler)
		}
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(way.Close)
	t.Cleanup(way.CloseClientConnections)
	const ttl = 4 * time.Second
	first := startReplicaBy(t, a, way.URL, Status{Pod: "a", PublishAddresses: []string{"192.0.2.1"}, ElectionTTL: ttl})
	first.says("leader=true")
	a.expectStatus("web", "192.0.2.1")
	second := startReplica(t, a, Status{Pod: "b", PublishAddresses: []string{"192.0.2.2"}, ElectionTTL: ttl})
	eventually(t, "the second one asks for the Lease", func() bool { return a.count("get leases") > 2 })

	renewals := a.count("update leases")
	eventually(t, "the Lease is renewed", func() bool { return a.count("update leases") > renewals })
	died := time.Now()
	dead.Store(true)
	way.CloseClientConnections()
	first.says("leader=false") // while the Lease still holds
	if strings.Contains(second.log.String(), "leader=true") {
		t.Error("another one leads before the first one knows that it does not")
	}
	second.says("leader=true")
	if took := time.Since(died); took < ttl/2 {
		t.Errorf("another one leads after %v, the Lease is for %v", took, ttl)
	}
	a.expectStatus("web", "192.0.2.2")
	a.put(anIngress("shop", "late"))
	a.expectStatus("late", "192.0.2.2")
	if strings.Contains(first.log.String()[strings.LastIndex(first.log.String(), "leader=false"):], "leader=true") {
		t.Error("the dead one leads again")
	}
}

// A Lease that may not be written is one warning; everything else works.
func TestLeaseForbidden(t *testing.T) {
	for _, verb := range []string{"get leases", "create leases"} {
		t.Run(verb, func(t *testing.T) {
			a := newFakeAPI(t)
			a.deny(verb, 403)
			a.put(anIngress("shop", "web"))
			r := startReplica(t, a, Status{PublishAddresses: []string{"192.0.2.1"}})
			r.says("the Lease may not be written")
			eventually(t, "it is tried again", func() bool { return a.count(verb) > 2 })
			if n := strings.Count(r.log.String(), "the Lease may not"); n != 1 {
				t.Errorf("%d warnings", n)
			}
			if strings.Contains(r.log.String(), "client-go") {
				t.Errorf("client-go has its own word:\n%s", r.log)
			}
			if got := a.statusOf("shop", "web"); got != "none" {
				t.Errorf("without a Lease the status is %s", got)
			}
			a.deny(verb, 0)
			a.expectStatus("web", "192.0.2.1")
		})
	}
}

func TestLeaseNamespace(t *testing.T) {
	a := newFakeAPI(t)
	c := Cluster{ConfigMap: "of-configmap/x", Status: Status{ElectionID: "x", PodNamespace: "of-pod", ElectionTTL: time.Second}}
	source := startWatching(t, a, c).source
	if got := leaseNamespace(source); got != "of-pod" {
		t.Errorf("in a pod: %s", got)
	}
	source.Cluster.Status.PodNamespace = ""
	if got := leaseNamespace(source); got != "from-context" {
		t.Errorf("with a context's namespace: %s", got)
	}
	source.clients.namespace = ""
	if got := leaseNamespace(source); got != "of-configmap" {
		t.Errorf("with --configmap: %s", got)
	}
	source.ConfigMap = ""
	if got := leaseNamespace(source); got != "default" {
		t.Errorf("with nothing: %s", got)
	}
}

func (a *fakeAPI) events() (list []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.objects["events"] {
		e := o.(*corev1.Event)
		list = append(list, fmt.Sprintf("%s %s/%s: %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Namespace, e.InvolvedObject.Name, e.Reason, e.Message))
	}
	slices.Sort(list)
	return list
}

// Each Problem of an object that is there is one Event, also when it is told again.
func TestEvents(t *testing.T) {
	a := newFakeAPI(t)
	web := route.Object{Kind: "Ingress", Namespace: "shop", Name: "web"}
	problems := []route.Problem{
		{Object: web, Field: "metadata.annotations[nginx.ingress.kubernetes.io/server-snippet]", Reason: "is refused"},
		{Object: web, Field: "metadata.annotations[nginx.ingress.kubernetes.io/limit-rps]", Reason: "is ignored"},
		{Object: web, Field: "spec.rules[0].host", Reason: "is no name"},
		{Object: route.Object{Kind: "Service", Namespace: "shop", Name: "gone"}, Reason: "is not there"},
		{Object: route.Object{Kind: "IngressClass", Name: "nginx"}, Reason: strings.Repeat("long ", 400)},
	}
	a.put(anIngress("shop", "web"), &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}})
	r := startReplica(t, a, Status{PublishAddresses: []string{"192.0.2.1"}}, problems...)
	a.expectStatus("web", "192.0.2.1")
	a.put(anIngress("shop", "more")) // tells all again
	eventually(t, "there are four Events", func() bool { return len(a.events()) == 4 })
	want := []string{
		"Ingress shop/web: AnnotationProblem: metadata.annotations[nginx.ingress.kubernetes.io/limit-rps]: is ignored",
		"Ingress shop/web: AnnotationProblem: metadata.annotations[nginx.ingress.kubernetes.io/server-snippet]: is refused",
		"Ingress shop/web: Problem: spec.rules[0].host: is no name",
	}
	if got := a.events(); !slices.Equal(got[:3], want) || len(got[3]) > 1024+100 {
		t.Errorf("the Events are\n%s", strings.Join(got, "\n"))
	}
	created := a.count("create events")
	r.source.status.events.forget() // as the next leader
	a.put(anIngress("shop", "again"))
	eventually(t, "they are told again", func() bool { return a.count("patch events") >= 4 })
	if n := len(a.events()); n != 4 || a.count("create events") < created+4 {
		t.Errorf("told again, there are %d Events", n)
	}
}

// However many Problems there are, few Events wait, and none is lost that still is one.
func TestEventsBounded(t *testing.T) {
	e := &eventWriter{queue: make(chan route.Problem, 2), told: map[route.Problem]bool{}}
	var problems []route.Problem
	for i := range 5 {
		problems = append(problems, route.Problem{Reason: fmt.Sprint(i)})
	}
	seen := map[string]bool{}
	for range 4 {
		e.tell(problems)
		for len(e.queue) > 0 {
			p := <-e.queue
			if seen[p.Reason] {
				t.Errorf("%s was told twice", p.Reason)
			}
			seen[p.Reason] = true
		}
	}
	if len(seen) != 5 {
		t.Errorf("%d Problems of 5 were told", len(seen))
	}
	e.tell(problems[:1])
	e.tell(problems[:2])
	if len(e.queue) != 1 {
		t.Error("a Problem that had gone is not told again")
	}
}
