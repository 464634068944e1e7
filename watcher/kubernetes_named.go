package watcher

import (
	"context"
	"iter"
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

// namedFeed keeps the data of those Secrets or ConfigMaps that an Ingress, a flag or the ConfigMap of a flag names, and of
// others only that they are there. An object that is named later than it came is fetched then.
type namedFeed[T clusterObject] struct {
	*feed[T]
	data[T]
	fetch func(context.Context, name) (T, error) // an error that IsNotFound: there is none
	log   *slog.Logger
	fixed map[name]bool // that flags name

	named sync.Map // name → true: those that are named now
}

// data is how a kind holds what is kept of named objects only.
type data[T any] struct {
	has    func(T) bool
	forget func(T)   // drops it
	fill   func(T)   // makes it empty where the object has none, so that has is true
	bare   func(T) T // a copy without it
}

var secretData = data[*corev1.Secret]{
	has:    func(o *corev1.Secret) bool { return o.Data != nil },
	forget: func(o *corev1.Secret) { o.Data = nil },
	fill:   func(o *corev1.Secret) { o.Data = map[string][]byte{} },
	bare:   func(o *corev1.Secret) *corev1.Secret { c := *o; c.Data = nil; return &c },
}

var configMapData = data[*corev1.ConfigMap]{
	has:    func(o *corev1.ConfigMap) bool { return o.Data != nil },
	forget: func(o *corev1.ConfigMap) { o.Data = nil },
	fill:   func(o *corev1.ConfigMap) { o.Data = map[string]string{} },
	bare:   func(o *corev1.ConfigMap) *corev1.ConfigMap { c := *o; c.Data = nil; return &c },
}

// secretTypes leaves out what holds neither certificates nor passwords, on the server's side.
const secretTypes = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockercfg," +
	"type!=kubernetes.io/dockerconfigjson,type!=bootstrap.kubernetes.io/token"

func getSecret(client coreclient.SecretsGetter) func(context.Context, name) (*corev1.Secret, error) {
	return func(ctx context.Context, n name) (*corev1.Secret, error) {
		return client.Secrets(n.namespace).Get(ctx, n.name, metav1.GetOptions{})
	}
}

// getConfigMap lists the one, because the rights to list and to watch are needed anyway, and the one to get is not.
func getConfigMap(client coreclient.ConfigMapsGetter) func(context.Context, name) (*corev1.ConfigMap, error) {
	return func(ctx context.Context, n name) (*corev1.ConfigMap, error) {
		list, err := client.ConfigMaps(n.namespace).List(ctx, metav1.ListOptions{FieldSelector: byName(n)})
		if err != nil {
			return nil, err
		}
		if len(list.Items) == 0 {
			return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), n.name)
		}
		return &list.Items[0], nil
	}
}

// trimSecret drops what nobody reads.
func trimSecret(o *corev1.Secret) {
	trimMeta(&o.ObjectMeta, nil)
	o.StringData = nil
}

// newNamedFeed makes a feed whose objects lose their data while nobody names them.
func newNamedFeed[T clusterObject](c *clusterSource, d data[T], fetch func(context.Context, name) (T, error), fixed ...string) *namedFeed[T] {
	s := &namedFeed[T]{data: d, fetch: fetch, log: c.log, fixed: map[name]bool{}}
	for _, flag := range fixed {
		if o, ok := parseName(flag); ok {
			s.fixed[o] = true
		}
	}
	return s
}

// trimmer is trim, and the loss of data that nobody wants.
func (s *namedFeed[T]) trimmer(trim func(T)) func(T) {
	return func(o T) {
		trim(o)
		if !s.isNamed(nameOf(o)) {
			s.forget(o)
		}
	}
}

func (s *namedFeed[T]) isNamed(n name) bool {
	_, named := s.named.Load(n)
	return named
}

