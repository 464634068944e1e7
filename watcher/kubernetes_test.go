package watcher

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func uidFor(resource string, n int) types.UID { return types.UID(fmt.Sprintf("%s-%d", resource, n)) }

// watching is a cluster source at work against a fakeAPI.
type watching struct {
	*fakeAPI
	source *clusterSource
	states chan *State
	log    *lockedBuffer
	last   *State
	marks  int
}

func startWatching(t *testing.T, a *fakeAPI, c Cluster) *watching {
	t.Helper()
	w := &watching{fakeAPI: a, states: make(chan *State, 1000), log: &lockedBuffer{}}
	if c.Kubeconfig == "" {
		c.Kubeconfig = a.kubeconfig(a.server.URL)
	}
	c.AnnotationsPrefix = "nginx.ingress.kubernetes.io"
	if c.Status.ElectionID == "" {
		c.Status.Off = true
	}
	source, err := Open(Spec{Scheme: "kubernetes", Cluster: c}, slog.New(slog.NewTextHandler(w.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	w.source = source.(*clusterSource)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.source.Run(ctx, func(s *State) { w.states <- s }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

const clusterPatience = 20 * time.Second // the machine may be busy

// until waits for a state that is as wanted.
func (w *watching) until(what string, wanted func(*State) bool) *State {
	w.Helper()
	if w.last != nil && wanted(w.last) {
		return w.last
	}
	for late := time.After(clusterPatience); ; {
		select {
		case w.last = <-w.states:
			if wanted(w.last) {
				return w.last
			}
		case <-late:
			w.Fatalf("no state with %s came; the last one: %s\nlog:\n%s", what, contents(w.last), w.log)
		}
	}
}

// says waits for a line of the log.
func (w *watching) says(text string) {
	w.Helper()
	eventually(w.T, "the log says "+text, func() bool { return strings.Contains(w.log.String(), text) })
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(clusterPatience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("it never came that %s", what)
		}
	}
}

// unchanged shows that no state comes: a change that is made after has to be the next one.
func (w *watching) unchanged() {
	w.Helper()
	w.marks++
	w.put(anIngress("zz", fmt.Sprint("mark-", w.marks)))
	before := len(w.last.Objects.Ingresses)
	s := <-w.states
	w.last = s
	if n := len(s.Objects.Ingresses); n != before+1 {
		w.Errorf("a state came that says nothing new: %s", contents(s))
	}
}

func contents(s *State) string {
	if s == nil {
		return "none"
	}
	var b strings.Builder
	for _, i := range s.Objects.Ingresses {
		fmt.Fprintf(&b, "Ingress %s/%s ", i.Namespace, i.Name)
	}
	for _, i := range s.Objects.Secrets {
		fmt.Fprintf(&b, "Secret %s/%s (%d) ", i.Namespace, i.Name, len(i.Data))
	}
	fmt.Fprintf(&b, "%d Services, %d EndpointSlices, %d classes, %d ConfigMaps", len(s.Objects.Services), len(s.Objects.EndpointSlices),
		len(s.Objects.IngressClasses), len(s.Objects.ConfigMaps))
	return b.String()
}

func anIngress(namespace, name string, secrets ...string) *networkingv1.Ingress {
	i := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	for _, s := range secrets {
		i.Spec.TLS = append(i.Spec.TLS, networkingv1.IngressTLS{SecretName: s})
	}
	return i
}

func aSecret(namespace, name, value string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": []byte(value)}}
}

func aSlice(namespace, name string, addresses ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name,
		Labels: map[string]string{discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", "app": "x"}}}
	for _, a := range addresses {
		node := "n1"
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, NodeName: &node,
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Name: "p-" + a}})
	}
	return s
}

func aService(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{"a": "b"}},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}, Selector: map[string]string{"app": "web"}}}
}

func ingresses(n int) func(*State) bool {
	return func(s *State) bool { return len(s.Objects.Ingresses) == n }
}

