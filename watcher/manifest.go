package watcher

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/sluiceproxy/sluice/route"
)

// object is one object of a manifest.
type object struct {
	metav1.Object
	kind     *kind
	document int // from 1
}

func (o object) id() route.Object {
	return route.Object{Kind: o.kind.name, Namespace: o.GetNamespace(), Name: o.GetName()}
}

// manifest is what one version of a file says.
type manifest struct {
	objects []object
	ignored []string // kinds that are none of ours
	faults  []fault
	known   map[documentKey]*decoded // for the next version
}

// documentKey is the hash of a document's text: a document that did not change keeps its objects when others of its file do.
type documentKey [sha256.Size]byte

// decoded is what one document says.
type decoded struct {
	objects []object
	ignored []string
	faults  []fault
}

// fault is why a document, or a whole file (document 0), cannot be taken.
type fault struct {
	document int
	object   route.Object // as far as it is known
	field    string
	reason   string
}

// keyOf does not count a bare mark above the text: a document that becomes the second one is not another one.
func keyOf(d document) documentKey {
	if first, rest, _ := bytes.Cut(d.text, []byte("\n")); string(bytes.TrimSpace(first)) == "---" {
		return sha256.Sum256(rest)
	}
	return sha256.Sum256(d.text)
}

// decodeManifest reads one version of a file. Documents that known, of the version before, has too are not decoded again.
func decodeManifest(name string, text []byte, known map[documentKey]*decoded) *manifest {
	m := &manifest{known: map[documentKey]*decoded{}}
	documents, err := splitYAML(text), error(nil)
	if filepath.Ext(name) == ".json" {
		documents, err = splitJSON(text)
	}
	for i, d := range documents {
		key := keyOf(d)
		v := cmp.Or(m.known[key], known[key])
		if v == nil {
			v = decodeDocument(d)
		}
		if len(v.faults) == 0 {
			m.known[key] = v
		}
		m.take(v, i+1)
	}
	if err != nil {
		m.faults = append(m.faults, syntaxFault(err, len(documents)+1))
	}
	return m
}

// take adds what a document says.
func (m *manifest) take(v *decoded, number int) {
	for _, o := range v.objects {
		o.document = number
		m.objects = append(m.objects, o)
	}
	for _, f := range v.faults {
		f.document = number
		if len(m.faults) < fileProblemsMax {
			m.faults = append(m.faults, f)
		}
	}
	m.ignored = append(m.ignored, v.ignored...)
}

// decodeDocument decodes one document. Whatever is in it, the process goes on.
func decodeDocument(d document) (v *decoded) {
	defer func() {
		if p := recover(); p != nil {
			v = &decoded{faults: []fault{{reason: fmt.Sprintf("the decoder gave up (%v); please report this", p)}}}
		}
	}()
	v = &decoded{}
	text := d.text
	if !d.json {
		converted, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			v.faults = append(v.faults, yamlFaults(d, err)...)
			return v
		}
		text = converted
	}
	v.decodeValue(text, item{})
	return v
}

// item is where a value stands in the lists of its document.
type item struct {
	path       string // "items[3]." or ""
	depth      int
	apiVersion string // what the list says for items that do not
	kind       string
}

// header is what every object begins with.
type header struct {
	apiVersion, kind string
	namespace, name  string
	items            []json.RawMessage
	list             bool
}

// decodeValue decodes an object, or a list of them.
func (v *decoded) decodeValue(text []byte, at item) {
	h, f := readHeader(text, at)
	if f != nil {
		v.fault(at, h, *f)
		return
	}
	if h.list {
		v.decodeList(h, text, at)
		return
	}
	k, ours := kindOf(h.apiVersion, h.kind)
	switch {
	case k == nil:
		v.ignored = append(v.ignored, h.apiVersion+" "+h.kind)
	case !ours:
		v.fault(at, h, fault{field: "apiVersion", reason: fmt.Sprintf("%s is not read; write %s", h.apiVersion, k.version)})
	default:
		v.decodeObject(k, h, text, at)
	}
}

