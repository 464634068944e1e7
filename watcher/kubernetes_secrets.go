package watcher

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
)

// secretFeed keeps the data of those Secrets that an Ingress or a flag names, and of others only that they are there. The
// API server is not even asked for the kinds that can hold nothing for us. A Secret that is named later than it came is
// fetched then.
type secretFeed struct {
	*feed[*corev1.Secret]
	client coreclient.SecretsGetter
	log    *slog.Logger
	fixed  map[name]bool // that flags name

	named sync.Map // name → true: those that are named now
}

// secretTypes leaves out what holds neither certificates nor passwords, on the server's side.
const secretTypes = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token,type!=kubernetes.io/dockercfg," +
	"type!=kubernetes.io/dockerconfigjson,type!=bootstrap.kubernetes.io/token"

// trimSecret drops the data of Secrets that nobody names.
func (s *secretFeed) trimSecret(o *corev1.Secret) {
	trimMeta(&o.ObjectMeta, nil)
	if _, named := s.named.Load(nameOf(o)); !named {
		o.Data = nil
	}
	o.StringData = nil
}

// reference learns which Secrets are named now: those of flags, and those of the Ingresses.
func (s *secretFeed) reference(list []*networkingv1.Ingress) {
	now := make(map[name]bool, len(list))
	for n := range s.fixed {
		now[n] = true
	}
	for _, ing := range list {
		for n := range secretsOf(ing) {
			now[n] = true
		}
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

// strip forgets the data of a Secret that nobody names any more.
func (s *secretFeed) strip(n name) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, known := s.objects[n]
	if !known || e.object.Data == nil {
		return
	}
	bare := *e.object
	bare.Data = nil
	s.objects[n] = entry[*corev1.Secret]{&bare, e.version}
	s.changed[n] = struct{}{}
}

// secretsOf yields the Secrets that an Ingress names: in spec.tls, and in annotations such as auth-secret, as NAME or
// NAMESPACE/NAME.
func secretsOf(ing *networkingv1.Ingress) func(func(name) bool) {
	return func(yield func(name) bool) {
		for i := range ing.Spec.TLS {
			if n := ing.Spec.TLS[i].SecretName; n != "" && !yield(name{ing.Namespace, n}) {
				return
			}
		}
		for key, value := range ing.Annotations {
			if !strings.HasSuffix(key, "-secret") || value == "" {
				continue
			}
			n := name{ing.Namespace, value}
			if namespace, bare, ok := strings.Cut(value, "/"); ok {
				n = name{namespace, bare}
			}
			if !yield(n) {
				return
			}
		}
	}
}

// complete fetches the data of named Secrets that came before they were named, several at once. It tells whether all are
// here; what could not be fetched is tried again at the next call.
func (s *secretFeed) complete(ctx context.Context) bool {
	var missing []name
	s.named.Range(func(n, _ any) bool {
		if e, known := s.get(n.(name)); known && e.object.Data == nil {
			missing = append(missing, n.(name))
		}
		return true
	})
	if len(missing) == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, secretsTimeout)
	defer cancel()
	var all sync.WaitGroup
	turn := make(chan struct{}, fetchesMax)
	var failed sync.Map
	for _, n := range missing {
		all.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			if err := s.fetch(ctx, n); err != nil {
				failed.Store(n, err)
				s.log.Debug("a Secret that an Ingress names cannot be read now", "secret", n.namespace+"/"+n.name, "error", err)
			}
		})
	}
	all.Wait()
	complete := true
	failed.Range(func(any, any) bool { complete = false; return false })
	return complete
}

// fetch takes a Secret from the API server, unless the watch has brought another version meanwhile.
func (s *secretFeed) fetch(ctx context.Context, n name) error {
	before, _ := s.get(n)
	o, err := s.client.Secrets(n.namespace).Get(ctx, n.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the watch will tell
	}
	if err != nil {
		return err
	}
	if o.Data == nil {
		o.Data = map[string][]byte{} // there is none to be fetched again
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now, known := s.objects[n]; known && now.version == before.version {
		s.set(n, o)
	}
	return nil
}