// TestSyncPeriod: the present state is applied again and again, though nothing changes.
func TestSyncPeriod(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"))
	source, err := Open(Spec{Scheme: "kubernetes", Cluster: Cluster{Kubeconfig: a.kubeconfig(a.server.URL), SyncPeriod: time.Millisecond, Status: Status{Off: true}}},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(clusterPatience, cancel)
	applied := 0
	var first *networkingv1.Ingress
	err = source.Run(ctx, func(s *State) {
		if len(s.Objects.Ingresses) != 1 || first != nil && s.Objects.Ingresses[0] != first {
			t.Errorf("state %d is %s", applied, contents(s))
		}
		first = s.Objects.Ingresses[0]
		if applied++; applied == 20 { // few of them can be of the start
			cancel()
		}
	})
	if err != nil || applied < 20 {
		t.Errorf("%d states were applied: %v", applied, err)
	}
}

// Created, changed and deleted objects arrive; what is not read of them neither is kept nor makes a state.
func TestClusterFollows(t *testing.T) {
	a := newFakeAPI(t)
	noisy := anIngress("shop", "web")
	noisy.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "long", "nginx.ingress.kubernetes.io/use-regex": "true",
		"sluice.dev/load-balance": "ewma", "kubernetes.io/ingress.class": "nginx"}
	a.put(noisy, anIngress("shop", "api"), aService("shop", "web"), aSlice("shop", "web-1", "10.0.0.1"),
		&networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx"}})
	w := startWatching(t, a, Cluster{})
	s := w.until("two Ingresses", ingresses(2))
	first := s.Objects.Ingresses[1]
	if first.Name != "web" || len(first.Annotations) != 3 || first.ManagedFields != nil || first.ResourceVersion != "" || first.UID == "" {
		t.Errorf("the Ingress is kept as %+v", first.ObjectMeta)
	}
	if o := s.Objects.EndpointSlices[0]; len(o.Labels) != 2 || o.Endpoints[0].NodeName != nil || o.Endpoints[0].TargetRef.Name != "" || o.Endpoints[0].TargetRef.Kind != "Pod" {
		t.Errorf("the EndpointSlice is kept as %+v", o)
	}
	if o := s.Objects.Services[0]; o.Annotations != nil || o.Spec.Ports[0].Port != 80 || o.Spec.Selector == nil {
		t.Errorf("the Service is kept as %+v", o)
	}

	noisy.Annotations["kubectl.kubernetes.io/last-applied-configuration"] = "longer"
	noisy.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.1"}}
	a.put(noisy)
	a.repeat("ingresses")
	w.unchanged()
	if w.last.Objects.Ingresses[1] != first {
		t.Error("an Ingress that did not change is another pointer")
	}
	if w.last.Since.IsZero() || time.Since(w.last.Since) > clusterPatience {
		t.Errorf("the state answers an event of %v", w.last.Since)
	}

	noisy.Annotations["nginx.ingress.kubernetes.io/use-regex"] = "false"
	a.put(noisy)
	w.until("the changed annotation", func(s *State) bool {
		return s.Objects.Ingresses[1].Annotations["nginx.ingress.kubernetes.io/use-regex"] == "false"
	})
	a.put(aSlice("shop", "web-1", "10.0.0.1", "10.0.0.2"))
	w.until("two endpoints", func(s *State) bool { return len(s.Objects.EndpointSlices[0].Endpoints) == 2 })
	a.remove(noisy)
	w.until("two Ingresses left", ingresses(2))
}

// A watch that is cut, and history that is forgotten: what happened meanwhile is noticed, what did not change stays.
func TestClusterWatchLost(t *testing.T) {
	for _, forget := range []bool{false, true} {
		t.Run(fmt.Sprintf("gone=%v", forget), func(t *testing.T) {
			a := newFakeAPI(t)
			a.put(anIngress("shop", "a"), anIngress("shop", "b"))
			w := startWatching(t, a, Cluster{})
			stays := w.until("two Ingresses", ingresses(2)).Objects.Ingresses[0]
			lists := a.count("list ingresses")
			release := a.hold("ingresses") // so that the deletion is in no event that is seen
			a.cut(forget)
			a.remove(anIngress("shop", "b"))
			a.put(anIngress("shop", "c"), anIngress("shop", "d"))
			if forget {
				a.cut(true)
			}
			release()
			s := w.until("a, c and d", func(s *State) bool { return len(s.Objects.Ingresses) == 3 && s.Objects.Ingresses[2].Name == "d" })
			if s.Objects.Ingresses[0] != stays {
				t.Error("an Ingress that did not change is another pointer")
			}
			if forget && a.count("list ingresses") == lists {
				t.Error("history was forgotten, and nothing was listed again")
			}
		})
	}
}

// No state is told before every kind was listed: it would deny what is served a moment later.
func TestClusterSlowList(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"))
	release := a.hold("endpointslices")
	w := startWatching(t, a, Cluster{})
	eventually(t, "Secrets are listed", func() bool { return a.count("watch secrets") > 0 })
	if len(w.states) > 0 {
		t.Error("a state is told before the EndpointSlices were listed")
	}
	release()
	w.until("the Ingress", ingresses(1))
}

// The data of a Secret is kept while somebody names it, and fetched when it is named late.
func TestClusterSecrets(t *testing.T) {
	a := newFakeAPI(t)
	helm := aSecret("shop", "release", "x")
	helm.Type = "helm.sh/release.v1"
	a.put(anIngress("shop", "web", "named"), aSecret("shop", "named", "1"), aSecret("shop", "other", "2"), aSecret("infra", "default", "3"), helm)
	w := startWatching(t, a, Cluster{DefaultCertificate: "infra/default"})
	data := func(s *State) (list []string) {
		for _, o := range s.Objects.Secrets {
			list = append(list, o.Namespace+"/"+o.Name+"="+string(o.Data["tls.crt"]))
		}
		return list
	}
	expect := func(want ...string) {
		t.Helper()
		w.until(fmt.Sprint(want), func(s *State) bool { return slices.Equal(data(s), want) })
	}
	expect("infra/default=3", "shop/named=1", "shop/other=")
	if a.count("get secrets") > 0 {
		t.Error("Secrets that were named when they came were fetched")
	}
	a.put(anIngress("shop", "late", "other"))
	expect("infra/default=3", "shop/named=1", "shop/other=2")
	for _, s := range w.collected() {
		if len(s.Objects.Ingresses) == 2 && data(s)[2] != "shop/other=2" {
			t.Error("a state has the Ingress without the Secret that it names")
		}
	}
	a.put(aSecret("shop", "other", "4"))
	expect("infra/default=3", "shop/named=1", "shop/other=4")
	a.remove(anIngress("shop", "web"))
	expect("infra/default=3", "shop/named=", "shop/other=4")
	annotated := anIngress("shop", "auth")
	annotated.Annotations = map[string]string{"nginx.ingress.kubernetes.io/auth-secret": "shop/named"}
	a.put(annotated)
	expect("infra/default=3", "shop/named=1", "shop/other=4")
}

func aConfigMap(namespace, name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Data: map[string]string{"X-A": value},
		BinaryData: map[string][]byte{"b": []byte(value)}}
}

