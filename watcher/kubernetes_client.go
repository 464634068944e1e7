package watcher

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	coordinationclient "k8s.io/client-go/kubernetes/typed/coordination/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	networkingclient "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// clients speak with the API server, one for each group of kinds, over one set of connections.
type clients struct {
	core         *coreclient.CoreV1Client
	networking   *networkingclient.NetworkingV1Client
	discovery    *discoveryclient.DiscoveryV1Client
	coordination *coordinationclient.CoordinationV1Client
	host         string // of the API server, for people
	namespace    string // of the kubeconfig's context, or of the pod; "": none is named
}

// dial reads how the cluster is reached. It does not speak with it yet.
func dial(kubeconfig string, log *slog.Logger) (*clients, error) {
	config, namespace, err := restConfig(kubeconfig)
	if err != nil {
		return nil, err
	}
	config.UserAgent = "sluice"
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	config.QPS, config.Burst = requestsPerSecond, requestsBurst
	contact := &contact{host: config.Host, log: log, now: time.Now}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return contact.wrap(next) })
	one, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	c := &clients{host: config.Host, namespace: namespace}
	var errs [4]error
	c.core, errs[0] = coreclient.NewForConfigAndClient(config, one)
	c.networking, errs[1] = networkingclient.NewForConfigAndClient(config, one)
	c.discovery, errs[2] = discoveryclient.NewForConfigAndClient(config, one)
	c.coordination, errs[3] = coordinationclient.NewForConfigAndClient(config, one)
	return c, errors.Join(errs[:]...)
}

// serviceAccountNamespace is where a pod finds its own namespace.
const serviceAccountNamespace = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

func restConfig(kubeconfig string) (config *rest.Config, namespace string, err error) {
	if kubeconfig == "" {
		if config, err = rest.InClusterConfig(); err != nil {
			return nil, "", fmt.Errorf("the cluster that this runs in: %w", err)
		}
		own, _ := os.ReadFile(serviceAccountNamespace) // not there: nothing is known
		return config, strings.TrimSpace(string(own)), nil
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
	if list := filepath.SplitList(kubeconfig); len(list) > 1 { // as $KUBECONFIG may be
		rules = &clientcmd.ClientConfigLoadingRules{Precedence: list}
	}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{})
	if config, err = loader.ClientConfig(); err != nil {
		return nil, "", fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	if raw, err := loader.RawConfig(); err == nil {
		if context := raw.Contexts[raw.CurrentContext]; context != nil {
			namespace = context.Namespace
		}
	}
	return config, namespace, nil
}

// contact tells the log when the API server falls silent, and when it answers again.
type contact struct {
	host string
	log  *slog.Logger
	now  func() time.Time

	mu     sync.Mutex
	lost   time.Time // zero: it answers
	told   time.Time // when the log said so last
	worked bool      // it has answered once
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (c *contact) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(r)
		if err == nil || r.Context().Err() == nil {
			c.note(err)
		}
		return resp, err
	})
}

func (c *contact) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if err == nil {
		if !c.lost.IsZero() {
			c.log.Info("the API server answers", "server", c.host, "after", now.Sub(c.lost).Round(time.Millisecond))
		}
		c.lost, c.told, c.worked = time.Time{}, time.Time{}, true
		return
	}
	if c.lost.IsZero() {
		c.lost = now
	}
	if !c.told.IsZero() && now.Sub(c.told) < contactTold {
		return
	}
	c.told = now
	if c.worked {
		c.log.Warn("the API server does not answer: what it said last is served on, and it is asked again and again",
			"server", c.host, "error", err)
	} else {
		c.log.Warn("the API server does not answer: nothing is served before it has, and it is asked again and again",
			"server", c.host, "error", err)
	}
}
