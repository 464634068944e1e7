package translate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/route"
)

// TCP and UDP services: two ConfigMaps that lead ports to Services, as ingress-nginx has them:
//
//	"9000": NAMESPACE/SERVICE:PORT[:[PROXY][:[PROXY]]]
//
// The first PROXY says that clients send PROXY headers, the second that the backend gets them. Which version it gets is
// said by a key of ours, sluice-proxy-protocol-9000, so that ingress-nginx reads the same ConfigMap.

// servicesMax is how many ports the two ConfigMaps may open together.
const servicesMax = 256

// proxyVersionKey begins the keys that choose the version of the PROXY protocol towards backends.
const proxyVersionKey = "sluice-proxy-protocol-"

// An OwnPort is a port that the process itself listens at.
type OwnPort struct {
	Port uint16
	Flag string // that says so
}

// streams are what the ConfigMap of --configmap says about TCP and UDP services.
type streams struct {
	idle        time.Duration
	noRetry     bool
	tries       int
	retryWithin time.Duration
	responses   int
	sessionsMax int
	noLog       bool
}

func defaultStreams() streams {
	return streams{idle: 600 * time.Second, tries: 3, retryWithin: 600 * time.Second, responses: 1, sessionsMax: udpSessionsDefault}
}

// Bounds of streams. Every session has a descriptor of its own.
const (
	udpSessionsDefault = 4096
	udpSessionsMax     = 1 << 20
	responsesMax       = 1 << 20
)

// streamKeys are the keys of --configmap about them.
var streamKeys = []configKey{
	{key: "proxy-stream-timeout", preset: "600s", verdict: same, text: "Idle time of a connection of a TCP service, and of a UDP session.",
		parse: duration(time.Second, func(c *configuration) *time.Duration { return &c.streams.idle })},
	{key: "proxy-stream-next-upstream", preset: "true", verdict: same, text: "Another endpoint is asked when one cannot be connected to.",
		parse: func(c *configuration, value string) error {
			on, err := parseBool(value)
			c.streams.noRetry = err == nil && !on
			return err
		}},
	{key: "proxy-stream-next-upstream-timeout", preset: "600s", verdict: same, text: "… until so long after the connection came; 0: always.",
		parse: duration(0, func(c *configuration) *time.Duration { return &c.streams.retryWithin })},
	{key: "proxy-stream-next-upstream-tries", preset: "3", verdict: differs, note: "At most 16.", text: "… so often; 0: as often as may be.",
		parse: number(0, triesMax, func(c *configuration) *int { return &c.streams.tries })},
	{key: "proxy-stream-responses", preset: "1", verdict: same,
		text:  "UDP services: datagrams that answer one of the client's. The last one that is due ends the session; 0: none is due.",
		parse: number(0, responsesMax, func(c *configuration) *int { return &c.streams.responses })},
	{key: "sluice-udp-sessions-max", preset: "4096", verdict: own,
		text:  "Sessions of a UDP service; beyond it the one that was silent longest makes room.",
		parse: number(1, udpSessionsMax, func(c *configuration) *int { return &c.streams.sessionsMax })},
	{key: "disable-stream-access-log", preset: "false", verdict: same, text: "Logs no connections of TCP services and no UDP sessions.",
		parse: boolean(func(c *configuration) *bool { return &c.streams.noLog })},
}

// serviceMap is one of the two ConfigMaps.
type serviceMap struct {
	protocol route.Protocol
	flag     string
	name     string // "namespace/name"; "": none
	object   *corev1.ConfigMap
	read     bool
	uses     []use
	list     []*route.Service
}

func newServiceMaps(o *Options) [2]*serviceMap {
	return [2]*serviceMap{
		{protocol: route.TCP, flag: "--tcp-services-configmap", name: o.TCPServices},
		{protocol: route.UDP, flag: "--udp-services-configmap", name: o.UDPServices},
	}
}

// readServiceMaps takes the ConfigMaps of TCP and UDP services, where they or what holds for all of them has changed.
func (t *Translator) readServiceMaps(list []*corev1.ConfigMap) {
	changed := t.streams == nil || *t.streams != t.config.streams
	for _, m := range t.serviceMaps {
		changed = changed || !m.read || m.object != m.find(list)
	}
	if !changed {
		return
	}
	now := t.config.streams
	t.streams = &now
	left, all := servicesMax, []*route.Service(nil)
	for _, m := range t.serviceMaps {
		m.object, m.read = m.find(list), true
		t.forgetServices(m)
		var problems []route.Problem
		m.list, problems = t.parseServices(m, &left)
		t.ledger.set(m, problems)
		all = append(all, m.list...)
	}
	t.serviceList = all
}

// find looks for the ConfigMap; nil: there is none.
func (m *serviceMap) find(list []*corev1.ConfigMap) *corev1.ConfigMap {
	k, ok := parseKey(m.name)
	if !ok {
		return nil
	}
	if i := slices.IndexFunc(list, func(c *corev1.ConfigMap) bool { return keyOf(c) == k }); i >= 0 {
		return list[i]
	}
	return nil
}

// forgetServices takes the ConfigMap's uses off their clusters.
func (t *Translator) forgetServices(m *serviceMap) {
	for _, u := range m.uses {
		if c := t.clusters[u.id]; c != nil {
			c.uses = slices.DeleteFunc(c.uses, func(other use) bool { return other.at == u.at })
			t.dirtyClusters[c.id] = true
		}
	}
	m.uses = nil
}