func expectConfigMaps(w *watching, want ...string) {
	w.Helper()
	w.until(fmt.Sprint(want), func(s *State) bool {
		var list []string
		for _, o := range s.Objects.ConfigMaps {
			list = append(list, o.Namespace+"/"+o.Name+"="+o.Data["X-A"])
		}
		return slices.Equal(list, want)
	})
}

// The data of a ConfigMap is kept while an annotation, another ConfigMap's key or a flag names it, in every namespace, and
// read when it is named late.
func TestClusterConfigMaps(t *testing.T) {
	a := newFakeAPI(t)
	settings := aConfigMap("infra", "settings", "s")
	settings.Data["add-headers"] = "infra/added"
	named := anIngress("shop", "web")
	named.Annotations = map[string]string{"nginx.ingress.kubernetes.io/custom-headers": "fields", "nginx.ingress.kubernetes.io/auth-proxy-set-headers": "infra/auth"}
	a.put(settings, named, aConfigMap("infra", "added", "1"), aConfigMap("infra", "auth", "2"), aConfigMap("infra", "other", "3"),
		aConfigMap("infra", "set", "4"), aConfigMap("shop", "fields", "5"), aConfigMap("shop", "late", "6"))
	w := startWatching(t, a, Cluster{ConfigMap: "infra/settings"})
	expectConfigMaps(w, "infra/added=1", "infra/auth=2", "infra/other=", "infra/set=", "infra/settings=s", "shop/fields=5", "shop/late=")
	for _, o := range w.last.Objects.ConfigMaps {
		if o.BinaryData != nil {
			t.Errorf("%s is kept with data that nobody reads", o.Name)
		}
	}

	settings.Data["proxy-set-headers"] = "infra/set"
	a.put(settings)
	expectConfigMaps(w, "infra/added=1", "infra/auth=2", "infra/other=", "infra/set=4", "infra/settings=s", "shop/fields=5", "shop/late=")
	late := anIngress("shop", "late")
	late.Annotations = map[string]string{"nginx.ingress.kubernetes.io/custom-headers": "late"}
	a.put(late)
	expectConfigMaps(w, "infra/added=1", "infra/auth=2", "infra/other=", "infra/set=4", "infra/settings=s", "shop/fields=5", "shop/late=6")
	for _, s := range w.collected() {
		if len(s.Objects.Ingresses) == 2 && s.Objects.ConfigMaps[6].Data == nil {
			t.Error("a state has the Ingress without the ConfigMap that it names")
		}
	}
	a.put(aConfigMap("shop", "late", "7"))
	expectConfigMaps(w, "infra/added=1", "infra/auth=2", "infra/other=", "infra/set=4", "infra/settings=s", "shop/fields=5", "shop/late=7")
	a.remove(named)
	expectConfigMaps(w, "infra/added=1", "infra/auth=", "infra/other=", "infra/set=4", "infra/settings=s", "shop/fields=", "shop/late=7")
}

