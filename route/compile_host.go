package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
)

// hostWork is the host that is being compiled.
type hostWork struct {
	*Host
	common chain     // the host's own filters
	last   ruleChain // of the rule before: rules of one Ingress often share their filters
	usable []int     // rules that have a route
}

// compileHosts takes over the hosts that have not changed, and compiles the others.
func (k *compiler) compileHosts() {
	if changed, ok := k.changedInPlace(); ok {
		k.exchangeHosts(changed)
	} else {
		k.arrangeHosts()
	}
	if k.next.catchAll = k.next.exact.find(nil, k.next.hosts); k.next.catchAll == nil {
		k.next.catchAll = &Host{source: &VirtualHost{}, miss: k.next.miss}
	}
}

// changedInPlace finds which hosts changed, if no other has to be looked at: all names stand where they stood before, and
// nothing came or went that hosts share. Most changes of one Ingress are of this kind.
func (k *compiler) changedInPlace() (changed []int, ok bool) {
	was, now := k.previous.config.Hosts, k.config.Hosts
	if len(now) != len(was) || len(k.previous.hosts) != len(was) || len(k.added)+len(k.removed) > 0 || k.next.miss != k.previous.miss {
		return nil, false
	}
	for i, v := range now {
		if v == was[i] {
			continue
		}
		if v == nil || v.Name != was[i].Name {
			return nil, false
		}
		changed = append(changed, i)
	}
	return changed, true
}

// exchangeHosts compiles the hosts that changed in place, and leaves all others where they are.
func (k *compiler) exchangeHosts(changed []int) {
	k.next.exact, k.next.wildcard = k.previous.exact, k.previous.wildcard
	k.next.hosts = slices.Clone(k.previous.hosts)
	for _, i := range changed {
		h := k.newHost(k.config.Hosts[i])
		h.hash = k.previous.hosts[i].hash
		k.next.hosts[i] = h
	}
	for _, h := range k.next.hosts {
		k.next.problems = append(k.next.problems, h.problems...)
	}
}

// arrangeHosts puts all hosts together, whatever became of their order.
func (k *compiler) arrangeHosts() {
	wildcards := 0
	for _, v := range k.config.Hosts {
		if v != nil && isWildcard(v.Name) {
			wildcards++
		}
	}
	all := len(k.config.Hosts)
	k.next.exact = newTable(all-wildcards, all, 0)
	k.next.wildcard = newTable(wildcards, all, len("*."))
	k.next.hosts = make([]*Host, 0, all)
	for _, v := range k.config.Hosts {
		if v != nil {
			k.compileHost(v)
		}
	}
}

func (k *compiler) compileHost(v *VirtualHost) {
	name, before, now := v.Name, &k.previous.exact, &k.next.exact
	if isWildcard(name) {
		name, before, now = name[len("*."):], &k.previous.wildcard, &k.next.wildcard
	}
	old := k.hostBefore(v)
	if old == nil {
		old = before.find([]byte(name), k.previous.hosts)
	}
	h := k.unchanged(old, v)
	if h == nil {
		if wrong := checkHostName(name); wrong != "" {
			k.problem(v.Owner, hostField(v), "%s", wrong)
			return
		}
		h = k.newHost(v)
		h.hash = hashOf(name)
	}
	if first := now.put(h, k.next.hosts); first != nil {
		k.problem(v.Owner, hostField(v), "is there twice; that of %s counts", first.source.Owner.text())
		return
	}
	k.next.hosts = append(k.next.hosts, h)
	k.next.problems = append(k.next.problems, h.problems...)
}

// hostBefore finds the Host of v in the Snapshot before if it stands where it is expected, as most do.
func (k *compiler) hostBefore(v *VirtualHost) *Host {
	list := k.previous.hosts
	for i := k.hostAt; i < min(k.hostAt+2, len(list)); i++ {
		if list[i].source == v {
			k.hostAt = i + 1
			return list[i]
		}
	}
	return nil
}

// unchanged answers the Host of the Snapshot before, as far as it is still what v and its clusters say; else nil.
func (k *compiler) unchanged(old *Host, v *VirtualHost) *Host {
	if old == nil || old.source != v || k.affected(old) {
		return nil
	}
	if k.next.miss == k.previous.miss {
		return old
	}
	if old.ownMiss {
		return nil
	}
	moved := *old
	if len(moved.routes) <= len(moved.nearRoutes) {
		moved.routes = moved.nearRoutes[:len(moved.routes)] // the old one is not kept for them
	}
	moved.miss = k.next.miss
	return &moved
}

// affected tells whether a cluster that the host names has come or gone.
func (k *compiler) affected(h *Host) bool {
	if len(k.added) > 0 {
		for _, id := range h.missing {
			if k.added[id] {
				return true
			}
		}
	}
	if len(k.removed) > 0 {
		for _, live := range h.clusters {
			if k.removed[live] {
				return true
			}
		}
	}
	return false
}

