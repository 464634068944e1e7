package watcher

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// addressBook knows which addresses stand in the statuses: those that a flag names, those of a Service, or those of the
// nodes whose proxies are ready.
type addressBook struct {
	log     *slog.Logger
	clients *clients
	changed func()

	fixed    []networkingv1.IngressLoadBalancerIngress
	service  *feed[*corev1.Service]
	own      name // this pod; zero: not in a pod
	internal bool

	nodes *feed[*corev1.Node]
	ready chan struct{}      // closed once pods is set
	pods  *feed[*corev1.Pod] // like this one
}

func newAddressBook(c *clusterSource, changed func()) (*addressBook, error) {
	b := &addressBook{log: c.log, clients: c.clients, changed: changed, internal: c.Status.InternalIP,
		own: name{c.Status.PodNamespace, c.Status.Pod}, ready: make(chan struct{})}
	for _, a := range c.Status.PublishAddresses {
		b.fixed = append(b.fixed, addressOf(a))
	}
	notice := func(time.Time) { changed() }
	core := c.clients.core.RESTClient()
	switch o, ok := parseName(c.Status.PublishService); {
	case len(b.fixed) > 0:
		b.fixed = sortAddresses(b.fixed)
	case ok:
		b.service = newFeed("Service "+c.Status.PublishService,
			lister(core, "services", o.namespace, byName(o), ""), &corev1.Service{}, trimService, notice)
	case c.Status.PublishService != "":
		return nil, fmt.Errorf("--publish-service=%s: give NAMESPACE/NAME", c.Status.PublishService)
	case b.inPod():
		b.nodes = newFeed("Nodes", lister(core, "nodes", "", "", ""), &corev1.Node{}, trimNode, notice)
	default:
		c.log.Warn("the addresses of Ingresses are unknown, so their status is not written: give --publish-status-address=IP or --publish-service=NAMESPACE/NAME, or set POD_NAME and POD_NAMESPACE in a pod")
	}
	return b, nil
}

func (b *addressBook) inPod() bool { return b.own.namespace != "" && b.own.name != "" }

// run follows what the addresses depend on.
func (b *addressBook) run(ctx context.Context) {
	if b.service != nil {
		go b.service.run(ctx, b.log)
	}
	if b.nodes != nil {
		go b.nodes.run(ctx, b.log)
	}
	if !b.inPod() {
		return
	}
	byField, byLabel, ok := b.peers(ctx)
	if !ok {
		return
	}
	b.pods = newFeed("Pods of "+b.own.namespace, lister(b.clients.core.RESTClient(), "pods", b.own.namespace, byField, byLabel),
		&corev1.Pod{}, trimPod, func(time.Time) { b.changed() })
	close(b.ready)
	b.pods.run(ctx, b.log)
}

// Labels that tell the generations of a DaemonSet or Deployment apart.
var generationLabels = []string{"pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
	"apps.kubernetes.io/pod-index"}

// peers selects the pods like this one: those with its labels. false: ctx has ended.
func (b *addressBook) peers(ctx context.Context) (byField, byLabel string, ok bool) {
	told := false
	for ctx.Err() == nil {
		pod, err := b.clients.core.Pods(b.own.namespace).Get(ctx, b.own.name, metav1.GetOptions{})
		if err == nil {
			for _, key := range generationLabels {
				delete(pod.Labels, key)
			}
			if len(pod.Labels) == 0 {
				b.log.Warn("this pod has no labels, so its replicas are unknown: it counts as the only one", "pod", b.own.name)
				return byName(b.own), "", true
			}
			return "", labels.SelectorFromSet(pod.Labels).String(), true
		}
		if !told && ctx.Err() == nil {
			told = true
			b.log.Warn("this pod cannot be read, so statuses are not written yet: $POD_NAMESPACE and $POD_NAME must name it, and get, list and watch on pods be granted",
				"pod", b.own.namespace+"/"+b.own.name, "error", err)
		}
		sleepContext(ctx, retryMax)
	}
	return "", "", false
}

// current are the addresses, sorted, each once; those of the nodes without the named pod. known: they can be told now.
func (b *addressBook) current(without string) (list []networkingv1.IngressLoadBalancerIngress, known bool) {
	switch {
	case b.fixed != nil:
		list = b.fixed
	case b.service != nil:
		if !b.service.isSynced() {
			return nil, false
		}
		services, _ := b.service.take()
		for _, s := range services {
			list = serviceAddresses(s)
		}
	case b.nodes == nil:
		return nil, false
	default:
		return b.nodeAddresses(without)
	}
	if without != "" && b.isLast(without) {
		return nil, true
	}
	return list, true
}

