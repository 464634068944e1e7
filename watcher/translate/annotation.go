package translate

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// ownPrefix is the prefix of annotations that ingress-nginx does not have.
const ownPrefix = "sluice.dev"

// An annotation is a row of the table: all that is known of one key. Rows without parse are keys that are known and not
// built, so that nobody has to guess whether a key was misspelled.
type annotation struct {
	key     string // without prefix
	aliases []string
	own     bool // under ownPrefix instead of --annotations-prefix
	scope   scope
	risk    risk
	text    string   // what it does, one sentence
	verdict verdict  //
	note    string   // how it differs; why it is refused and what to use instead
	effect  effect   // what a value does that is not taken, or the key itself if there is no parse
	empty   bool     // an empty value is such a value; else it asks for nothing, whatever the effect
	idle    []string // values that ask for nothing: no Problem for a key that is not built
	parse   func(d *dialect, value string) error
}

// annotations is the table, a family after the other.
var annotations = slices.Concat(
	rewriteAnnotations,
	redirectAnnotations,
	hostAnnotations,
	corsAnnotations,
	headerAnnotations,
	errorAnnotations,
	accessAnnotations,
	authAnnotations,
	clientAuthAnnotations,
	proxySSLAnnotations,
	backendAnnotations,
	balanceAnnotations,
	affinityAnnotations,
	limitAnnotations,
	canaryAnnotations,
	trafficAnnotations,
	grpcAnnotations,
	mirrorAnnotations,
	proxyAnnotations,
	tlsAnnotations,
	laterAnnotations,
	refusedAnnotations,
)

// annotationRows finds a row by its key or one of its aliases, and our own ones by their full key.
var annotationRows = indexAnnotations()

func indexAnnotations() map[string]*annotation {
	rows := make(map[string]*annotation, 2*len(annotations))
	for i := range annotations {
		a := &annotations[i]
		if a.own {
			rows[ownPrefix+"/"+a.key] = a
			continue
		}
		rows[a.key] = a
		for _, alias := range a.aliases {
			rows[alias] = a
		}
	}
	return rows
}

// A scope is how far an annotation reaches.
type scope string

const (
	scopeLocation scope = "path"    // the paths of its Ingress
	scopeIngress  scope = "ingress" // the Ingress as a whole
	scopeHost     scope = "host"    // the hosts of its Ingress, others' paths included; the oldest Ingress wins
)

// A risk is what a hostile author could do with an annotation, as ingress-nginx judges it (annotations-risk-level).
type risk uint8

const (
	riskLow risk = iota
	riskMedium
	riskHigh
	riskCritical
)

func (r risk) String() string { return [...]string{"low", "medium", "high", "critical"}[r] }

// A verdict is how an annotation or a ConfigMap key compares with ingress-nginx's.
type verdict uint8

const (
	same     verdict = iota // as in ingress-nginx
	differs                 // works, with the difference that the note tells
	own                     // ours; ingress-nginx has none
	noEffect                // taken, and needless here
	later                   // not built yet
	refused                 // will not be built
)

func (v verdict) String() string {
	return [...]string{"same", "differs", "own", "no effect", "not yet", "refused"}[v]
}

// An effect is what becomes of an Ingress of which a value was not taken.
type effect uint8

const (
	ignore effect = iota // the default holds
	deny                 // its paths answer 503: "location denied"
	drop                 // it is not served at all
)

func (e effect) String() string {
	return [...]string{"it is ignored", "the Ingress's paths answer 503", "the Ingress is not served"}[e]
}

// A refusal is an error with another effect than its row's.
type refusal struct {
	effect effect
	reason string
}

func (r *refusal) Error() string { return r.reason }

