package filter

import (
	"fmt"

	"github.com/sluiceproxy/sluice/l7"
)

// Redirect answers every request with a redirect to a fixed place; neither path nor query are added to it.
type Redirect struct {
	Status   int    // 300 to 308
	Location string // absolute URL
}

// Stage is the rewrite stage: redirects come before access lists and authentication, as in nginx.
func (Redirect) Stage() Stage { return Rewrite }

// Compile refuses what could not stand in a header field.
func (r Redirect) Compile(*State) (l7.Filter, error) {
	if r.Status < 300 || r.Status > 308 {
		return l7.Filter{}, fmt.Errorf("redirect: status %d is not one of 300 to 308", r.Status)
	}
	if r.Location == "" || !fieldText(r.Location) {
		return l7.Filter{}, fmt.Errorf("redirect: %q cannot stand in a Location field", r.Location)
	}
	return l7.Filter{Request: &redirect{r.Status, []byte(r.Location)}}, nil
}

type redirect struct {
	status   int
	location []byte
}

func (r *redirect) Request(x *l7.Exchange) l7.Verdict {
	x.Redirect(r.status, r.location)
	return l7.Respond
}

// fieldText tells whether s is visible ASCII without a blank: what a URL in a header field may hold.
func fieldText(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
