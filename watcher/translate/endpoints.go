package translate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// sliceIndex finds the EndpointSlices of a Service.
type sliceIndex struct {
	index[*discoveryv1.EndpointSlice]
	service map[key]key                                // of a slice that is known
	slices  map[key]map[key]*discoveryv1.EndpointSlice // of a Service
}

// update takes the next list and gives the Services whose slices changed.
func (x *sliceIndex) update(list []*discoveryv1.EndpointSlice) (services []key) {
	if x.service == nil {
		x.service = make(map[key]key)
		x.slices = make(map[key]map[key]*discoveryv1.EndpointSlice)
	}
	for _, k := range x.index.update(list) {
		if s, ok := x.service[k]; ok {
			delete(x.service, k)
			if delete(x.slices[s], k); len(x.slices[s]) == 0 {
				delete(x.slices, s)
			}
			services = append(services, s)
		}
		if e, ok := x.by[k]; ok {
			s := key{e.Namespace, e.Labels[discoveryv1.LabelServiceName]}
			x.service[k] = s
			if x.slices[s] == nil {
				x.slices[s] = make(map[key]*discoveryv1.EndpointSlice, 1)
			}
			x.slices[s][k] = e
			services = append(services, s)
		}
	}
	return services
}

func (x *sliceIndex) of(service key) map[key]*discoveryv1.EndpointSlice { return x.slices[service] }

// endpoints collects the addresses behind one port of a Service.
type endpoints struct {
	options  *Options
	protocol corev1.Protocol
	service  *corev1.Service // nil: there is none
	slices   map[key]*discoveryv1.EndpointSlice
	list     []upstream.Address
	unusable string          // why there can be no endpoint, for whoever names the Service
	field    string          // … which part of the name is to blame: ".name" or ".port"
	problems []route.Problem // of the slices themselves
}

// A servicePort is a port of a Service as far as endpoints need it.
type servicePort struct {
	name   string // as EndpointSlices have it
	number int32
	target int32  // 0: named, or not known
	app    string // appProtocol
}

func (e *endpoints) collect(port string) []upstream.Address {
	s := e.service
	switch {
	case s == nil:
		e.unusable, e.field = "does not exist; create it, or name another one", ".name"
		return nil
	case s.Spec.Type == corev1.ServiceTypeExternalName:
		e.external(port)
		return e.list
	}
	p, ok := findPort(s, port, e.protocol)
	if !ok {
		e.unusable, e.field = fmt.Sprintf("has no %s port %s; its ports: %s", e.protocol, cmp.Or(port, "at all"), portNames(s)), ".port"
		return nil
	}
	for _, slice := range e.slices {
		e.add(slice, p)
	}
	slices.SortFunc(e.list, compareAddresses)
	e.list = slices.CompactFunc(e.list, func(a, b upstream.Address) bool { return a.Addr == b.Addr })
	slices.SortFunc(e.problems, compareProblems)
	return e.list
}

// findPort looks for a port by number or name, then, as ingress-nginx does, by target port. "" is the first one. A
// headless Service may have no ports at all: a number stands for itself then.
func findPort(s *corev1.Service, port string, protocol corev1.Protocol) (servicePort, bool) {
	var byTarget *corev1.ServicePort
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if cmp.Or(p.Protocol, corev1.ProtocolTCP) != protocol {
			continue
		}
		if port == "" || p.Name == port || strconv.Itoa(int(p.Port)) == port {
			return portOf(p), true
		}
		if byTarget == nil && p.TargetPort.String() == port {
			byTarget = p
		}
	}
	if byTarget != nil {
		return portOf(byTarget), true
	}
	if n, err := strconv.Atoi(port); err == nil && len(s.Spec.Ports) == 0 && s.Spec.ClusterIP == corev1.ClusterIPNone {
		return servicePort{number: int32(n), target: int32(n)}, true
	}
	return servicePort{}, false
}

func portOf(p *corev1.ServicePort) servicePort {
	out := servicePort{name: p.Name, number: p.Port}
	if p.AppProtocol != nil {
		out.app = *p.AppProtocol
	}
	if p.TargetPort.Type == intstr.Int {
		out.target = cmp.Or(p.TargetPort.IntVal, p.Port)
	}
	return out
}

// add takes the addresses of one slice.
func (e *endpoints) add(s *discoveryv1.EndpointSlice, p servicePort) {
	if s.AddressType == discoveryv1.AddressTypeFQDN {
		e.refuse(s, "addressType", "FQDN is not supported; use a Service of type ExternalName")
		return
	}
	ports := slicePorts(s, p, e.protocol)
	controlled := e.controlled(s)
	for i := range s.Endpoints {
		endpoint := &s.Endpoints[i]
		usable, terminating := condition(endpoint.Conditions)
		if !usable {
			continue
		}
		pod := controlled && endpoint.TargetRef != nil && endpoint.TargetRef.Kind == "Pod"
		for j, text := range endpoint.Addresses {
			a, err := netip.ParseAddr(text)
			if err != nil || a.Zone() != "" {
				e.refuse(s, fmt.Sprintf("endpoints[%d].addresses[%d]", i, j), "%q is not an address", text)
				continue
			}
			for _, port := range ports {
				e.list = append(e.list, upstream.Address{Addr: netip.AddrPortFrom(a.Unmap(), port), Terminating: terminating, Pod: pod})
			}
		}
	}
}

