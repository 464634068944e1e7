package translate

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// Who may come in, by name and password or by what a service says. What is asked for and cannot be had answers 503.
var authAnnotations = []annotation{
	{
		key: "auth-type", scope: scopeLocation, risk: riskLow, verdict: differs, effect: deny,
		text:  "basic: asks for a name and a password. The backend does not get them.",
		note:  "digest is refused, it rests on MD5: use basic over TLS, or auth-url",
		parse: parseAuthType,
	},
	{
		key: "auth-secret", scope: scopeLocation, risk: riskMedium, verdict: differs, effect: deny,
		text: "The Secret with the passwords, NAME, or NAMESPACE/NAME with allow-cross-namespace-resources.",
		note: "Hashes are bcrypt's ($2y$, up to cost 14), apr1's and {SHA}. Who has another one does not come in; where nobody has one of them the paths answer 503. " +
			"Slow hashes are checked one after the other: past 64 that wait, or 4 of one client, the answer is 503",
		parse: func(d *dialect, value string) error {
			d.basic.secret = value
			return nil
		},
	},
	{
		key: "auth-secret-type", scope: scopeLocation, risk: riskLow, verdict: same, effect: deny,
		text: "auth-file (default): lines of htpasswd under the key auth; auth-map: keys are names, values are hashes.",
		parse: func(d *dialect, value string) error {
			switch value {
			case "auth-file", "auth-map":
				d.basic.byUser = value == "auth-map"
				return nil
			}
			return fmt.Errorf("%q is neither auth-file nor auth-map", value)
		},
	},
	{
		key: "auth-realm", scope: scopeLocation, risk: riskMedium, verdict: same,
		text: "What browsers show when they ask.",
		parse: func(d *dialect, value string) error {
			if !plainPath(strings.ReplaceAll(value, " ", "")) {
				return fmt.Errorf("%q holds other characters than -._~/:, letters, digits and blanks", value)
			}
			d.basic.realm = value
			return nil
		},
	},
	{
		key: "satisfy", scope: scopeLocation, risk: riskLow, verdict: same, effect: deny,
		text: "all (default), or any: a source range or an authentication suffices.",
		parse: func(d *dialect, value string) error {
			if value != "all" && value != "any" {
				return fmt.Errorf("%q is neither all nor any", value)
			}
			d.satisfyAny = value == "any"
			return nil
		},
	},
	{
		key: "auth-url", scope: scopeLocation, risk: riskHigh, verdict: differs, effect: deny,
		text: "Asks this URL whether a request may pass, as nginx's auth_request does: 2xx lets it pass, 401 and 403 are the client's answer, all else is 500. " +
			"It gets the client's fields without the body, and X-Original-URL, X-Original-Method, X-Sent-From, X-Auth-Request-Redirect, X-Real-IP, X-Forwarded-For. Variables of nginx are filled in.",
		note: "A Service's name (NAME.NAMESPACE.svc...) is asked at its endpoints. Where the host is a variable such as $host, or one that this Ingress's namespace serves here, " +
			"the question goes through the proxy's own routes, without a connection. What clients say of themselves in X-Forwarded-* is not passed on.",
		parse: func(d *dialect, value string) error {
			if _, _, err := parseAuthTarget(value); err != nil {
				return err
			}
			d.auth.URL = value
			return nil
		},
	},
	{
		key: "auth-method", scope: scopeLocation, risk: riskLow, verdict: same, effect: deny,
		text: "… by this method; then with X-Original-URI too.",
		parse: func(d *dialect, value string) error {
			if !authMethod.MatchString(value) || value == "CONNECT" {
				return fmt.Errorf("%q is not a method", value)
			}
			d.auth.Method = value
			return nil
		},
	},
	{
		key: "auth-signin", scope: scopeLocation, risk: riskHigh, verdict: same, effect: deny,
		text:  "Where 401 redirects to, by 302, with where the client came from in the argument rd, unless the URL has it. Variables of nginx are filled in.",
		parse: authText(func(a *filter.ExternalAuth) *string { return &a.Signin }),
	},
	{
		key: "auth-signin-redirect-param", scope: scopeLocation, risk: riskMedium, verdict: same,
		text: "The name of that argument.",
		parse: func(d *dialect, value string) error {
			if !plainPath(value) || value == "" {
				return fmt.Errorf("%q is not the name of an argument", value)
			}
			d.auth.SigninParam = value
			return nil
		},
	},
	{
		key: "auth-response-headers", scope: scopeLocation, risk: riskMedium, verdict: same, effect: deny,
		text: "Fields of its answer, separated by commas, that the backend gets in place of the client's.",
		parse: func(d *dialect, value string) error {
			list, err := parseFieldNames(value)
			d.auth.ResponseHeaders = list
			return err
		},
	},
	{
		key: "auth-request-redirect", scope: scopeLocation, risk: riskMedium, verdict: same,
		text:  "The X-Auth-Request-Redirect that it gets; default: the client's target.",
		parse: authText(func(a *filter.ExternalAuth) *string { return &a.RequestRedirect }),
	},
	{
		key: "auth-proxy-set-headers", scope: scopeLocation, risk: riskMedium, verdict: same, effect: deny,
		text: "A ConfigMap, NAME or NAMESPACE/NAME, of fields that it gets.",
		parse: func(d *dialect, value string) error {
			d.auth.setHeaders = value
			return nil
		},
	},
	{
		key: "auth-always-set-cookie", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Passes its cookies on with every status, not only with 200, 201, 204, 206, 301, 302, 303, 304, 307 and 308.",
		parse: func(d *dialect, value string) (err error) {
			d.auth.AlwaysSetCookie, err = parseBool(value)
			return err
		},
	},
	{
		key: "auth-cache-key", scope: scopeLocation, risk: riskMedium, verdict: differs,
		text:  "Keeps its answers by this text with variables of nginx, beside host and path.",
		note:  "Each loop has its own, of at most 1,024 answers of an Ingress. Answers with Set-Cookie, or that Cache-Control forbids to keep, are not kept; Expires is not read.",
		parse: authText(func(a *filter.ExternalAuth) *string { return &a.CacheKey }),
	},
	{
		key: "auth-cache-duration", scope: scopeLocation, risk: riskMedium, verdict: same, effect: deny,
		text: "… how long, by status: `200 202 10m, 401 5m`; default `200 202 401 5m`.",
		parse: func(d *dialect, value string) error {
			if _, err := filter.ParseCacheDurations(value); err != nil {
				return err
			}
			d.auth.CacheDurations = value
			return nil
		},
	},
	{
		key: "enable-global-auth", scope: scopeLocation, risk: riskLow, verdict: same,
		text: "Whether the ConfigMap's global-auth-url holds here; default true. An auth-url of the Ingress comes first.",
		parse: func(d *dialect, value string) (err error) {
			d.globalAuth, err = parseOver(true, value)
			return err
		},
	},
}

