package watcher

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// fakeAPI is an API server that does on demand what a real one does at its worst: it forgets history (410 Gone), cuts
// watches, lists slowly, sends events twice, forbids. Real behaviour is shown against a real one, in clustertest.
type fakeAPI struct {
	*testing.T
	server *httptest.Server

	mu       sync.Mutex
	changed  *sync.Cond
	version  int
	oldest   int // versions before it are forgotten
	epoch    int // watches of an older one end
	objects  map[string]map[name]clusterThing
	history  []fakeEvent
	denied   map[string]int           // "VERB RESOURCE" → status
	held     map[string]chan struct{} // lists of a resource wait for it
	requests []string                 // "VERB RESOURCE[/NAME]?SELECTORS"
	closed   bool
}

type clusterThing interface {
	metav1.Object
	runtime.Object
}

type fakeEvent struct {
	version  int
	kind     string // ADDED, MODIFIED, DELETED
	resource string
	object   clusterThing
}

// resources are what it serves, by the last part of a collection's path.
var resources = map[string]struct {
	group schema.GroupVersion
	kind  string
	empty func() clusterThing
}{
	"ingresses":      {networkingv1.SchemeGroupVersion, "Ingress", func() clusterThing { return &networkingv1.Ingress{} }},
	"ingressclasses": {networkingv1.SchemeGroupVersion, "IngressClass", func() clusterThing { return &networkingv1.IngressClass{} }},
	"services":       {corev1.SchemeGroupVersion, "Service", func() clusterThing { return &corev1.Service{} }},
	"endpointslices": {discoveryv1.SchemeGroupVersion, "EndpointSlice", func() clusterThing { return &discoveryv1.EndpointSlice{} }},
	"secrets":        {corev1.SchemeGroupVersion, "Secret", func() clusterThing { return &corev1.Secret{} }},
	"configmaps":     {corev1.SchemeGroupVersion, "ConfigMap", func() clusterThing { return &corev1.ConfigMap{} }},
	"namespaces":     {corev1.SchemeGroupVersion, "Namespace", func() clusterThing { return &corev1.Namespace{} }},
	"nodes":          {corev1.SchemeGroupVersion, "Node", func() clusterThing { return &corev1.Node{} }},
	"pods":           {corev1.SchemeGroupVersion, "Pod", func() clusterThing { return &corev1.Pod{} }},
	"events":         {corev1.SchemeGroupVersion, "Event", func() clusterThing { return &corev1.Event{} }},
	"leases":         {coordinationv1.SchemeGroupVersion, "Lease", func() clusterThing { return &coordinationv1.Lease{} }},
}

func resourceOf(o clusterThing) string {
	for resource, r := range resources {
		if fmt.Sprintf("%T", r.empty()) == fmt.Sprintf("%T", o) {
			return resource
		}
	}
	panic("unknown kind")
}

func newFakeAPI(t *testing.T) *fakeAPI {
	a := &fakeAPI{T: t, version: 100, objects: map[string]map[name]clusterThing{}, denied: map[string]int{}, held: map[string]chan struct{}{}}
	a.changed = sync.NewCond(&a.mu)
	for resource := range resources {
		a.objects[resource] = map[name]clusterThing{}
	}
	a.server = httptest.NewServer(a)
	t.Cleanup(func() {
		a.mu.Lock()
		a.closed = true
		for _, ch := range a.held {
			close(ch)
		}
		a.changed.Broadcast()
		a.mu.Unlock()
		a.server.Close()
	})
	return a
}

// kubeconfig is a file that leads here, or to another address.
func (a *fakeAPI) kubeconfig(url string) string {
	file := filepath.Join(a.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: fake, cluster: {server: %q}}]
