package filter

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
)

// SourceRange lets requests through by the client's address and answers all others with 403. The deny list is asked
// first. The address is the exchange's ClientIP: a trusted proxy's X-Forwarded-For counts, nobody else's.
type SourceRange struct {
	Allow string // networks and addresses separated by commas; empty: everybody
	Deny  string // likewise; empty: nobody
	Any   bool   // an authentication that is asked afterwards suffices too (satisfy: any): nobody is refused here
}

// Stage is the access stage: limits have counted the request already.
func (SourceRange) Stage() Stage { return Access }

// Compile refuses a list with anything in it that is no address: half a list would let the wrong ones in.
func (r SourceRange) Compile(*State) (l7.Filter, error) {
	allow, err := ParsePrefixes(r.Allow)
	if err != nil {
		return l7.Filter{}, fmt.Errorf("allow list: %w", err)
	}
	deny, err := ParsePrefixes(r.Deny)
	if err != nil {
		return l7.Filter{}, fmt.Errorf("deny list: %w", err)
	}
	f := &sourceRange{deny: newPrefixSet(deny), everybody: len(allow) == 0, any: r.Any, allow: newPrefixSet(allow)}
	return l7.Filter{Request: f}, nil
}

// ParsePrefixes reads a comma-separated list of networks and addresses. A network's host bits are dropped.
func ParsePrefixes(list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	if strings.TrimSpace(list) == "" {
		return nil, nil
	}
	for item := range strings.SplitSeq(list, ",") {
		p, err := parsePrefix(strings.TrimSpace(item))
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network like 10.0.0.0/8", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

type sourceRange struct {
	deny, allow prefixSet
	everybody   bool // no allow list
	any         bool
}

func (r *sourceRange) Request(x *l7.Exchange) l7.Verdict {
	if r.any {
		x.Admitted = !r.everybody && !r.deny.contains(x.ClientIP) && r.allow.contains(x.ClientIP)
		return l7.Continue
	}
	if r.deny.contains(x.ClientIP) || !r.everybody && !r.allow.contains(x.ClientIP) {
		x.Respond(403, nil)
		return l7.Respond
	}
	return l7.Continue
}