// collected are the states that nobody has looked at, and the last one.
func (w *watching) collected() []*State {
	list := []*State{w.last}
	for len(w.states) > 0 {
		w.last = <-w.states
		list = append(list, w.last)
	}
	return list
}

// A Secret that cannot be fetched holds nothing else up, and comes when it can be.
func TestClusterSecretLate(t *testing.T) {
	a := newFakeAPI(t)
	a.put(aSecret("shop", "late", "1"))
	w := startWatching(t, a, Cluster{})
	w.until("the Secret", func(s *State) bool { return len(s.Objects.Secrets) == 1 })
	a.deny("get secrets", 403)
	a.put(anIngress("shop", "web", "late"))
	w.until("the Ingress", ingresses(1))
	a.deny("get secrets", 0)
	w.until("the Secret's data", func(s *State) bool { return len(s.Objects.Secrets[0].Data) == 1 })
}

// One namespace is watched, and beyond it only what flags name.
func TestClusterNamespace(t *testing.T) {
	a := newFakeAPI(t)
	infra := aSlice("infra", "fallback-1", "10.0.0.9")
	infra.Labels[discoveryv1.LabelServiceName] = "fallback"
	a.put(anIngress("shop", "web"), anIngress("other", "web"), aService("other", "web"), aSecret("other", "x", "x"),
		aSecret("infra", "default", "3"), aService("infra", "fallback"), infra, aSlice("infra", "more", "10.0.0.8"),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "settings"}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "infra", Name: "more"}})
	w := startWatching(t, a, Cluster{Namespace: "shop", ConfigMap: "infra/settings", DefaultCertificate: "infra/default", DefaultBackend: "infra/fallback"})
	o := w.until("the Ingress", ingresses(1)).Objects
	if len(o.Services) != 1 || len(o.EndpointSlices) != 1 || o.EndpointSlices[0].Name != "fallback-1" || len(o.ConfigMaps) != 1 ||
		len(o.Secrets) != 1 || len(o.Secrets[0].Data) != 1 {
		t.Errorf("the state has %s", contents(w.last))
	}
}

