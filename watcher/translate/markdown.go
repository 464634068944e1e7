package translate

import (
	"fmt"
	"strings"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// AnnotationsMarkdown is docs/annotations.md: every annotation and every ConfigMap key that is known, from the tables.
func AnnotationsMarkdown() string {
	var b strings.Builder
	b.WriteString(markdownHead)
	for _, section := range annotationSections {
		fmt.Fprintf(&b, "\n### %s\n\n| annotation | reaches | risk | verdict | what it does |\n| --- | --- | --- | --- | --- |\n", section.title)
		for i := range section.rows {
			writeAnnotation(&b, &section.rows[i])
		}
	}
	b.WriteString(markdownVariables + "`$" + strings.Join(filter.VariableNames(), "`, `$") + "`.\n")
	b.WriteString(markdownConfigMap)
	for _, section := range configSections {
		fmt.Fprintf(&b, "\n### %s\n\n| key | default | verdict | what it does |\n| --- | --- | --- | --- |\n", section.title)
		for i := range section.rows {
			writeConfigKey(&b, &section.rows[i])
		}
	}
	return b.String()
}

const markdownHead = "<!-- Made by `make docs` from the tables of watcher/translate; do not edit. -->\n" + `
# Annotations and ConfigMap keys

Sluice reads ingress-nginx's annotations and ConfigMap keys. Each has one of these verdicts:

| verdict | means |
| --- | --- |
| same | works as in ingress-nginx |
| differs | works, with the difference that is told |
| own | Sluice's own; ingress-nginx has none |
| no effect | taken without a word: it steers what nginx has and Sluice has not |
| not yet | known, not built yet. A Problem names it wherever it is used |
| refused | will not be built. A Problem says what to use instead |

A key that is not listed is a Problem too. So is a value that is not taken; what happens then is told by the Problem: the default holds, or the Ingress's paths answer 503 (what protects fails closed), or the Ingress is not served at all. These are ingress-nginx's own reactions, key by key. An empty value asks for nothing, except for an allow or deny list, which it closes. A value with a line break is never taken.

## Annotations

ingress-nginx's annotations begin with ` + "`nginx.ingress.kubernetes.io/`" + ` (` + "`--annotations-prefix`" + `), Sluice's own with ` + "`sluice.dev/`" + `. An annotation reaches the *paths* of its Ingress, the *ingress* as a whole, or every path of its *host*s, those of other Ingresses too; then the first Ingress of the host decides: the oldest, and of equally old ones the first by namespace and name. Risks are ingress-nginx's, for ` + "`annotations-risk-level`" + `.
`

const markdownVariables = `
## Variables

Where an annotation or a ConfigMap takes variables of nginx, these are known, also as ` + "`${name}`" + `; any other one is a Problem: `

const markdownConfigMap = `
## ConfigMap

The keys of the ConfigMap that ` + "`--configmap`" + ` names. Sluice's own begin with ` + "`sluice-`" + `. Times are seconds, or have a unit (` + "`500ms`, `30s`, `1h`" + `); sizes are bytes, or have one (` + "`8k`, `1m`, `2g`" + `). A bad value leaves the default. Changes take effect at once, those of listeners at the next start.
`

type annotationSection struct {
	title string
	rows  []annotation
}

var annotationSections = []annotationSection{
	{"Paths", rewriteAnnotations},
	{"Redirects", redirectAnnotations},
	{"Hosts", hostAnnotations},
	{"CORS", corsAnnotations},
	{"Headers", headerAnnotations},
	{"Error pages", errorAnnotations},
	{"Access and log", accessAnnotations},
	{"Authentication", authAnnotations},
	{"Client certificates", clientAuthAnnotations},
	{"TLS to backends", proxySSLAnnotations},
	{"Backends", backendAnnotations},
	{"Load balancing", balanceAnnotations},
	{"Affinity", affinityAnnotations},
	{"Limits", limitAnnotations},
	{"Canaries", canaryAnnotations},
	{"Health and load of backends", trafficAnnotations},
	{"gRPC", grpcAnnotations},
	{"Mirrors", mirrorAnnotations},
	{"Forwarding", proxyAnnotations},
	{"TLS", tlsAnnotations},
	{"Not built yet", laterAnnotations},
	{"Refused", refusedAnnotations},
}

type configSection struct {
	title string
	rows  []configKey
}

var configSections = []configSection{
	{"Clients", clientKeys},
	{"Trust", trustKeys},
	{"Routes", routeKeys},
	{"Content", contentKeys},
	{"Compression", compressKeys},
	{"Authentication", authKeys},
	{"Backends", backendKeys},
	{"Logs", logKeys},
	{"TLS", tlsKeys},
	{"Listeners and process", processKeys},
	{"TCP and UDP services", streamKeys},
	{"Not built yet", laterKeys},
	{"Without effect", needlessKeys},
	{"Refused", refusedKeys},
}

func writeAnnotation(b *strings.Builder, a *annotation) {
	names := "`" + a.key + "`"
	if a.own {
		names = "`" + ownPrefix + "/" + a.key + "`"
	}
	for _, alias := range a.aliases {
		names += ", `" + alias + "`"
	}
	text := describe(a.text, a.note)
	switch {
	case a.effect == ignore:
	case a.parse == nil:
		text += " " + upperFirst(a.effect.String()) + "."
	default:
		text += " A bad value: " + a.effect.String() + "."
	}
	fmt.Fprintf(b, "| %s | %s | %s | %s | %s |\n", names, a.scope, a.risk, a.verdict, text)
}

func writeConfigKey(b *strings.Builder, k *configKey) {
	preset := k.preset
	if k.otherwise != "" {
		preset = strings.TrimSpace(preset + " (ingress-nginx: " + k.otherwise + ")")
	}
	fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", k.key, cell.Replace(preset), k.verdict, describe(k.text, k.note))
}

// cell keeps a text from ending its cell of the table, and from being more than text.
var cell = strings.NewReplacer("|", `\|`, "*", `\*`)

func describe(text, note string) string {
	text = cell.Replace(text)
	if note != "" {
		text += " *" + cell.Replace(sentence(note)) + "*"
	}
	return text
}

// sentence makes one of a note, which may be part of one.
func sentence(s string) string {
	s = upperFirst(s)
	if strings.HasSuffix(s, ".") || strings.HasSuffix(s, "?") {
		return s
	}
	return s + "."
}

// upperFirst begins a sentence, but leaves the names of flags and keys as they are.
func upperFirst(s string) string {
	first, _, _ := strings.Cut(s, " ")
	if s == "" || strings.ContainsAny(first, "-_") || first == "ingress-nginx" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