// basicDialect and authDialect are what the annotations ask for.
type basicDialect struct {
	on            bool
	secret, realm string
	byUser        bool // auth-map
}

type authDialect struct {
	filter.ExternalAuth
	setHeaders string // ConfigMap
}

var authMethod = regexp.MustCompile(`^[A-Z]+$`)

func parseAuthType(d *dialect, value string) error {
	switch {
	case value == "basic":
		d.basic.on = true
		return nil
	case strings.Contains(value, "digest"):
		return errors.New("digest is not supported: it rests on MD5; use basic over TLS, or auth-url")
	}
	return fmt.Errorf("%q is not basic", value)
}

func authText(field func(*filter.ExternalAuth) *string) func(*dialect, string) error {
	return func(d *dialect, value string) error {
		if _, err := filter.ParseText(value); err != nil {
			return err
		}
		if value == "" || strings.ContainsAny(value, " \t\"\\") {
			return fmt.Errorf("%q is empty, or holds a blank or a quote", value)
		}
		*field(&d.auth.ExternalAuth) = value
		return nil
	}
}

func parseFieldNames(value string) (string, error) {
	list := splitList(value)
	if len(list) > headerLinesMax {
		return "", fmt.Errorf("%d fields are more than %d", len(list), headerLinesMax)
	}
	for _, n := range list {
		if err := filter.CheckHeaderName(n); err != nil {
			return "", err
		}
	}
	return strings.Join(list, ","), nil
}

// parseAuthTarget finds the backend of a URL; variable: its host is known only with a request.
func parseAuthTarget(value string) (e external, variable bool, err error) {
	u, err := filter.ParseAuthURL(value)
	if err != nil {
		return e, false, err
	}
	if strings.ContainsRune(u.Hostname, '$') {
		return e, true, nil
	}
	if u.Scheme == "$scheme" {
		return e, false, fmt.Errorf("%q: a host that is not $host needs http or https", value)
	}
	e, err = parseExternal(u.Scheme, strings.Trim(u.Hostname, "[]"), u.Port)
	return e, false, err
}

