package watcher

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// said is what a manifest says, in one line an object or fault.
func said(m *manifest) (lines []string) {
	for _, o := range m.objects {
		id := o.id()
		lines = append(lines, fmt.Sprintf("%d %s %s/%s", o.document, id.Kind, id.Namespace, id.Name))
	}
	for _, f := range m.faults {
		lines = append(lines, fmt.Sprintf("%d %s %s: %s: %s", f.document, f.object.Kind, f.object.Name, f.field, f.reason))
	}
	for _, kind := range m.ignored {
		lines = append(lines, "ignored "+kind)
	}
	return lines
}

const (
	service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n"
	secret  = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n"
	class   = "apiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: nginx}\nspec: {controller: k8s.io/ingress-nginx}\n"
)

var manifestCases = []struct {
	name, file, text string
	want             []string
}{
	{"one document", "a.yaml", service, []string{"1 Service shop/web"}},
	{"a namespace that is not named", "a.yaml", secret, []string{"1 Secret default/s"}},
	{"no namespace", "a.yaml", class, []string{"1 IngressClass /nginx"}},
	{"nothing", "a.yaml", "", nil},
	{"comments only", "a.yaml", "# a\n---\n# b\n---\n", nil},
	{"documents", "a.yaml", "# licence\n---\n" + service + "---\n" + secret + "--- # last\n" + class + "...\n",
		[]string{"1 Service shop/web", "2 Secret default/s", "3 IngressClass /nginx"}},
	{"document end", "a.yaml", service + "...\n" + secret, []string{"1 Service shop/web", "2 Secret default/s"}},
	{"directive", "a.yaml", "%YAML 1.1\n---\n" + service, []string{"1 Service shop/web"}},
	{"byte order mark, CRLF", "a.yaml", "\xef\xbb\xbf" + strings.ReplaceAll(service+"---\n"+secret, "\n", "\r\n"),
		[]string{"1 Service shop/web", "2 Secret default/s"}},
	{"PEM is no mark", "a.yaml", secret + "stringData:\n  tls.crt: |\n    -----BEGIN CERTIFICATE-----\n    x\n    -----END CERTIFICATE-----\n",
		[]string{"1 Secret default/s"}},
	{"JSON", "a.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}` + "\n" + `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"b"}}`,
		[]string{"1 Service default/a", "2 Secret default/b"}},
	{"JSON with tabs in YAML", "a.yaml", "{\n\t\"apiVersion\":\"v1\",\n\t\"kind\":\"Service\",\"metadata\":{\"name\":\"a\"}}", []string{"1 Service default/a"}},
	{"List", "a.yaml", "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n" +
		"- apiVersion: v1\n  kind: List\n  items:\n  - {apiVersion: v1, kind: Secret, metadata: {name: b}}\n  - {apiVersion: v1, kind: Pod, metadata: {name: c}}\n",
		[]string{"1 Service default/a", "1 Secret default/b", "ignored v1 Pod"}},
	{"typed list", "a.yaml", "apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n- {apiVersion: v1, kind: Service, metadata: {name: b}}\n",
		[]string{"1 Service default/a", "1 Service default/b"}},
	{"foreign kinds", "a.yaml", "apiVersion: apps/v1\nkind: Deployment\nx: 1\n---\napiVersion: serving.knative.dev/v1\nkind: Service\n---\n" +
		"apiVersion: v1\nkind: PodList\nitems: [{}]\n", []string{"ignored apps/v1 Deployment", "ignored serving.knative.dev/v1 Service", "ignored v1 PodList"}},

	{"unknown field", "a.yaml", service + "spec:\n  ports:\n  - {port: 80}\n  - {prot: 80}\n", []string{"1 Service web: spec.ports[1].prot: unknown field"}},
	{"fields differ by case", "a.yaml", service + "spec: {clusterIp: None}\n", []string{"1 Service web: spec.clusterIp: unknown field"}},
	{"two unknown fields", "a.yaml", service + "x: 1\nspec: {z: 1}\n", []string{"1 Service web: spec.z: unknown field", "1 Service web: x: unknown field"}},
	{"unknown field in a list", "a.yaml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Service, metadata: {name: a}, x: 1}]}\n",
		[]string{"1 Service a: items[0].items[0].x: unknown field"}},
	{"unknown field of a list", "a.yaml", "apiVersion: v1\nkind: List\nitem: []\n", []string{"1  : item: unknown field"}},
	{"wrong type", "a.yaml", service + "spec:\n  ports:\n  - {port: 80}\n  - {port: http}\n", []string{"1 Service web: spec.ports[1].port: a whole number is expected"}},
	{"number for text", "a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {keep-alive: 75}\n",
		[]string{"1 ConfigMap c: data[keep-alive]: a text is expected: put the value in quotes"}},
	{"list for text", "a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b, c: []}\n",
		[]string{"1 ConfigMap c: data.c: a text is expected"}},
	{"object for list", "a.yaml", service + "spec:\n  ports: {port: 80}\n", []string{"1 Service web: spec.ports: a list is expected"}},
	{"list for object", "a.yaml", service + "spec: []\n", []string{"1 Service web: spec: an object is expected"}},
	{"not base64", "a.yaml", secret + "data: {tls.crt: aGE=, tls.key: '!'}\n", []string{"1 Secret s: data[tls.key]: illegal base64 data at input byte 0"}},
	{"not a time", "a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s, creationTimestamp: soon}\n",
		[]string{`1 Secret s: metadata.creationTimestamp: parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"`}},
	{"twice", "a.yaml", secret + "data: {}\ndata: {}\n", []string{`1  : line 5: key "data" stands twice`}},
	{"twice in JSON", "a.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"},"spec":{},"spec":{}}`, []string{"1 Service a: spec: duplicate field"}},
	{"YAML syntax, by the file's lines", "a.yaml", service + "---\n" + secret + "data: [\n", []string{"1 Service shop/web", "2  : line 8: did not find expected node content"}},
	{"JSON syntax", "a.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}` + "\n{\n]", []string{"1 Service default/a",
		"2  : line 3: invalid character ']' looking for beginning of object key string"}},
	{"JSON cut off", "a.json", "{\n", []string{"1  : line 2: unexpected EOF"}},
	{"a text", "a.yaml", "hello\n", []string{"1  : : an object is expected: apiVersion, kind, metadata, …"}},
	{"a list", "a.yaml", "- a\n", []string{"1  : : an object is expected: apiVersion, kind, metadata, …"}},
	{"null", "a.json", "null", []string{"1  : apiVersion: is missing"}},
	{"no kind", "a.yaml", "apiVersion: v1\n", []string{"1  : kind: is missing"}},
	{"kind is no text", "a.yaml", "apiVersion: v1\nkind: [a]\n", []string{"1  : kind: a text is expected"}},
	{"no name", "a.yaml", "apiVersion: v1\nkind: Service\n", []string{"1 Service : metadata.name: is missing"}},
	{"bad name", "a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a_b}\n", []string{"1 Service a_b: metadata.name: a lowercase RFC 1123 subdomain must"}},
	{"bad namespace", "a.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: b.c}\n", []string{"1 Service a: metadata.namespace: must not contain dots"}},
	{"former version", "a.yaml", "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n---\napiVersion: networking.k8s.io/v1beta1\nkind: Ingress\nmetadata: {name: b}\n",
		[]string{"1 Ingress a: apiVersion: extensions/v1beta1 is not read; write networking.k8s.io/v1", "2 Ingress b: apiVersion: networking.k8s.io/v1beta1 is not read; write networking.k8s.io/v1"}},
	{"lists too deep", "a.json", nested(listDepthMax + 1), []string{"1  : " + strings.Repeat("items[0].", listDepthMax) + "items: lists within lists, deeper than 8"}},
	{"lists deep enough", "a.json", nested(listDepthMax), []string{"1 Service default/a"}},
}

