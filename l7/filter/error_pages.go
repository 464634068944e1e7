package filter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
)

// ErrorPages replaces answers of some statuses, the backend's and the proxy's own, by what another cluster has to say.
type ErrorPages struct {
	Statuses string // 400 to 599, separated by commas
	Cluster  string // ID
	OwnOnly  bool   // what the backend answers stays as it is
}

// Stage does not matter: there is nothing to run.
func (ErrorPages) Stage() Stage { return Header }

// ParseStatuses reads ErrorPages.Statuses.
func ParseStatuses(list string) (out []int, err error) {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		n, err := strconv.Atoi(item)
		if err != nil || n < 400 || n > 599 {
			return nil, fmt.Errorf("%q is not a status from 400 to 599", item)
		}
		out = append(out, n)
	}
	return out, nil
}

// Compile finds the cluster. Without it answers stay as they are: an error page protects nobody.
func (e ErrorPages) Compile(s *State) (l7.Filter, error) {
	list, err := ParseStatuses(e.Statuses)
	if err != nil {
		return l7.Filter{}, fmt.Errorf("error pages: %w", err)
	}
	c := s.Cluster(e.Cluster)
	if c == nil {
		return l7.Filter{}, nil
	}
	return l7.Filter{Errors: l7.NewErrorPages(c, e.OwnOnly, list)}, nil
}