// reference learns which objects are named now, beside those of flags.
func (s *namedFeed[T]) reference(names iter.Seq[name]) {
	now := make(map[name]bool)
	for n := range s.fixed {
		now[n] = true
	}
	for n := range names {
		now[n] = true
	}
	s.named.Range(func(n, _ any) bool {
		if !now[n.(name)] {
			s.named.Delete(n)
			s.strip(n.(name))
		}
		return true
	})
	for n := range now {
		s.named.Store(n, true)
	}
}

// strip forgets the data of an object that nobody names any more.
func (s *namedFeed[T]) strip(n name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.objects[n]
	if !known || !s.has(e.object) {
		return
	}
	s.objects[n] = entry[T]{s.bare(e.object), e.version}
	s.changed[n] = struct{}{}
}

// secretsOf yields the Secrets that Ingresses name: in spec.tls, and in annotations such as auth-secret, as NAME or
// NAMESPACE/NAME. Whether another namespace's may be used is translate's to say.
func secretsOf(list []*networkingv1.Ingress) iter.Seq[name] {
	return func(yield func(name) bool) {
		for _, ing := range list {
			for i := range ing.Spec.TLS {
				if n := ing.Spec.TLS[i].SecretName; n != "" && !yield(name{ing.Namespace, n}) {
					return
				}
			}
			for key, value := range ing.Annotations {
				if strings.HasSuffix(key, "-secret") && value != "" && !yield(referenced(ing, value)) {
					return
				}
			}
		}
	}
}

// configMapsOf yields the ConfigMaps that Ingresses name in annotations such as custom-headers, and that settings, the
// ConfigMap of --configmap (or nil), names in keys such as add-headers.
func configMapsOf(list []*networkingv1.Ingress, settings *corev1.ConfigMap) iter.Seq[name] {
	return func(yield func(name) bool) {
		for _, ing := range list {
			for key, value := range ing.Annotations {
				if namesHeaders(key) && value != "" && !yield(referenced(ing, value)) {
					return
				}
			}
		}
		if settings == nil {
			return
		}
		for key, value := range settings.Data {
			if n, ok := parseName(value); ok && namesHeaders(key) && !yield(n) {
				return
			}
		}
	}
}

// namesHeaders tells whether an annotation or a key names a ConfigMap of header fields: custom-headers,
// auth-proxy-set-headers, add-headers, proxy-set-headers. A name too many costs a look at an object that may not be there.
func namesHeaders(key string) bool { return strings.HasSuffix(key, "-headers") }

// referenced is what an annotation's NAME or NAMESPACE/NAME names.
func referenced(ing *networkingv1.Ingress, value string) name {
	if namespace, bare, ok := strings.Cut(value, "/"); ok {
		return name{namespace, bare}
	}
	return name{ing.Namespace, value}
}

// complete fetches the data of named objects that came before they were named, several at once. It tells whether all are
// here; what could not be fetched is tried again at the next call.
func (s *namedFeed[T]) complete(ctx context.Context) bool {
	var missing []name
	s.named.Range(func(n, _ any) bool {
		if e, known := s.get(n.(name)); known && !s.has(e.object) {
			missing = append(missing, n.(name))
		}
		return true
	})
	if len(missing) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, namedTimeout)
	defer cancel()
	var all sync.WaitGroup
	turn := make(chan struct{}, fetchesMax)
	var failed sync.Map
	for _, n := range missing {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			if err := s.renew(ctx, n); err != nil {
				failed.Store(n, err)
				s.log.Debug("an object that an Ingress names cannot be read now", "of", s.what, "object", n.namespace+"/"+n.name, "error", err)
			}
		})
	}
	all.Wait()
	complete := true
	failed.Range(func(any, any) bool { complete = false; return false })
	return complete
}

// renew takes an object from the API server, unless the watch has brought another version meanwhile.
func (s *namedFeed[T]) renew(ctx context.Context, n name) error {
	before, _ := s.get(n)
	o, err := s.fetch(ctx, n)
	if apierrors.IsNotFound(err) {
		return nil // the watch will tell
	}
	if err != nil {
		return err
	}
	if !s.has(o) {
		s.fill(o) // there is none to be fetched again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, known := s.objects[n]; known && now.version == before.version {
		s.set(n, o)
	}
	return nil
}