// newHost compiles a host from its beginning.
func (k *compiler) newHost(v *VirtualHost) *Host {
	k.host = hostWork{Host: &Host{source: v}, usable: k.host.usable[:0]}
	h := k.host.Host
	if h.routes = h.nearRoutes[:0]; len(v.Rules) > len(h.nearRoutes) {
		h.routes = make([]*l7.Route, 0, len(v.Rules))
	}
	h.routes = h.routes[:len(v.Rules)]
	k.hostCertificate()
	k.hostClientAuth()
	k.hostCiphers()
	k.host.common = newChain(k.stages(v.Owner, v.Filters))
	k.host.common.failed = k.host.common.failed || v.ClientAuth != nil && h.ClientAuth == nil
	if v.Passthrough != "" {
		if c := k.named(v.Passthrough); c != nil {
			h.Passthrough = c.upstream
		} else {
			// Its clients expect the backend's TLS: what we terminate instead must not reach any backend.
			k.hostProblem(v.Owner, hostField(v), "cluster %s of the TLS pass-through does not exist; requests are answered 503", v.Passthrough)
			k.host.common.failed = true
		}
	}
	for i := range v.Rules {
		k.compileRule(i)
		k.worked(1)
	}
	if v.RegexMode {
		k.compilePatterns()
	} else {
		k.compileTrie()
	}
	k.compileMiss()
	return h
}

func (k *compiler) hostCertificate() {
	h := k.host.Host
	c := h.source.Certificate
	if c == nil {
		return
	}
	parsed := k.certificate(c)
	if parsed.err != nil {
		h.refused = true
		h.problems = append(h.problems, parsed.problem(c))
		return
	}
	h.Certificate = parsed.certificate
}

// hostCiphers reads the host's own suites. A list without one that is spoken leaves the host those of all.
func (k *compiler) hostCiphers() {
	h := k.host.Host
	if h.source.Ciphers == "" {
		return
	}
	suites, _ := fastpath.CipherSuites(h.source.Ciphers)
	if len(suites) == 0 {
		k.hostProblem(h.source.Owner, hostField(h.source), "%q names no cipher suite; those of all hosts hold", h.source.Ciphers)
		return
	}
	h.Ciphers = &Ciphers{Suites: suites}
}

// compileTrie leads paths to the host's routes as nginx's locations would.
func (k *compiler) compileTrie() {
	h, v, l := k.host.Host, k.host.source, &k.locations
	l.arrange(v.Rules, k.host.usable, v.IgnoreSlash)
	k.lost(l.lost)
	entries := l.entries
	for _, m := range l.moved {
		entries = append(entries, entry{text: m.text, here: len(h.routes), below: none})
		h.routes = append(h.routes, k.redirect(m))
	}
	l.entries = entries
	k.tries.build(&h.trie, v.Name, entries)
}

// compilePatterns is compileTrie for a host in regex mode.
func (k *compiler) compilePatterns() {
	h, v := k.host.Host, k.host.source
	list := make([]pattern, 0, len(k.host.usable))
	for _, i := range k.host.usable {
		r := &v.Rules[i]
		p, err := newPattern(r.Path, i)
		if err != nil {
			k.hostProblem(r.Owner, ruleField(v, r), "the path is not a regular expression of RE2's syntax (%s); the rule is left out",
				strings.TrimPrefix(err.Error(), "error parsing regexp: "))
			h.routes[i] = nil
			continue
		}
		list = append(list, p)
	}
	var twice []lost
	h.patterns, twice = newPatterns(list, v.Rules)
	k.lost(twice)
	k.tries.build(&h.trie, v.Name, nil)
}

// lost tells the owners of rules that get no request.
func (k *compiler) lost(list []lost) {
	v := k.host.source
	for _, l := range list {
		r := &v.Rules[l.rule]
		k.hostProblem(r.Owner, ruleField(v, r), "another rule of %s, which comes first, has this path", v.Rules[l.winner].Owner.text())
		k.host.routes[l.rule] = nil
	}
}

// compileMiss finds what answers when no rule does. The host's own filters come before it, as nginx's server level does.
func (k *compiler) compileMiss() {
	h, common := k.host.Host, &k.host.common
	h.miss = k.next.miss
	switch {
	case common.failed:
		h.miss, h.ownMiss = k.failing(l7.Identity{Host: h.source.Name}), true // whoever asks
	case len(common.list) > 0 && h.miss == nil:
		identity := l7.Identity{Host: h.source.Name}
		h.miss = &l7.Route{ID: identity, Request: endWith(common.request, notFound), Response: common.response, Stats: k.stats(identity), ClientAuth: h.ClientAuth}
		h.ownMiss = true
	case len(common.list) > 0:
		own := *h.miss
		own.ClientAuth = h.ClientAuth
		own.Request, own.Response = endWith(common.request, own.Request...), common.response
		h.miss, h.ownMiss = &own, true
	}
}

// hostProblem notes a Problem with the host, so that it is told again for as long as the host lives. Rules of one Ingress
// may have the same: it is told once.
func (k *compiler) hostProblem(o Object, field, format string, args ...any) {
	h := k.host.Host
	p := Problem{Object: o, Field: field, Reason: fmt.Sprintf(format, args...)}
	if n := len(h.problems); n == 0 || h.problems[n-1] != p {
		h.problems = append(h.problems, p)
	}
}

func hostField(v *VirtualHost) string { return "host " + quoteHost(v.Name) }

func ruleField(v *VirtualHost, r *Rule) string {
	return fmt.Sprintf("host %s path %s", quoteHost(v.Name), r.Path)
}

// quoteHost makes the catch-all's name visible.
func quoteHost(name string) string {
	if name == "" {
		return `""`
	}
	return name
}