func nested(depth int) string {
	text := `{"apiVersion":"v1","kind":"Service","metadata":{"name":"a"}}`
	for range depth {
		text = `{"apiVersion":"v1","kind":"List","items":[` + text + `]}`
	}
	return text
}

func TestManifest(t *testing.T) {
	for _, c := range manifestCases {
		t.Run(c.name, func(t *testing.T) {
			got := said(decodeManifest(c.file, []byte(c.text), nil))
			if len(got) != len(c.want) {
				t.Fatalf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("said\n%s\nwant\n%s", got[i], c.want[i])
				}
			}
		})
	}
}

func TestManifestDefaults(t *testing.T) {
	m := decodeManifest("a.yaml", []byte(service+"spec:\n  ports:\n  - {port: 80}\n  - {port: 81, targetPort: http, protocol: UDP}\n---\n"+
		secret+"data: {a: YQ==, b: Yg==}\nstringData: {b: B, c: C}\n---\n"+
		"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e}\naddressType: IPv4\nports: [{port: 1}]\nendpoints: [{addresses: [127.0.0.1]}]\n"), nil)
	if len(m.objects) != 3 {
		t.Fatal(said(m))
	}
	want := []corev1.ServicePort{{Protocol: "TCP", Port: 80, TargetPort: intstr.FromInt32(80)}, {Protocol: "UDP", Port: 81, TargetPort: intstr.FromString("http")}}
	if s := m.objects[0].Object.(*corev1.Service); s.Spec.Type != "ClusterIP" || !reflect.DeepEqual(s.Spec.Ports, want) {
		t.Errorf("Service: %+v", s.Spec)
	}
	if s := m.objects[1].Object.(*corev1.Secret); s.StringData != nil || fmt.Sprintf("%s", s.Data) != "map[a:a b:B c:C]" {
		t.Errorf("Secret: %s", s.Data)
	}
	if p := m.objects[2].Object.(*discoveryv1.EndpointSlice).Ports[0]; *p.Name != "" || *p.Protocol != "TCP" {
		t.Errorf("EndpointSlice: %+v", p)
	}
}