// dialect is what the annotations of one Ingress ask for, with the ConfigMap's defaults filled in.
type dialect struct {
	options  *Options
	defaults *defaults

	rewriteTarget         string // "": none
	useRegex              bool
	sslRedirect           bool
	forceSSLRedirect      bool
	preserveTrailingSlash bool
	slash                 route.SlashRedirect // relative-redirects, use-port-in-redirects
	appRoot               string              // "": none

	temporalRedirect, permanentRedirect         string // "": none; the temporal one wins
	temporalRedirectCode, permanentRedirectCode int

	allow, deny string // source ranges

	speaks           protocol // backend-protocol
	passthrough      bool
	passthroughProxy route.ProxyVersion  // passthrough-proxy-protocol
	ciphers          string              // ssl-ciphers; "": those of all hosts
	defaultBackend   string              // name of a Service; "": none
	algorithm        *upstream.Algorithm // nil: the default; the first Ingress that names a backend decides
	ownAlgorithm     bool                // … by our own key, which wins

	cors          corsDialect
	basic         basicDialect
	auth          authDialect
	satisfyAny    bool
	client        clientDialect
	proxySSL      proxySSLDialect
	headers       headersDialect
	errors        string // custom-http-errors; "": the ConfigMap's
	errorsOwnOnly bool   // disable-proxy-intercept-errors
	aliases       string // server-alias
	www           bool   // from-to-www-redirect

	balanceNeeds   string // the annotation without which load-balance means nothing; "": none
	hashBy         string // upstream-hash-by; "": none
	hashSubset     bool
	hashSubsetSize int
	hashBalance    int // 0: no bound

	sticky   bool // affinity: cookie
	affinity upstream.Affinity

	canary       bool
	canaryRule   l7.CanaryRule
	canaryLegacy bool // affinity-canary-behavior

	mirrorTo     external // mirror-target
	mirrorTarget string   // … its path
	mirrorHost   string
	mirrorNoBody bool

	serviceUpstream bool

	limit   filter.Limit
	traffic traffic

	globalAuth bool // enable-global-auth
	firewall   bool // enable-modsecurity

	policy l7.Policy
	denied string // why the Ingress's paths answer 503; "": they do not
}

func newDialect(o *Options, d *defaults) dialect {
	return dialect{
		options: o, defaults: d,
		sslRedirect: d.sslRedirect, forceSSLRedirect: d.forceSSLRedirect, preserveTrailingSlash: d.preserveTrailingSlash,
		slash:                d.slash,
		temporalRedirectCode: temporalCodeDefault, permanentRedirectCode: permanentCodeDefault,
		allow: d.allow, deny: d.deny,
		cors: newCORS(), headers: d.headers, errorsOwnOnly: d.errorsOwnOnly,
		hashSubsetSize: 3, affinity: upstream.Affinity{Cookie: cookieNameDefault},
		serviceUpstream: d.serviceUpstream,
		client:          clientDialect{depth: clientDepthDefault},
		proxySSL:        proxySSLDialect{depth: proxyDepthDefault},
		limit:           filter.Limit{BurstMultiplier: burstMultiplierDefault},
		globalAuth:      true, firewall: d.firewall,
		policy: d.policy,
	}
}

// readAnnotations fills the fragment's dialect from its Ingress's annotations, in the order of their keys.
func (t *Translator) readAnnotations(f *fragment) {
	f.dialect = newDialect(&t.options, &t.config.defaults)
	if words := t.config.defaults.badWords; len(words) > 0 {
		if f.blockWords(t.options.AnnotationsPrefix, words); f.dropped {
			return
		}
	}
	for _, full := range slices.Sorted(maps.Keys(f.ing.Annotations)) {
		prefix, name, ok := strings.Cut(full, "/")
		if !ok {
			continue
		}
		switch prefix {
		case t.options.AnnotationsPrefix:
			t.readAnnotation(f, annotationRows[name], full, name)
		case ownPrefix:
			t.readAnnotation(f, annotationRows[full], full, name)
		case annotationsPrefixDefault:
			f.refuse(annotationField(full), "is not read: this proxy's annotations begin with %s (--annotations-prefix)",
				t.options.AnnotationsPrefix)
		}
	}
	f.settle(t.options.AnnotationsPrefix)
}

// settle looks at what only all annotations together tell.
func (f *fragment) settle(prefix string) {
	f.settleBalance(prefix)
	f.settleAffinity(prefix)
	f.settleLimits(prefix)
	f.settleCanary(prefix)
	f.settleTraffic()
	f.settleProxySSL(prefix)
	f.dialect.protect()
}