// Namespaces are watched while their labels are selected.
func TestClusterNamespaceSelector(t *testing.T) {
	a := newFakeAPI(t)
	namespace := func(name, team string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": team}}}
	}
	web := anIngress("shop", "web") // names what stands in a namespace that is not selected
	web.Annotations = map[string]string{"nginx.ingress.kubernetes.io/proxy-ssl-secret": "infra/ca", "nginx.ingress.kubernetes.io/custom-headers": "infra/fields"}
	a.put(namespace("shop", "web"), namespace("other", "db"), web, anIngress("other", "web"), aService("other", "web"),
		aSecret("infra", "default", "3"), aSecret("infra", "ca", "4"), aSecret("infra", "unnamed", "5"),
		aConfigMap("infra", "fields", "6"), aConfigMap("infra", "unnamed", "7"))
	w := startWatching(t, a, Cluster{NamespaceSelector: "team=web", DefaultCertificate: "infra/default"})
	s := w.until("one Ingress", ingresses(1))
	if s.Objects.Ingresses[0].Namespace != "shop" || len(s.Objects.Services) != 0 {
		t.Errorf("the state has %s", contents(s))
	}
	if o := s.Objects.Secrets; len(o) != 2 || string(o[0].Data["tls.crt"]) != "4" || string(o[1].Data["tls.crt"]) != "3" {
		t.Errorf("the state has %s", contents(s))
	}
	expectConfigMaps(w, "infra/fields=6")
	a.put(namespace("other", "web"))
	w.until("both", ingresses(2))
	a.put(namespace("shop", "db"))
	w.until("the other one", func(s *State) bool {
		return len(s.Objects.Ingresses) == 1 && s.Objects.Ingresses[0].Namespace == "other"
	})
}

// Without an API server nothing is told but the log, and work begins when it is there.
func TestClusterStartsBlind(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"))
	late := httptest.NewUnstartedServer(a)
	_ = late.Listener.Close()
	t.Cleanup(late.Close) // once the source has gone
	w := startWatching(t, a, Cluster{Kubeconfig: a.kubeconfig("http://" + address)})
	w.says("the API server does not answer: nothing is served before it has")
	if len(w.states) > 0 {
		t.Error("a state is told without an API server")
	}
	if l, err = net.Listen("tcp", address); err != nil {
		t.Skip("another program took the port meanwhile:", err)
	}
	late.Listener = l
	late.Start()
	w.until("the Ingress", ingresses(1))
	w.says("the API server answers")
}

// A kind that may not be watched is named in the log, once.
func TestClusterForbidden(t *testing.T) {
	a := newFakeAPI(t)
	a.put(anIngress("shop", "web"))
	a.deny("list services", 403)
	w := startWatching(t, a, Cluster{})
	w.says("what=Services")
	eventually(t, "it is tried again", func() bool { return a.count("list services") > 2 })
	if n := strings.Count(w.log.String(), "what=Services"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	a.deny("list services", 0)
	w.until("the Ingress", ingresses(1))
}

func TestOpenClusterErrors(t *testing.T) {
	a := newFakeAPI(t)
	for _, c := range []struct {
		cluster Cluster
		want    string
	}{
		{Cluster{Kubeconfig: "/nowhere/kubeconfig"}, "/nowhere/kubeconfig"},
		{Cluster{Kubeconfig: a.kubeconfig("http://x"), NamespaceSelector: "a in b"}, "--watch-namespace-selector"},
	} {
		if _, err := Open(Spec{Scheme: "kubernetes", Cluster: c.cluster}, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", c.cluster, err, c.want)
		}
	}
}