func TestManifestFaultsAreBounded(t *testing.T) {
	var b strings.Builder
	for range 100 {
		b.WriteString("---\n" + service + "x: 1\n")
	}
	if m := decodeManifest("a.yaml", []byte(b.String()), nil); len(m.faults) != fileProblemsMax {
		t.Errorf("%d faults", len(m.faults))
	}
}

// TestKindsAreAdded proves that the table's rows agree with themselves.
func TestKindsAreAdded(t *testing.T) {
	for i := range kinds {
		k := &kinds[i]
		m := decodeManifest("a.json", []byte(fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":"a"}}`, k.version, k.name)), nil)
		if len(m.objects) != 1 {
			t.Fatal(said(m))
		}
		var l translate.Objects
		k.add(&l, m.objects[0].Object)
		if n := len(l.Ingresses) + len(l.IngressClasses) + len(l.Services) + len(l.EndpointSlices) + len(l.Secrets) + len(l.ConfigMaps); n != 1 {
			t.Errorf("%s: %d objects", k.name, n)
		}
	}
}

// FuzzConfig feeds manifests, all the way to a table of routes: nothing panics, the same text gives the same objects and
// problems, what is known is reused, every fault names its document, and a version with a fault leaves the last good one.
func FuzzConfig(f *testing.F) {
	for _, c := range manifestCases {
		f.Add(c.file == "a.json", []byte(c.text))
	}
	for _, pattern := range []string{"../demo/manifests/*.yaml", "translate/testdata/*.in.yaml"} {
		paths, _ := filepath.Glob(pattern)
		if len(paths) == 0 {
			f.Fatalf("no seeds at %s", pattern)
		}
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(false, text)
		}
	}
	env := route.Env{Loops: 1, NewCluster: func(id string, s upstream.Settings) *upstream.Cluster {
		return upstream.NewCluster(id, &upstream.Env{}, s)
	}}
	options := translate.Options{AllowLoopback: true, EnableSSLPassthrough: true, WatchIngressWithoutClass: true}
	f.Fuzz(func(t *testing.T, asJSON bool, text []byte) {
		name := "a.yaml"
		if asJSON {
			name = "a.json"
		}
		first := decodeManifest(name, text, nil)
		again := decodeManifest(name, text, first.known)
		if a, b := said(first), said(again); !reflect.DeepEqual(a, b) {
			t.Fatalf("decoded twice:\n%q\n%q", a, b)
		}
		checkManifest(t, first, again)

		source, m := &fileSource{log: slog.New(slog.DiscardHandler), told: map[string]bool{}}, &file{shown: name}
		source.takeVersion(m, []byte(`{"apiVersion":"v1","kind":"Service","metadata":{"name":"good"}}`))
		good := m.good
		source.takeVersion(m, text)
		if kept := m.good == good; kept != (len(m.faults) > 0) {
			t.Fatalf("the last good version is kept: %v, with faults %v", kept, m.faults)
		}
		state := stateOfManifest(first)
		one, two := Check(state, translate.New(options), env), Check(state, translate.New(options), env)
		if !slices.Equal(one, two) {
			t.Fatalf("checked twice:\n%v\n%v", one, two)
		}
	})
}

func checkManifest(t *testing.T, first, again *manifest) {
	t.Helper()
	for i, o := range first.objects {
		if o.GetName() == "" || o.document == 0 || o.kind.cluster != (o.GetNamespace() == "") {
			t.Fatalf("object without a name or place: %v", said(first))
		}
		if len(first.faults) == 0 && again.objects[i].Object != o.Object {
			t.Fatal("a known document was decoded again")
		}
	}
	for _, v := range first.faults {
		if v.document == 0 || v.reason == "" {
			t.Fatalf("fault without a place or reason: %+v", v)
		}
	}
}

// stateOfManifest is the state of one directory with one file.
func stateOfManifest(m *manifest) *State {
	d := &directory{names: []string{"a"}, files: map[string]*file{"a": {shown: "a", good: m, sound: true}}}
	return (&fileSource{roots: []*directory{d}}).state()
}