// protect denies what the ConfigMap wants protected in a way that is not built.
func (d *dialect) protect() {
	switch {
	case d.denied != "":
	case d.defaults.globalAuthBad && d.globalAuth:
		d.denied = "the ConfigMap's global-auth-url cannot be used"
	case d.defaults.firewall && d.firewall:
		d.denied = "the ConfigMap's enable-modsecurity is not supported yet"
	}
}

// readAnnotation applies one annotation. Problems go to the fragment.
func (t *Translator) readAnnotation(f *fragment, a *annotation, full, name string) {
	field, value := annotationField(full), f.ing.Annotations[full]
	switch {
	case a == nil:
		f.refuse(field, "unknown annotation: %s", suggestion(name, strings.HasPrefix(full, ownPrefix)))
	case a.risk > t.config.defaults.riskMax:
		f.dropped = true
		f.refuse(field, "its risk is %s, the ConfigMap's annotations-risk-level allows %s: the Ingress is not served",
			a.risk, t.config.defaults.riskMax)
	case a.key != name && !a.own && f.has(t.options.AnnotationsPrefix+"/"+a.key):
		f.refuse(field, "is ignored: %s is its newer name and is set too", a.key)
	case value == "" && !a.own && !a.empty && a.effect != ignore: // charts write these where a value is not given
		f.refuse(field, "is empty: it asks for nothing; leave it out")
	case a.parse == nil:
		f.unbuilt(a, field, value)
	case strings.ContainsAny(value, "\r\n"):
		f.reject(a, field, errors.New("holds a line break; write the value on one line"))
	default:
		if err := a.parse(&f.dialect, strings.TrimSpace(value)); err != nil {
			f.reject(a, field, err)
		}
	}
}

// blockWords drops an Ingress of which an annotation's value holds a word of annotation-value-word-blocklist.
func (f *fragment) blockWords(prefix string, words []string) {
	for _, full := range slices.Sorted(maps.Keys(f.ing.Annotations)) {
		if p, _, _ := strings.Cut(full, "/"); p != prefix && p != ownPrefix {
			continue
		}
		for _, w := range words {
			if strings.Contains(f.ing.Annotations[full], w) {
				f.dropped = true
				f.refuse(annotationField(full), "holds %q, which the ConfigMap's annotation-value-word-blocklist refuses: the Ingress is not served", w)
			}
		}
	}
}

func (f *fragment) has(annotation string) bool {
	_, ok := f.ing.Annotations[annotation]
	return ok
}

// unbuilt tells what becomes of an annotation that nothing acts on.
func (f *fragment) unbuilt(a *annotation, field, value string) {
	if a.verdict == noEffect || slices.Contains(a.idle, strings.ToLower(strings.TrimSpace(value))) {
		return
	}
	what := "not supported yet"
	if a.verdict == refused {
		what = "not supported"
	}
	if a.note != "" {
		what += ": " + a.note
	}
	f.reject(a, field, errors.New(what))
}

// reject records that an annotation was not taken, with what that means for the Ingress.
func (f *fragment) reject(a *annotation, field string, err error) {
	e := a.effect
	var r *refusal
	if errors.As(err, &r) {
		e = r.effect
	}
	var kept *partly
	if errors.As(err, &kept) {
		f.refuse(field, "%s", err)
		return
	}
	f.refuse(field, "%s; %s", err, e)
	switch e {
	case drop:
		f.dropped = true
	case deny:
		if f.dialect.denied == "" {
			f.dialect.denied = field + ": " + err.Error()
		}
	}
}

// suggestion is the remedy for an unknown key: the known one that is spelled most like it.
func suggestion(name string, mine bool) string {
	best, least := "", 1+len(name)/4
	if len(name) > nameMax {
		least = -1
	}
	for i := range annotations {
		a := &annotations[i]
		for _, known := range append([]string{a.key}, a.aliases...) {
			d := distance(name, known)
			if d > least || d == least && best != "" && a.own != mine {
				continue
			}
			best, least = known, d
			if a.own {
				best = ownPrefix + "/" + known
			} else if mine {
				best += " without the prefix " + ownPrefix
			}
		}
	}
	if best == "" {
		return "docs/annotations.md lists the known ones"
	}
	return "did you mean " + best + "?"
}

const nameMax = 63 // of an annotation, without its prefix (Kubernetes)

// distance is the number of characters to insert, delete or exchange between two names (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