// parseServices reads the entries, each for itself. A Service that has not changed is the same pointer as before.
func (t *Translator) parseServices(m *serviceMap, left *int) (list []*route.Service, problems []route.Problem) {
	if m.object == nil {
		return nil, m.missing()
	}
	before := make(map[route.Service]*route.Service, len(m.list))
	for _, s := range m.list {
		before[*s] = s
	}
	owner := route.Object{Kind: "ConfigMap", Namespace: m.object.Namespace, Name: m.object.Name}
	for _, name := range slices.SortedFunc(maps.Keys(m.object.Data), compareServiceKeys) {
		field := "data[" + name + "]"
		if port, ok := strings.CutPrefix(name, proxyVersionKey); ok {
			if reason := m.proxyVersionFault(port, m.object.Data[name]); reason != "" {
				problems = append(problems, problem(owner, field, "%s", reason))
			}
			continue
		}
		s, err := t.parseService(m, name, m.object.Data[name])
		if err == nil && *left == 0 {
			err = fmt.Errorf("more than %d ports: take some out", servicesMax)
		}
		if err != nil {
			problems = append(problems, problem(owner, field, "%s; the port is not opened", err))
			continue
		}
		*left--
		s.Owner = owner
		if old := before[s]; old != nil {
			list = append(list, old)
		} else {
			list = append(list, &s)
		}
		t.useService(m, &s)
	}
	return list, problems
}

// compareServiceKeys orders ports by number.
func compareServiceKeys(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

func (m *serviceMap) missing() []route.Problem {
	if m.name == "" {
		return nil
	}
	k, ok := parseKey(m.name)
	if !ok {
		return []route.Problem{problem(route.Object{Kind: "ConfigMap", Name: m.name}, m.flag, "is not NAMESPACE/NAME; no port is opened")}
	}
	return []route.Problem{problem(route.Object{Kind: "ConfigMap", Namespace: k.namespace, Name: k.name}, m.flag,
		"does not exist; no %s port is opened until it is there", m.protocol)}
}

// parseService reads one entry.
func (t *Translator) parseService(m *serviceMap, name, value string) (s route.Service, err error) {
	port, err := strconv.ParseUint(name, 10, 16)
	if err != nil || port == 0 || name[0] == '0' || name[0] == '+' {
		return s, fmt.Errorf("is no port: write a number from 1 to 65535")
	}
	c := &t.config.streams
	s = route.Service{Protocol: m.protocol, Port: uint16(port), Idle: c.idle, NoRetry: c.noRetry, Tries: c.tries,
		RetryWithin: c.retryWithin, NoLog: c.noLog}
	if m.protocol == route.UDP {
		s.Responses, s.SessionsMax = c.responses, c.sessionsMax
	} else if i := slices.IndexFunc(t.options.OwnPorts, func(p OwnPort) bool { return p.Port == s.Port }); i >= 0 {
		return s, fmt.Errorf("is this proxy's own port (%s): choose another one for either", t.options.OwnPorts[i].Flag)
	}
	words := strings.Split(strings.TrimSpace(value), ":")
	k, ok := parseKey(words[0])
	if !ok || len(words) < 2 || words[1] == "" {
		return s, fmt.Errorf("%q is not NAMESPACE/SERVICE:PORT", value)
	}
	s.Namespace, s.Service, s.To = k.namespace, k.name, words[1]
	if err := readProxyWords(&s, words[2:]); err != nil {
		return s, err
	}
	if s.ProxyTo != 0 && m.object.Data[proxyVersionKey+name] == "v2" {
		s.ProxyTo = 2
	}
	if s.Cluster = clusterID(k, s.To, speaksAny); m.protocol == route.UDP {
		s.Cluster += udpVariant
	}
	return s, nil
}

// readProxyWords reads what stands behind the port: PROXY or nothing for clients, then the same for the backend.
func readProxyWords(s *route.Service, words []string) error {
	if len(words) > 0 && s.Protocol == route.UDP {
		return errors.New("holds more than NAMESPACE/SERVICE:PORT: the PROXY protocol is for TCP services only")
	}
	for i, word := range words {
		proxy := strings.EqualFold(word, "PROXY")
		switch {
		case i > 1 || word != "" && !proxy:
			return fmt.Errorf("%q is not one of :PROXY, ::PROXY and :PROXY:PROXY behind the port", ":"+strings.Join(words, ":"))
		case proxy && i == 0:
			s.ProxyFrom = true
		case proxy:
			s.ProxyTo = 1
		}
	}
	return nil
}

// proxyVersionFault tells what is wrong with a key that chooses a version; "": nothing.
func (m *serviceMap) proxyVersionFault(port, value string) string {
	entry, there := m.object.Data[port]
	words := strings.Split(entry, ":")
	switch {
	case value != "v1" && value != "v2":
		return fmt.Sprintf("%q is neither v1 nor v2; backends get v1", value)
	case m.protocol == route.UDP:
		return "does nothing: the PROXY protocol is for TCP services only"
	case !there:
		return "does nothing: there is no entry " + port
	case len(words) != 4 || !strings.EqualFold(words[3], "PROXY"):
		return fmt.Sprintf("does nothing: entry %s sends no PROXY header; write NAMESPACE/SERVICE:PORT::PROXY", port)
	}
	return ""
}

// useService records that an entry names a cluster.
func (t *Translator) useService(m *serviceMap, s *route.Service) {
	kind := placeTCP
	if s.Protocol == route.UDP {
		kind = placeUDP
	}
	u := use{at: place{kind: kind, rule: int32(s.Port)}, id: s.Cluster, service: key{s.Namespace, s.Service}, port: s.To,
		udp: s.Protocol == route.UDP, owner: s.Owner}
	m.uses = append(m.uses, u)
	t.useCluster(u)
}