// endpointSliceController is who manages the slices of Services with a selector.
const endpointSliceController = "endpointslice-controller.k8s.io"

// controlled tells whether a slice is the endpoint controller's. Who writes one by hand may set its label, too; but where
// the Service has a selector, the controller takes it for its own and makes it say what the pods say.
func (e *endpoints) controlled(s *discoveryv1.EndpointSlice) bool {
	return len(e.service.Spec.Selector) > 0 && s.Labels[discoveryv1.LabelManagedBy] == endpointSliceController
}

func (e *endpoints) refuse(s *discoveryv1.EndpointSlice, field, format string, args ...any) {
	owner := route.Object{Kind: "EndpointSlice", Namespace: s.Namespace, Name: s.Name}
	e.problems = append(e.problems, problem(owner, field, format, args...))
}

// condition tells whether an endpoint takes requests, and whether it is about to go: it serves on, but is asked only when
// nobody else is ready.
func condition(c discoveryv1.EndpointConditions) (usable, terminating bool) {
	ready := c.Ready == nil || *c.Ready
	serving := ready
	if c.Serving != nil {
		serving = *c.Serving
	}
	terminating = c.Terminating != nil && *c.Terminating
	return ready && !terminating || serving && terminating, terminating
}

// slicePorts are the ports of a slice that stand for a Service's port: those of its name; of a Service's only port, which
// needs no name, the slice's only port; else the number that the Service itself says.
func slicePorts(s *discoveryv1.EndpointSlice, p servicePort, protocol corev1.Protocol) []uint16 {
	var ports []uint16
	var only *discoveryv1.EndpointPort
	count := 0
	for i := range s.Ports {
		port := &s.Ports[i]
		if has := port.Protocol; has == nil && protocol != corev1.ProtocolTCP || has != nil && *has != protocol {
			continue
		}
		count++
		only = port
		if name := port.Name; name == nil && p.name == "" || name != nil && *name == p.name {
			ports = appendPort(ports, port.Port, p)
		}
	}
	if ports == nil && count == 1 && p.name == "" {
		ports = appendPort(ports, only.Port, p)
	}
	if ports == nil {
		ports = appendPort(ports, nil, p)
	}
	return ports
}

// appendPort adds a slice's port; one without a number means every port, so the Service's target is taken.
func appendPort(ports []uint16, number *int32, p servicePort) []uint16 {
	n := p.target
	if number != nil {
		n = *number
	}
	if n < 1 || n > 65535 || slices.Contains(ports, uint16(n)) {
		return ports
	}
	return append(ports, uint16(n))
}

func compareAddresses(a, b upstream.Address) int {
	return cmp.Or(a.Addr.Compare(b.Addr), boolCompare(b.Pod, a.Pod), boolCompare(a.Terminating, b.Terminating))
}

// boolCompare puts false first: of an endpoint named twice a pod's counts, then the one that is ready.
func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// external gives the one endpoint of an ExternalName Service.
func (e *endpoints) external(port string) {
	if e.options.DisableSVCExternalName {
		e.unusable, e.field = "is of type ExternalName, which --disable-svc-external-name forbids", ".name"
		return
	}
	number, ok := externalPort(e.service, port)
	if !ok {
		e.unusable, e.field = fmt.Sprintf("has no port %s; its ports: %s", cmp.Or(port, "at all"), portNames(e.service)), ".port"
		return
	}
	name := strings.ToLower(strings.TrimSuffix(e.service.Spec.ExternalName, "."))
	if a, err := netip.ParseAddr(name); err == nil && a.Zone() == "" {
		if a.Unmap().IsLoopback() && !e.options.AllowLoopback {
			e.unusable, e.field = "leads to loopback, which objects of a cluster may not name", ".name"
			return
		}
		e.list = []upstream.Address{{Addr: netip.AddrPortFrom(a.Unmap(), number)}}
		return
	}
	switch {
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		e.unusable, e.field = fmt.Sprintf("has an externalName, %q, that is no DNS name", e.service.Spec.ExternalName), ".name"
	case (name == "localhost" || strings.HasSuffix(name, ".localhost")) && !e.options.AllowLoopback:
		e.unusable, e.field = "leads to localhost, which objects of a cluster may not name", ".name"
	default:
		e.list = []upstream.Address{{Name: name, Port: number}}
	}
}

// externalPort is the port of an ExternalName Service, which need not declare any: a number stands for itself.
func externalPort(s *corev1.Service, port string) (uint16, bool) {
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if port == "" || p.Name == port || strconv.Itoa(int(p.Port)) == port {
			n := cmp.Or(portOf(p).target, p.Port)
			return uint16(n), n >= 1 && n <= 65535
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return uint16(n), err == nil && n > 0
}
