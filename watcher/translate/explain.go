package translate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sluiceproxy/sluice/l7"
)

// An AppliedAnnotation is one annotation of an Ingress and what becomes of it.
type AppliedAnnotation struct {
	Key     string `json:"key"` // as it is written, with its prefix
	Value   string `json:"value"`
	Verdict string `json:"verdict"`        // as in docs/annotations.md, or unknown
	Note    string `json:"note,omitempty"` // how it differs
	Problem string `json:"problem,omitempty"`
	Text    string `json:"-"` // the line of documentation
	Line    int    `json:"-"` // … in docs/annotations.md; 0: none
}

// Acts tells whether the annotation has its meaning: nothing was said against it, and something acts on it.
func (a *AppliedAnnotation) Acts() bool {
	return a.Problem == "" && (a.Verdict == same.String() || a.Verdict == differs.String() || a.Verdict == own.String())
}

// An Origin is a setting that acts on an Ingress's requests, and where its value comes from.
type Origin struct {
	Name  string `json:"name"`
	Value string `json:"value"`
	From  string `json:"from"` // annotation, ConfigMap or default
}

// Annotations are those of an Ingress that the last Translate has seen, by their keys, and the verdict on each. ok: it is
// one of ours. Only prefixes of this proxy's count.
func (t *Translator) Annotations(namespace, name string) (list []AppliedAnnotation, ok bool) {
	f := t.fragments[key{namespace, name}]
	if f == nil {
		return nil, false
	}
	lines := documentLines()
	for _, full := range slices.Sorted(maps.Keys(f.ing.Annotations)) {
		prefix, short, _ := strings.Cut(full, "/")
		if prefix != t.options.AnnotationsPrefix && prefix != ownPrefix && prefix != annotationsPrefixDefault {
			continue
		}
		a := AppliedAnnotation{Key: full, Value: f.ing.Annotations[full], Verdict: "unknown"}
		row := annotationRows[short]
		if prefix == ownPrefix {
			row = annotationRows[full]
		}
		if row != nil {
			a.Verdict, a.Note, a.Text = row.verdict.String(), row.note, row.text
			if row.verdict == same {
				a.Note = ""
			}
			a.Line = lines[row.key]
			if row.own {
				a.Line = lines[ownPrefix+"/"+row.key]
			}
		}
		a.Problem = t.annotationProblem(f, full)
		list = append(list, a)
	}
	return list, len(f.hosts) > 0 || len(f.problems) > 0 || f.dialect.options != nil
}

// annotationProblem is what was said against an annotation, at the Ingress or where it was merged.
func (t *Translator) annotationProblem(f *fragment, full string) string {
	var reasons []string
	for _, p := range t.ledger.all() {
		if p.Object == f.owner && p.Field == annotationField(full) {
			reasons = append(reasons, p.Reason)
		}
	}
	return strings.Join(reasons, "; ")
}

// documentLines are the line numbers of the rows in docs/annotations.md, by key; own keys have their prefix.
func documentLines() map[string]int {
	lines := map[string]int{}
	for i, line := range strings.Split(AnnotationsMarkdown(), "\n") {
		if strings.HasPrefix(line, "## ConfigMap") {
			break
		}
		if rest, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(rest, "`")
			lines[name] = i + 1
		}
	}
	return lines
}

// origins are the settings that Ingresses and the ConfigMap both may give, by the annotation's and the key's common name.
var origins = []struct {
	name  string
	value func(d *dialect, s *l7.Settings) string
}{
	{"proxy-body-size", func(d *dialect, _ *l7.Settings) string { return sizeText(d.policy.BodyMax) }},
	{"proxy-connect-timeout", func(d *dialect, s *l7.Settings) string { return either(d.policy.ConnectTimeout, s.ConnectTimeout) }},
	{"proxy-read-timeout", func(d *dialect, s *l7.Settings) string { return either(d.policy.ReadTimeout, s.ReadTimeout) }},
	{"proxy-send-timeout", func(d *dialect, s *l7.Settings) string { return either(d.policy.SendTimeout, s.WriteTimeout) }},
	{"proxy-request-buffering", func(d *dialect, _ *l7.Settings) string { return onOrOff(d.policy.BufferRequest) }},
	{"proxy-http-version", func(d *dialect, _ *l7.Settings) string { return httpVersionText(d.policy.HTTP10) }},
	{"proxy-next-upstream", func(d *dialect, _ *l7.Settings) string { return nextUpstreamText(d.policy.NextUpstream) }},
	{"proxy-next-upstream-tries", func(d *dialect, _ *l7.Settings) string { return fmt.Sprint(d.policy.Tries) }},
	{"proxy-next-upstream-timeout", func(d *dialect, _ *l7.Settings) string { return d.policy.TriesTimeout.String() }},
	{"ssl-redirect", func(d *dialect, _ *l7.Settings) string { return fmt.Sprint(d.sslRedirect) }},
	{"force-ssl-redirect", func(d *dialect, _ *l7.Settings) string { return fmt.Sprint(d.forceSSLRedirect) }},
	{"limit-rate", func(d *dialect, _ *l7.Settings) string { return sizeText(d.policy.Rate) }},
	{"whitelist-source-range", func(d *dialect, _ *l7.Settings) string { return d.allow }},
	{"denylist-source-range", func(d *dialect, _ *l7.Settings) string { return d.deny }},
}

// Origins are the settings of an Ingress that the last Translate has seen, and where each comes from.
func (t *Translator) Origins(namespace, name string) (list []Origin) {
	f := t.fragments[key{namespace, name}]
	if f == nil || f.dialect.options == nil {
		return nil
	}
	for _, o := range origins {
		from := "default"
		if t.configMap != nil {
			if _, set := t.configMap.Data[o.name]; set {
				from = "ConfigMap " + t.configMap.Namespace + "/" + t.configMap.Name
			}
		}
		for _, known := range append([]string{o.name}, annotationRows[o.name].aliases...) {
			if full := t.options.AnnotationsPrefix + "/" + known; f.has(full) && t.annotationProblem(f, full) == "" {
				from = "annotation " + full
			}
		}
		list = append(list, Origin{o.name, o.value(&f.dialect, t.config.settings), from})
	}
	return list
}

func either(own, otherwise time.Duration) string {
	if own > 0 {
		return own.String()
	}
	return otherwise.String()
}

func onOrOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func httpVersionText(http10 bool) string {
	if http10 {
		return "1.0"
	}
	return "1.1"
}

func nextUpstreamText(n l7.NextUpstream) string {
	var words []string
	for _, word := range slices.Sorted(maps.Keys(nextUpstream)) {
		if bit := nextUpstream[word]; bit != 0 && n&bit != 0 {
			words = append(words, word)
		}
	}
	if words == nil {
		return "off"
	}
	return strings.Join(words, " ")
}
