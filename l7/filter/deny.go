package filter

import (
	"errors"

	"github.com/sluiceproxy/sluice/l7"
)

// Deny answers every request with 503: what a rule does whose configuration asks for something that it cannot have, a
// list that does not parse or an authentication that is not built. Serving without it would be the worse answer.
type Deny struct {
	Reason string // for the dashboard; clients never see it
}

// Stage is before everything else a rule does.
func (Deny) Stage() Stage { return Rewrite }

// Compile needs no state.
func (d Deny) Compile(*State) (l7.Filter, error) {
	if d.Reason == "" {
		return l7.Filter{}, errors.New("deny: a reason is missing")
	}
	return l7.Filter{Request: denied{}}, nil
}

type denied struct{}

func (denied) Request(x *l7.Exchange) l7.Verdict {
	x.Respond(503, nil)
	return l7.Respond
}