func (b *addressBook) peersNow() (list []*corev1.Pod, known bool) {
	select {
	case <-b.ready:
	default:
		return nil, false
	}
	if !b.pods.isSynced() {
		return nil, false
	}
	list, _ = b.pods.take()
	return list, true
}

// isLast tells whether no other replica is known that serves the same addresses.
func (b *addressBook) isLast(without string) bool {
	pods, known := b.peersNow()
	if !known {
		return !b.inPod()
	}
	return !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.Name != without && isRunning(p) })
}

func isRunning(p *corev1.Pod) bool {
	return p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning
}

func isReady(p *corev1.Pod) bool {
	return isRunning(p) && slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// nodeAddresses are those of the nodes whose proxies are ready, but for one pod.
func (b *addressBook) nodeAddresses(without string) (list []networkingv1.IngressLoadBalancerIngress, known bool) {
	pods, known := b.peersNow()
	if !known || !b.nodes.isSynced() {
		return nil, false
	}
	for _, p := range pods {
		if p.Name == without || !isReady(p) {
			continue
		}
		if node, ok := b.nodes.get(name{"", p.Spec.NodeName}); ok {
			list = append(list, addressesOfNode(node.object, b.internal)...)
		}
	}
	return sortAddresses(list), true
}

// addressesOfNode are its external ones, or the internal ones if it has none or they are asked for.
func addressesOfNode(n *corev1.Node, internal bool) []networkingv1.IngressLoadBalancerIngress {
	var inside, outside []networkingv1.IngressLoadBalancerIngress
	for _, a := range n.Status.Addresses {
		switch a.Type {
		case corev1.NodeInternalIP:
			inside = append(inside, addressOf(a.Address))
		case corev1.NodeExternalIP:
			outside = append(outside, addressOf(a.Address))
		}
	}
	if internal || len(outside) == 0 {
		return inside
	}
	return outside
}

// serviceAddresses are what a Service is reached by from outside, as ingress-nginx sees it.
func serviceAddresses(s *corev1.Service) (list []networkingv1.IngressLoadBalancerIngress) {
	switch s.Spec.Type {
	case corev1.ServiceTypeExternalName:
		list = append(list, addressOf(s.Spec.ExternalName))
	case corev1.ServiceTypeLoadBalancer:
		for _, a := range s.Status.LoadBalancer.Ingress {
			list = append(list, addressOf(cmp.Or(a.IP, a.Hostname)))
		}
	default:
		if len(s.Spec.ExternalIPs) == 0 && s.Spec.ClusterIP != corev1.ClusterIPNone && s.Spec.ClusterIP != "" {
			list = append(list, addressOf(s.Spec.ClusterIP))
		}
	}
	for _, a := range s.Spec.ExternalIPs {
		list = append(list, addressOf(a))
	}
	return sortAddresses(list)
}

// addressOf is an address or a name as a status holds it.
func addressOf(text string) networkingv1.IngressLoadBalancerIngress {
	if _, err := netip.ParseAddr(text); err == nil {
		return networkingv1.IngressLoadBalancerIngress{IP: text}
	}
	return networkingv1.IngressLoadBalancerIngress{Hostname: text}
}

// sortAddresses sorts in place and drops what stands twice.
func sortAddresses(list []networkingv1.IngressLoadBalancerIngress) []networkingv1.IngressLoadBalancerIngress {
	text := func(a networkingv1.IngressLoadBalancerIngress) string { return cmp.Or(a.IP, a.Hostname) }
	slices.SortFunc(list, func(a, b networkingv1.IngressLoadBalancerIngress) int { return strings.Compare(text(a), text(b)) })
	return slices.CompactFunc(list, func(a, b networkingv1.IngressLoadBalancerIngress) bool { return text(a) == text(b) })
}

// addressText shows addresses to people.
func addressText(list []networkingv1.IngressLoadBalancerIngress) string {
	var text []string
	for _, a := range list {
		text = append(text, cmp.Or(a.IP, a.Hostname))
	}
	if text == nil {
		return "none"
	}
	return strings.Join(text, ",")
}