func (v *decoded) decodeObject(k *kind, h header, text []byte, at item) {
	version := k.version.WithKind(k.name)
	decodedObject, _, err := serializer.Decode(text, &version, nil)
	if err != nil {
		for _, f := range fieldFaults(text, version, err) {
			v.fault(at, h, f)
		}
		return
	}
	o := decodedObject.(metav1.Object)
	setDefaults(o, k)
	if f := checkNames(o, k); f != nil {
		v.fault(at, h, *f)
		return
	}
	v.objects = append(v.objects, object{Object: o, kind: k})
}

// fault notes one, completed by where it stands.
func (v *decoded) fault(at item, h header, f fault) {
	if len(v.faults) >= fileProblemsMax {
		return
	}
	f.field = strings.TrimSuffix(at.path+f.field, ".")
	if h.kind != "" && !h.list {
		f.object = route.Object{Kind: h.kind, Namespace: h.namespace, Name: h.name}
	}
	v.faults = append(v.faults, f)
}

// decodeList decodes the items of a List, or of an IngressList and its like.
func (v *decoded) decodeList(h header, text []byte, at item) {
	if at.depth >= listDepthMax {
		v.fault(at, h, fault{field: "items", reason: fmt.Sprintf("lists within lists, deeper than %d", listDepthMax)})
		return
	}
	next := item{depth: at.depth + 1}
	if h.kind != "List" {
		next.apiVersion, next.kind = h.apiVersion, strings.TrimSuffix(h.kind, "List")
	}
	for i, text := range h.items {
		next.path = fmt.Sprintf("%sitems[%d].", at.path, i)
		v.decodeValue(text, next)
	}
}

// readHeader reads what decides how a value is decoded. Keys are compared by case, as the API server does.
func readHeader(text []byte, at item) (h header, f *fault) {
	var top map[string]json.RawMessage
	if json.Unmarshal(text, &top) != nil {
		return h, &fault{reason: "an object is expected: apiVersion, kind, metadata, …"}
	}
	for _, s := range []struct {
		key   string
		value *string
		other string
	}{{"apiVersion", &h.apiVersion, at.apiVersion}, {"kind", &h.kind, at.kind}} {
		raw, ok := top[s.key]
		if *s.value = s.other; ok && json.Unmarshal(raw, s.value) != nil {
			return h, &fault{field: s.key, reason: "a text is expected"}
		}
		if *s.value == "" {
			return h, &fault{field: s.key, reason: "is missing"}
		}
	}
	var meta map[string]json.RawMessage
	_ = json.Unmarshal(top["metadata"], &meta) // what is wrong with it, decoding the object will tell
	_ = json.Unmarshal(meta["namespace"], &h.namespace)
	_ = json.Unmarshal(meta["name"], &h.name)
	if h.namespace == "" {
		h.namespace = metav1.NamespaceDefault
	}
	return h, h.readItems(top)
}

// readItems finds out whether the value is a list that we unpack, and which items it has.
func (h *header) readItems(top map[string]json.RawMessage) *fault {
	if single, ok := strings.CutSuffix(h.kind, "List"); !ok {
		return nil
	} else if single == "" && h.apiVersion != "v1" {
		return nil
	} else if k, ours := kindOf(h.apiVersion, single); single != "" && (k == nil || !ours) {
		return nil
	}
	h.list = true
	for _, key := range slices.Sorted(maps.Keys(top)) {
		if key != "apiVersion" && key != "kind" && key != "metadata" && key != "items" {
			return &fault{field: key, reason: "unknown field"}
		}
	}
	if raw, ok := top["items"]; ok && json.Unmarshal(raw, &h.items) != nil {
		return &fault{field: "items", reason: "a list is expected"}
	}
	return nil
}

// checkNames refuses what the API server would: names end up in logs, metrics and keys.
func checkNames(o metav1.Object, k *kind) *fault {
	if o.GetName() == "" {
		return &fault{field: "metadata.name", reason: "is missing"}
	}
	if wrong := validation.IsDNS1123Subdomain(o.GetName()); len(wrong) > 0 {
		return &fault{field: "metadata.name", reason: wrong[0]}
	}
	if wrong := validation.IsDNS1123Label(o.GetNamespace()); !k.cluster && len(wrong) > 0 {
		return &fault{field: "metadata.namespace", reason: wrong[0]}
	}
	return nil
}
