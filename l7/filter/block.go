package filter

import (
	"fmt"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// Block answers 403 to user agents and referrers. Each list is separated by commas; an entry is the whole text, in any
// case, or an expression (RE2) after "~", in any case after "~*".
type Block struct {
	UserAgents string
	Referers   string
}

// Stage is the rewrite stage: nginx looks before anything else.
func (Block) Stage() Stage { return Rewrite }

// Compile refuses an expression that RE2 lacks.
func (b Block) Compile(*State) (l7.Filter, error) {
	f := &block{}
	var err error
	if f.agents, err = newBlockList(b.UserAgents); err == nil {
		f.referers, err = newBlockList(b.Referers)
	}
	if err != nil {
		return l7.Filter{}, err
	}
	return l7.Filter{Request: f}, nil
}

type block struct{ agents, referers blockList }

type blockList struct {
	texts       [][]byte
	expressions []*Expression
}

func newBlockList(list string) (b blockList, err error) {
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		rest, expression := strings.CutPrefix(item, "~")
		switch {
		case item == "":
		case expression:
			if fold, ok := strings.CutPrefix(rest, "*"); ok {
				rest = "(?i)" + fold
			}
			e := NewExpression(rest)
			if err := e.Compile(); err != nil {
				return b, fmt.Errorf("block list: %q: %w", item, err)
			}
			b.expressions = append(b.expressions, e)
		default:
			b.texts = append(b.texts, []byte(item))
		}
	}
	return b, nil
}

func (b *blockList) has(value []byte) bool {
	for _, t := range b.texts {
		if wire.EqualFold(t, value) {
			return true
		}
	}
	for _, e := range b.expressions {
		if e.Match(value) {
			return true
		}
	}
	return false
}

func (b *block) Request(x *l7.Exchange) l7.Verdict {
	if b.agents.has(wire.Get(x.Req.Fields, wire.FieldUserAgent)) || b.referers.has(wire.Get(x.Req.Fields, wire.FieldReferer)) {
		x.Respond(403, nil)
		return l7.Respond
	}
	return l7.Continue
}
