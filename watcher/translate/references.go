package translate

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// References: annotations may name Secrets and ConfigMaps. A fragment is parsed without a look at them; what they come to
// is found when a host is built, and again when one of them changes.

// named is what a part's annotations come to with the objects that they name.
type named struct {
	filters []filter.Config
	auth    []filter.Config // but where no-auth-locations names a path
	denied  string          // why its paths answer 503; "": they do not
}

// reference finds the object that an annotation names: "name", or "namespace/name" where the ConfigMap allows others'
// (allow-cross-namespace-resources). why: it is not one.
func (f *fragment) reference(name string, cross bool) (k key, why string) {
	k = key{f.ing.Namespace, name}
	if strings.Contains(name, "/") {
		var ok bool
		if k, ok = parseKey(name); !ok {
			return key{}, "is not NAME or NAMESPACE/NAME"
		}
	}
	if k.name == "" {
		return key{}, "names no object"
	}
	if k.namespace != f.ing.Namespace && !cross {
		return key{}, "is of another namespace; the ConfigMap's allow-cross-namespace-resources would allow it"
	}
	return k, ""
}

// references are the Secrets and ConfigMaps that annotations name.
func (f *fragment) references() (secrets, configMaps []key) {
	if f.dialect.defaults == nil { // not ours
		return nil, nil
	}
	cross := f.dialect.defaults.crossNamespace
	for _, name := range []string{f.dialect.basic.secret, f.dialect.proxySSL.secret, f.dialect.client.secret} {
		if name == "" {
			continue
		}
		if k, why := f.reference(name, cross); why == "" {
			secrets = append(secrets, k)
		}
	}
	for _, name := range []string{f.dialect.headers.custom, f.dialect.auth.setHeaders} {
		if name != "" {
			if k, why := f.reference(name, cross); why == "" {
				configMaps = append(configMaps, k)
			}
		}
	}
	return secrets, configMaps
}

// configMapOf is the ConfigMap that an annotation names; nil with a reason when it cannot be had.
func (b *hostBuild) configMapOf(p part, name string) (m *corev1.ConfigMap, why string) {
	k, why := p.reference(name, p.dialect.defaults.crossNamespace)
	if why != "" {
		return nil, "ConfigMap " + name + " " + why
	}
	if m = b.translator.configMaps.by[k]; m == nil {
		return nil, "ConfigMap " + k.String() + " does not exist"
	}
	return m, ""
}

// readConfigMaps marks the hosts whose annotations name a ConfigMap that has changed.
func (t *Translator) readConfigMaps(list []*corev1.ConfigMap) {
	for _, k := range t.configMaps.update(list) {
		for f := range t.configMapUsers[k] {
			for i := range f.hosts {
				t.dirtyHosts[f.hosts[i].name] = true
			}
		}
	}
}

// useConfigMaps notes who names which ConfigMap; forget: no more.
func (t *Translator) useConfigMaps(f *fragment, forget bool) {
	_, keys := f.references()
	for _, k := range keys {
		switch users := t.configMapUsers[k]; {
		case forget:
			if delete(users, f); len(users) == 0 {
				delete(t.configMapUsers, k)
			}
		case users == nil:
			t.configMapUsers[k] = map[*fragment]bool{f: true}
		default:
			users[f] = true
		}
	}
}

// resolve finds what a part's annotations come to with the objects that they name.
func (b *hostBuild) resolve(p part) (n named) {
	if p.dialect.denied != "" {
		return n
	}
	b.customHeaders(p, &n)
	b.authentication(p, &n)
	b.backendTLS(p, &n)
	b.errorPages(p, &n)
	n.filters, n.auth = slices.Clip(n.filters), slices.Clip(n.auth)
	return n
}

// deny makes a part's paths answer 503, with a Problem at the annotation that is to blame.
func (b *hostBuild) deny(p part, n *named, annotation, why string) {
	field := annotationField(b.translator.options.AnnotationsPrefix + "/" + annotation)
	b.refuse(p.fragment, field, "%s; %s", why, deny)
	if n.denied == "" {
		n.denied = field + ": " + why
	}
}
