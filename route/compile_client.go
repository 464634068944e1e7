package route

import (
	"iter"

	"github.com/sluiceproxy/sluice/l7"
)

// clientPolicy is what became of a ClientAuth.
type clientPolicy struct {
	policy *l7.ClientAuth
	err    error
}

// hostClientAuth finds or makes the host's policy for client certificates. Equal terms are one policy, over all Snapshots:
// connections under it stay valid, and sessions are resumed. A bad one leaves the host closed.
func (k *compiler) hostClientAuth() {
	h := k.host.Host
	asked := h.source.ClientAuth
	if asked == nil {
		return
	}
	made, _ := k.next.identities.policies.get(asked.Terms.PolicyID(), k.next.Generation, func() clientPolicy {
		k.worked(yieldEvery)
		p, err := l7.NewClientAuth(asked.Terms)
		return clientPolicy{p, err}
	})
	if made.err != nil {
		k.hostProblem(asked.Owner, "ca.crt", "%v; requests for host %s are answered 503", made.err, quoteHost(h.source.Name))
		return
	}
	h.ClientAuth = made.policy
}

// policiesInUse are those of all hosts.
func (k *compiler) policiesInUse() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, h := range k.next.hosts {
			if p := h.ClientAuth; p != nil && !yield(p.ID) {
				return
			}
		}
	}
}