contexts: [{name: fake, context: {cluster: fake, namespace: from-context}}]
current-context: fake
`, url)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		a.Fatal(err)
	}
	return file
}

// put creates objects or changes them.
func (a *fakeAPI) put(list ...clusterThing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range list {
		a.putLocked(o)
	}
}

func (a *fakeAPI) putLocked(o clusterThing) {
	o = o.DeepCopyObject().(clusterThing)
	resource := resourceOf(o)
	a.version++
	o.SetResourceVersion(strconv.Itoa(a.version))
	o.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "test"}})
	o.GetObjectKind().SetGroupVersionKind(resources[resource].group.WithKind(resources[resource].kind))
	kind := "ADDED"
	if old, ok := a.objects[resource][nameOf(o)]; ok {
		kind = "MODIFIED"
		if o.GetUID() == "" {
			o.SetUID(old.GetUID())
		}
	} else if o.GetUID() == "" {
		o.SetUID(uidFor(resource, a.version))
	}
	a.objects[resource][nameOf(o)] = o
	a.happen(fakeEvent{a.version, kind, resource, o})
}

func (a *fakeAPI) happen(e fakeEvent) {
	a.history = append(a.history, e)
	a.changed.Broadcast()
}

func (a *fakeAPI) remove(o clusterThing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	resource := resourceOf(o)
	known, ok := a.objects[resource][nameOf(o)]
	if !ok {
		a.Fatalf("%s %v is not there", resource, nameOf(o))
	}
	delete(a.objects[resource], nameOf(o))
	a.version++
	known = known.DeepCopyObject().(clusterThing)
	known.SetResourceVersion(strconv.Itoa(a.version))
	a.happen(fakeEvent{a.version, "DELETED", resource, known})
}

// repeat sends the last event of a resource again.
func (a *fakeAPI) repeat(resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range slices.Backward(a.history) {
		if e.resource == resource {
			a.happen(e)
			return
		}
	}
}

// cut ends all watches; forget also makes the versions before now unknown, so that they begin with 410 Gone.
func (a *fakeAPI) cut(forget bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.epoch++
	if forget {
		a.version++
		a.oldest = a.version
	}
	a.changed.Broadcast()
}

// deny answers requests such as "list secrets" with a status; 0 allows them again.
func (a *fakeAPI) deny(what string, status int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.denied[what] = status
}

// hold makes lists of a resource wait until the answer is called.
func (a *fakeAPI) hold(resource string) (release func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ch := make(chan struct{})
	a.held[resource] = ch
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.held, resource)
		close(ch)
	}
}

// count is how many requests begin so.
func (a *fakeAPI) count(prefix string) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range a.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (a *fakeAPI) get(o clusterThing) clusterThing {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.objects[resourceOf(o)][nameOf(o)]
}

// ServeHTTP implements http.Handler.
func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	namespace, resource, object, sub := splitPath(r.URL.Path)
	q := r.URL.Query()
	verb := map[string]string{"GET": "list", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[r.Method]
	switch {
	case q.Get("watch") != "":
		verb = "watch"
	case r.Method == "GET" && object != "":
		verb = "get"
	}
	a.mu.Lock()
	line := strings.TrimSuffix(verb+" "+resource+"/"+object, "/") + "?" + q.Get("fieldSelector") + q.Get("labelSelector")
	a.requests = append(a.requests, line)
	status, held := a.denied[verb+" "+resource], a.held[resource]
	if status == 0 && object != "" {
		status = a.denied[verb+" "+resource+"/"+object]
	}
	_, known := resources[resource]
	a.mu.Unlock()
	switch {
	case !known:
		a.Errorf("unexpected request %s %s", r.Method, r.URL)
		http.NotFound(w, r)
		return
	case status != 0:
		refuse(w, &apierrors.StatusError{ErrStatus: metav1.Status{Status: "Failure", Code: int32(status), Reason: metav1.StatusReasonForbidden, Message: "as asked"}})
		return
	case q.Get("sendInitialEvents") != "":
		refuse(w, apierrors.NewInvalid(schema.GroupKind{}, "sendInitialEvents", nil)) // as servers before 1.34
		return
	}
	if verb == "list" && held != nil {
		<-held
	}
	match := selects(namespace, q.Get("fieldSelector"), q.Get("labelSelector"))
	switch verb {
	case "list":
		a.list(w, resource, match)
	case "watch":
		a.watch(w, r, resource, match)
	default:
		a.one(w, r, verb, resource, sub, name{namespace, object})
	}
}

// splitPath reads /api/v1/namespaces/NAMESPACE/RESOURCE/NAME/SUB and its shorter forms.
func splitPath(path string) (namespace, resource, object, sub string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	parts = parts[2:]
	if len(path) > 5 && path[:6] == "/apis/" {
		parts = parts[1:]
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	parts = append(parts, "", "")
	return namespace, parts[0], parts[1], parts[2]
}

func selects(namespace, field, label string) func(clusterThing) bool {
	byField, _ := fields.ParseSelector(field)
	byLabel, _ := labels.Parse(label)
	return func(o clusterThing) bool {
		set := fields.Set{"metadata.name": o.GetName(), "metadata.namespace": o.GetNamespace()}
		if s, ok := o.(*corev1.Secret); ok {
			set["type"] = string(s.Type)
		}
		return (namespace == "" || namespace == o.GetNamespace()) && byField.Matches(set) && byLabel.Matches(labels.Set(o.GetLabels()))
	}
}

func (a *fakeAPI) list(w http.ResponseWriter, resource string, match func(clusterThing) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	items := []clusterThing{}
	for _, o := range a.objects[resource] {
		if match(o) {
			items = append(items, o)
		}
	}
	answerJSON(w, http.StatusOK, map[string]any{
		"apiVersion": resources[resource].group.String(), "kind": resources[resource].kind + "List",
		"metadata": map[string]any{"resourceVersion": strconv.Itoa(a.version)}, "items": items,
	})
}

func (a *fakeAPI) watch(w http.ResponseWriter, r *http.Request, resource string, match func(clusterThing) bool) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	send := func(kind string, o any) {
		b, _ := json.Marshal(map[string]any{"type": kind, "object": o})
		_, _ = w.Write(append(b, '\n'))
		_ = http.NewResponseController(w).Flush()
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	go func() { // a client that goes wakes its watch
		<-r.Context().Done()
		a.changed.Broadcast()
	}()
	a.mu.Lock()
	defer a.mu.Unlock()
	if from < a.oldest {
		e := apierrors.NewResourceExpired("too old resource version").ErrStatus
		e.APIVersion, e.Kind = "v1", "Status"
		send("ERROR", e)
		return
	}
	epoch, next := a.epoch, 0
	for next < len(a.history) && a.history[next].version <= from {
		next++
	}
	for !a.closed && epoch == a.epoch && r.Context().Err() == nil {
		for ; next < len(a.history); next++ {
			if e := a.history[next]; e.resource == resource && match(e.object) {
				send(e.kind, e.object)
			}
		}
		a.changed.Wait()
	}
}

func (a *fakeAPI) one(w http.ResponseWriter, r *http.Request, verb, resource, sub string, n name) {
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.objects[resource][n]
	group := schema.GroupResource{Resource: resource}
	switch {
	case verb == "create":
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			a.Errorf("%s: %v", r.URL, err)
			return
		}
		thing := o.(clusterThing)
		if _, there := a.objects[resource][nameOf(thing)]; there {
			refuse(w, apierrors.NewAlreadyExists(group, thing.GetName()))
			return
		}
		a.putLocked(thing)
		answerJSON(w, http.StatusCreated, a.objects[resource][nameOf(thing)])
	case !ok:
		refuse(w, apierrors.NewNotFound(group, n.name))
	case verb == "get":
		answerJSON(w, http.StatusOK, known)
	case verb == "update":
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			a.Errorf("%s: %v", r.URL, err)
			return
		}
		if o.(clusterThing).GetResourceVersion() != known.GetResourceVersion() {
			refuse(w, apierrors.NewConflict(group, n.name, fmt.Errorf("another version")))
			return
		}
		a.putLocked(o.(clusterThing))
		answerJSON(w, http.StatusOK, a.objects[resource][n])
	case verb == "patch":
		a.patch(w, resource, sub, known, body)
	}
}

// patch takes merge patches: of a status only the status, and only for the object with the uid in it.
func (a *fakeAPI) patch(w http.ResponseWriter, resource, sub string, known clusterThing, body []byte) {
	var patch struct{ Metadata struct{ UID string } }
	next := known.DeepCopyObject().(clusterThing)
	if ing, ok := next.(*networkingv1.Ingress); ok && sub == "status" {
		ing.Status = networkingv1.IngressStatus{} // a merge patch replaces lists
	}
	if json.Unmarshal(body, &patch) != nil || json.Unmarshal(body, next) != nil {
		a.Errorf("patch %s", body)
	}
	if patch.Metadata.UID != "" && patch.Metadata.UID != string(known.GetUID()) {
		refuse(w, apierrors.NewConflict(schema.GroupResource{Resource: resource}, known.GetName(), fmt.Errorf("another uid")))
		return
	}
	if ing, ok := next.(*networkingv1.Ingress); ok && sub == "status" {
		old := known.DeepCopyObject().(*networkingv1.Ingress)
		old.Status = ing.Status
		next = old
	}
	a.putLocked(next)
	answerJSON(w, http.StatusOK, a.objects[resource][nameOf(known)])
}

func refuse(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.ErrStatus
	status.APIVersion, status.Kind = "v1", "Status"
	answerJSON(w, int(status.Code), status)
}

func answerJSON(w http.ResponseWriter, status int, o any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(o)
}