// needAuth records the use of auth-url's host.
func (f *fragment) needAuth() {
	if f.dialect.auth.URL == "" {
		return
	}
	if e, variable, err := parseAuthTarget(f.dialect.auth.URL); err == nil && !variable {
		f.dialect.auth.Cluster = e.id()
		f.uses = append(f.uses, e.use(f, placeAuth))
	}
}

// useGlobalAuth records the use of global-auth-url's host.
func (t *Translator) useGlobalAuth() {
	var next *use
	if e, variable, err := parseAuthTarget(t.config.defaults.auth.URL); err == nil && !variable {
		u := e.use(nil, placeGlobalAuth)
		next = &u
	}
	old := t.globalAuth
	if old != nil && next != nil && old.id == next.id {
		return
	}
	if old != nil {
		c := t.clusters[old.id]
		c.uses = slices.DeleteFunc(c.uses, func(u use) bool { return u.fragment == nil && u.at.kind == placeGlobalAuth })
		t.dirtyClusters[c.id] = true
	}
	if t.globalAuth = next; next != nil {
		t.useCluster(*next)
	}
}

// authentication are the part's filters that ask who comes.
func (b *hostBuild) authentication(p part, n *named) {
	d := &p.dialect
	basic := filter.BasicAuth{Realm: d.basic.realm, Any: d.satisfyAny}
	if d.basic.on {
		users, ok := b.users(p, n)
		if !ok {
			return
		}
		basic.Users = users
	}
	external := d.auth.ExternalAuth
	if external.URL == "" && d.globalAuth {
		external = d.defaults.auth
	} else if external.URL != "" && d.auth.setHeaders != "" {
		m, why := b.configMapOf(p, d.auth.setHeaders)
		if why == "" {
			var err error
			if external.SetHeaders, err = headerText(m.Data); err != nil {
				why = "ConfigMap " + d.auth.setHeaders + ": " + err.Error()
			}
		}
		if why != "" {
			b.deny(p, n, "auth-proxy-set-headers", why)
			return
		}
	}
	external.Any = d.satisfyAny
	basic.Last = external.URL == ""
	if d.basic.on {
		n.auth = append(n.auth, basic)
	}
	if external.URL != "" {
		n.auth = append(n.auth, external)
	}
}

// users are the credentials that auth-secret names.
func (b *hostBuild) users(p part, n *named) (filter.Credentials, bool) {
	d := &p.dialect.basic
	k, why := p.reference(d.secret, p.dialect.defaults.crossNamespace)
	var s *corev1.Secret
	if why == "" {
		if s = b.translator.secrets.by[k]; s == nil {
			why = "does not exist"
		}
	}
	if why != "" {
		b.deny(p, n, "auth-secret", fmt.Sprintf("Secret %q %s", d.secret, why))
		return "", false
	}
	lines := s.Data["auth"]
	if d.byUser {
		var all bytes.Buffer
		for _, user := range slices.Sorted(maps.Keys(s.Data)) {
			fmt.Fprintf(&all, "%s:%s\n", user, bytes.TrimSpace(s.Data[user]))
		}
		lines = all.Bytes()
	}
	users := b.goodUsers(p, k, lines)
	if users == "" {
		b.deny(p, n, "auth-secret", "Secret "+k.String()+" has no user whose password can be checked"+map[bool]string{false: " under the key auth"}[d.byUser])
	}
	return users, users != ""
}

// usersMax bounds the users of one Secret, which is at most 1 MiB anyway.
const usersMax = 10_000

// goodUsers leaves out, with a Problem, who has a hash of another kind.
func (b *hostBuild) goodUsers(p part, secret key, lines []byte) filter.Credentials {
	var good strings.Builder
	number, taken := 0, 0
	for line := range strings.Lines(string(lines)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		user, rest, ok := strings.Cut(line, ":")
		hash, _, _ := strings.Cut(rest, ":") // nginx takes a comment behind it
		err := errors.New("is not NAME:HASH")
		if ok && user != "" {
			err = filter.CheckPasswordHash(hash)
		}
		if err != nil {
			b.refuse(p.fragment, annotationField(b.translator.options.AnnotationsPrefix+"/auth-secret"),
				"Secret %s, line %d: the password of %q %s; that user does not come in", secret, number, userText(user, ok), err)
			continue
		}
		if taken++; taken > usersMax {
			break
		}
		good.WriteString(user + ":" + hash + "\n")
	}
	return filter.Credentials(good.String())
}

// userText shows no line that has no name in it: it may be a password.
func userText(user string, ok bool) string {
	if !ok {
		return "?"
	}
	return user
}
