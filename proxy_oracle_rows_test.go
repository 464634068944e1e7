package main

import (
	"testing"
)

// The rows of this file are nginx's own words for what ingress-nginx writes of an annotation or a key, row by row as
// docs/dialect-tests.md names them.

// said is a map of strings from pairs.
func said(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

// targets are requests without fields.
func targets(list ...string) (requests [][]string) {
	for _, t := range list {
		requests = append(requests, []string{t})
	}
	return requests
}

// TestOracleRoutes: paths, hosts and redirects.
func TestOracleRoutes(t *testing.T) { runOracle(t, oracleRoutes()) }

func oracleRoutes() map[string]oracleRow {
	const toHTTPS = `location / { return %s https://HOST$without; }`
	const without = `map $request_uri $without { ~^(?<shorter>.*)/$ $shorter; default $request_uri; }`
	both := targets("/", "/a", "/a/", "/a/?b=c/", "/a?b=c", "POST /a/")
	location := []string{"Location"}
	return map[string]oracleRow{
		"use-regex": {nginx: `location ~* "^/a[0-9]+" { PASS; } location / { return 404; }`, annotations: said("use-regex", "true"), path: "/a[0-9]+", kind: "ImplementationSpecific",
			lines: []string{"GET"}, requests: targets("/a1", "/A1", "/a", "/xa1", "/a12/b?c", "/a1b", "/b/a1")},
		"a regex of a host": {nginx: `location ~* "^/a" { rewrite "(?i)/a" /new break; PASS; } location / { return 404; }`, annotations: said("rewrite-target", "/new"), path: "/a", kind: "Exact",
			lines: []string{"GET"}, requests: targets("/a", "/A", "/ab", "/a/b", "/ba", "/")},
		"an implementation specific path": {nginx: `location /foo { PASS; } location / { return 404; }`, path: "/foo", kind: "ImplementationSpecific", lines: []string{"GET"},
			requests: targets("/foo", "/foobar", "/foo/bar", "/fo", "/FOO", "/")},
		"an exact path": {nginx: `location = /foo { PASS; } location / { return 404; }`, path: "/foo", kind: "Exact", lines: []string{"GET"}, requests: targets("/foo", "/foo/", "/foobar", "/foo?x", "/%66oo")},
		"paths":         {lines: []string{"GET"}, requests: targets("/a//b", "/a%2fb", "/%41", "/a%20b", "/a+b?c+d", "/?a=%2e%2e", "/a;b=c", "/..", "/../a")},
		"dot segments": {nginx: `location /private/ { PASS; } location = /private { PASS; } location / { return 404; }`, path: "/private", check: resolvedPaths,
			requests: targets("/a/../private", "/private/../x", "/private/%2e%2e/x", "/private/%2E./x", "//private", "/private/./x", "/%2e/private/", "/private%2fx", "/private/a/../../x", "/private/..", "/privat%65/", "/private/...", "/..%2fprivate", "/a/..%2fprivate")},
		"server-alias": {nginx: `server_name alias-HOST *.wild-HOST; location / { PASS; } } server { listen 127.0.0.1:PORT default_server; return 404;`, annotations: said("server-alias", "alias-HOST,*.wild-HOST"), lines: []string{"GET", "host:"},
			http: "", requests: [][]string{{"/"}, {"/x", "Host: alias-HOST"}, {"/", "Host: a.wild-HOST"}, {"/", "Host: wild-HOST"}, {"/", "Host: x.HOST"}}},
		"from-to-www-redirect": {http: without, nginx: `location / { PASS; } } server { listen 127.0.0.1:PORT; server_name www.HOST; return 308 $scheme://HOST$without;`,
			annotations: said("from-to-www-redirect", "true"), fields: location, requests: [][]string{{"/"}, {"/", "Host: www.HOST"}, {"/a/?b=c/", "Host: www.HOST"}, {"/a/", "Host: www.HOST"}, {"POST /a", "Host: www.HOST"}}},
		"force-ssl-redirect":      {http: "", nginx: sprintf(toHTTPS, "308"), annotations: said("force-ssl-redirect", "true"), alsoKeys: true, fields: location, requests: both},
		"preserve-trailing-slash": {nginx: `location / { return 308 https://HOST$request_uri; }`, annotations: said("force-ssl-redirect", "true", "preserve-trailing-slash", "true"), alsoKeys: true, fields: location, requests: both},
		"http-redirect-code":      {nginx: sprintf(toHTTPS, "301"), keys: said("force-ssl-redirect", "true", "http-redirect-code", "301"), fields: location, requests: both},
		"no-tls-redirect-locations": {nginx: `location / { PASS; }`, path: "/plain", keys: said("force-ssl-redirect", "true", "no-tls-redirect-locations", "/plain"), fields: location,
			requests: targets("/plain", "/plain/x/")},
		"temporal-redirect-code":            {nginx: `return 307 https://new.example/a;`, annotations: said("temporal-redirect", "https://new.example/a", "temporal-redirect-code", "307"), fields: location, requests: both},
		"permanent-redirect to two slashes": {nginx: `return 301 //x;`, annotations: said("permanent-redirect", "//x"), fields: location, requests: both},
		"temporal over permanent":           {nginx: `return 302 https://new.example/t;`, annotations: said("temporal-redirect", "https://new.example/t", "permanent-redirect", "https://new.example/p"), fields: location, requests: both},
		"relative-redirects":                {nginx: `absolute_redirect off; location /foo/ { PASS; } location / { return 404; }`, path: "/foo/", annotations: said("relative-redirects", "true"), alsoKeys: true, fields: location, requests: targets("/foo", "/foo?a")},
		"use-port-in-redirects":             {nginx: `port_in_redirect on; location /foo/ { PASS; } location / { return 404; }`, path: "/foo/", annotations: said("use-port-in-redirects", "true"), alsoKeys: true, fields: location, requests: targets("/foo", "/foo?a")},
		"oldest wins":                       {nginx: `if ($uri = /) { return 302 $scheme://$http_host/old; } location / { PASS; }`, more: agedSite("NAME-a", 2025, "young") + agedSite("NAME-b", 2021, "old"), fields: location, lines: []string{"GET"}, requests: targets("/", "/?a=b", "/x")},
		"order of phases": {nginx: `location / { return 301 https://new.example; auth_basic x; auth_basic_user_file @users; deny all; }`,
			annotations: said("permanent-redirect", "https://new.example", "denylist-source-range", "127.0.0.1"), fields: location, requests: both},
	}
}

// TestOracleFields: fields of requests and answers.
func TestOracleFields(t *testing.T) { runOracle(t, oracleFields()) }

func oracleFields() map[string]oracleRow {
	const redirects = `proxy_redirect http://in.example/ http://out.example/app/; location / { PASS; }`
	const tells = "GET"
	oddLines := []string{"X.y:", "X!a:", "A_b:", "X^y:", "X-A:"}
	oddNames := [][]string{{"/", "X.Y: 1", "X!a: 2", "A_b: 3", "X-A: 4"}, {"/", "x^y: 1"}, {"/", "X Y: 1"}, {"/", "X\x01Y: 1"}, {"/", "X\x7fY: 1"}, {"/", "X.Y : 1"}, {"/", ": 1"}}
	id, team := []string{"X-Request-Id:"}, []string{"X-Team"}
	return map[string]oracleRow{
		"x-forwarded-prefix": {nginx: `location ~* "^/app(/|$)(.*)" { rewrite "(?i)/app(/|$)(.*)" /$2 break; proxy_set_header X-Forwarded-Prefix "/app"; PASS; } location / { return 404; }`, path: "/app(/|$)(.*)",
			kind: "ImplementationSpecific", annotations: said("rewrite-target", "/$2", "x-forwarded-prefix", "/app"), lines: []string{tells, "X-Forwarded-Prefix:"},
			requests: [][]string{{"/app"}, {"/app/x?y"}, {"/apple"}, {"/app/x", "X-Forwarded-Prefix: /evil"}}},
		"x-forwarded-prefix with a capture": {nginx: `location ~* "^/app/([^/]+)/(.*)" { rewrite "(?i)/app/([^/]+)/(.*)" /$2 break; proxy_set_header X-Forwarded-Prefix "/app/$1"; PASS; } location / { return 404; }`,
			path: "/app/([^/]+)/(.*)", kind: "ImplementationSpecific", annotations: said("rewrite-target", "/$2", "x-forwarded-prefix", "/app/$1"), lines: []string{tells, "X-Forwarded-Prefix:"},
			requests: targets("/app/one/x", "/app/two/")},
		"connection-proxy-header":            {nginx: `location / { proxy_set_header Connection keep-alive; PASS; }`, annotations: said("connection-proxy-header", "keep-alive"), lines: []string{"Connection:"}, requests: targets("/", "/a", "POST /")},
		"connection-proxy-header close":      {nginx: `location / { proxy_set_header Connection close; proxy_pass http://OTHER; }`, endpoints: []string{"OTHER"}, annotations: said("connection-proxy-header", "close"), lines: []string{"Connection:"}, requests: targets("/", "/a")},
		"custom-headers":                     {nginx: `location / { add_header X-Team blue always; PASS; }`, annotations: said("custom-headers", "default/NAME"), more: configMap("NAME", "X-Team", "blue"), fields: []string{"X-Team"}, requests: targets("/", "/404", "/500")},
		"proxy-redirect":                     {nginx: redirects, keys: said("proxy-redirect-from", "http://in.example/", "proxy-redirect-to", "http://out.example/app/"), fields: []string{"Location", "Refresh"}, requests: targets("/?Location=http://in.example/a", "/?Location=http://in.example", "/?Location=/a", "/?Refresh=5%3Burl=http://in.example/a")},
		"proxy-cookie-domain":                {nginx: `proxy_cookie_domain in.example out.example; location / { PASS; }`, annotations: said("proxy-cookie-domain", "in.example out.example"), alsoKeys: true, fields: []string{"Set-Cookie"}, requests: targets("/?Set-Cookie=a=b%3BDomain=in.example", "/?Set-Cookie=a=b%3BDomain=x.in.example", "/?Set-Cookie=a=b%3BDomain=.in.example")},
		"proxy-cookie-path":                  {nginx: `proxy_cookie_path /in/ /; location / { PASS; }`, annotations: said("proxy-cookie-path", "/in/ /"), alsoKeys: true, fields: []string{"Set-Cookie"}, requests: targets("/?Set-Cookie=a=b%3BPath=/in/x", "/?Set-Cookie=a=b%3BPath=/inx", "/?Set-Cookie=a=b%3BPath=/")},
		"add-headers":                        {nginx: `location / { add_header X-Team blue always; PASS; }`, keys: said("add-headers", "default/NAME"), more: configMap("NAME", "X-Team", "blue"), fields: []string{"X-Team"}, requests: targets("/", "/404", "/500", "/301")},
		"proxy-set-headers":                  {nginx: `location / { proxy_set_header X-Team $scheme-blue; proxy_set_header X-Gone ""; PASS; }`, keys: said("proxy-set-headers", "default/NAME"), more: configMap("NAME", "X-Team", "$scheme-blue", "X-Gone", ""), lines: []string{"X-Team:", "X-Gone:"}, requests: [][]string{{"/"}, {"/", "X-Team: red", "X-Gone: 1"}}},
		"hide-headers":                       {nginx: `location / { proxy_hide_header X-One; proxy_hide_header X-Two; PASS; }`, keys: said("hide-headers", "X-One,X-Two"), fields: []string{"X-One", "X-Two", "X-Three"}, requests: targets("/?X-One=1&X-Two=2&X-Three=3", "/404?X-One=1")},
		"allow-backend-server-header":        {nginx: `location / { proxy_pass_header Server; PASS; }`, keys: said("allow-backend-server-header", "true"), fields: []string{"Server"}, requests: targets("/?Server=theirs", "/404?Server=theirs")},
		"generate-request-id":                {http: `map $http_x_request_id $their_id { default $http_x_request_id; "" $request_id; }`, nginx: `location / { proxy_set_header X-Request-ID $their_id; PASS; }`, lines: id, requests: [][]string{{"/", "X-Request-ID: mine"}}, check: sameShapeOfID},
		"generate-request-id off":            {keys: said("generate-request-id", "false"), lines: id, requests: [][]string{{"/", "X-Request-ID: mine"}, {"/"}}},
		"proxy-add-original-uri-header":      {nginx: `location / { proxy_set_header X-Original-URI $request_uri; PASS; }`, keys: said("proxy-add-original-uri-header", "true"), lines: []string{"X-Original-Uri:"}, requests: [][]string{{"/a%20b?c=%2f"}, {"/", "X-Original-URI: /evil"}}},
		"enable-underscores-in-headers":      {nginx: `underscores_in_headers on; location / { PASS; }`, keys: said("enable-underscores-in-headers", "true"), lines: []string{"A_b:", "A-B:"}, requests: [][]string{{"/", "A_b: 1"}, {"/", "a-b: 2", "a_b: 3"}}},
		"enable-underscores-in-headers off":  {lines: []string{"A_b:", "A-B:"}, requests: [][]string{{"/", "A_b: 1"}, {"/", "a-b: 2", "a_b: 3"}}},
		"ignore-invalid-headers":             {nginx: `ignore_invalid_headers off; location / { PASS; }`, keys: said("ignore-invalid-headers", "false"), lines: oddLines, requests: oddNames, check: noToken(true)},
		"ignore-invalid-headers on":          {nginx: `ignore_invalid_headers on; location / { PASS; }`, keys: said("ignore-invalid-headers", "true"), lines: oddLines, requests: oddNames, check: noToken(false)},
		"ignore-invalid-headers unsaid":      {lines: oddLines, requests: oddNames},
		"server-tokens":                      {nginx: `server_tokens on; return 301 https://new.example;`, annotations: said("permanent-redirect", "https://new.example"), keys: said("server-tokens", "true"), requests: targets("/"), check: serverNames("sluice", "nginx/1.22.1")},
		"server-tokens off":                  {nginx: `server_tokens off; return 301 https://new.example;`, annotations: said("permanent-redirect", "https://new.example"), keys: said("server-tokens", "false"), requests: targets("/"), check: serverNames("", "nginx")},
		"fields of a connection":             {lines: []string{"Connection:", "Keep-Alive:", "Te:", "Upgrade:", "X-A:"}, requests: [][]string{{"/", "Connection: keep-alive", "X-A: 1"}, {"/", "Connection: close"}}},
		"use-gzip":                           {nginx: `gzip on; gzip_comp_level 9; gzip_min_length 20; gzip_types text/css; gzip_proxied any; gzip_vary on; location / { PASS; }`, keys: said("use-gzip", "true", "gzip-level", "9", "gzip-min-length", "20", "gzip-types", "text/css"), fields: []string{"Content-Encoding", "Vary"}, requests: [][]string{{"/?Content-Type=text/css", "Accept-Encoding: gzip"}, {"/?Content-Type=text/plain", "Accept-Encoding: gzip"}, {"/?Content-Type=text/css"}}},
		"custom-http-errors":                 {nginx: errorPages, keys: said("custom-http-errors", "404,503"), lines: []string{"name:", "X-Code:", "X-Original-Uri:"}, requests: targets("/404?a", "/503", "/418", "/200")},
		"disable-proxy-intercept-errors":     {nginx: ownErrorsOnly, annotations: said("custom-http-errors", "404,502", "default-backend", "pages", "disable-proxy-intercept-errors", "true"), lines: []string{"name:", "X-Code:"}, requests: targets("/404", "/502", "/200")},
		"disable-proxy-intercept-errors key": {nginx: ownErrorsOnly, keys: said("custom-http-errors", "404,502", "disable-proxy-intercept-errors", "true"), lines: []string{"name:", "X-Code:"}, requests: targets("/404", "/502", "/200")},
		"sluice.dev/request-headers-set":     {nginx: `location / { proxy_set_header X-Team blue; PASS; }`, annotations: said("sluice.dev/request-headers-set", `{"X-Team": "blue"}`), lines: []string{"X-Team:"}, requests: [][]string{{"/"}, {"/", "X-Team: red"}, {"/", "X-Team: red", "X-Team: green"}}},
		"sluice.dev/request-headers-add":     {nginx: `location / { proxy_set_header X-Team blue; PASS; }`, annotations: said("sluice.dev/request-headers-add", `{"X-Team": "blue"}`), lines: []string{"X-Team:"}, requests: targets("/", "POST /")},
		"sluice.dev/request-headers-remove":  {nginx: `location / { proxy_set_header X-Team ""; PASS; }`, annotations: said("sluice.dev/request-headers-remove", "X-Team"), lines: []string{"X-Team:", "X-Other:"}, requests: [][]string{{"/"}, {"/", "X-Team: red", "X-Other: 1"}}},
		"sluice.dev/response-headers-set":    {nginx: `location / { proxy_hide_header X-Team; add_header X-Team blue always; PASS; }`, annotations: said("sluice.dev/response-headers-set", `{"X-Team": "blue"}`), fields: team, requests: targets("/", "/404", "/500", "/?X-Team=red")},
		"sluice.dev/response-headers-add":    {nginx: `location / { add_header X-Team blue always; PASS; }`, annotations: said("sluice.dev/response-headers-add", `{"X-Team": "blue"}`), fields: team, requests: targets("/", "/404", "/?X-Team=red")},
		"sluice.dev/response-headers-remove": {nginx: `location / { proxy_hide_header X-Team; PASS; }`, annotations: said("sluice.dev/response-headers-remove", "X-Team"), fields: []string{"X-Team", "X-Other"}, requests: targets("/?X-Team=red&X-Other=1", "/404?X-Team=red")},
		"of its own errors": {nginx: `location / { error_page 502 = @e; proxy_pass http://DEAD; } location @e { proxy_set_header X-Code 502; rewrite (.*) / break; proxy_pass http://OTHER; }`, endpoints: []string{"DEAD"},
			annotations: said("custom-http-errors", "404,502", "default-backend", "pages", "disable-proxy-intercept-errors", "true"), lines: []string{"name:", "X-Code:"}, requests: targets("/")},
	}
}

const (
	errorPages = `location / { proxy_intercept_errors on; error_page 404 = @e404; error_page 503 = @e503; PASS; }
 location @e404 { proxy_set_header X-Code 404; proxy_set_header X-Original-URI $request_uri; rewrite (.*) / break; proxy_pass http://OTHER; }
 location @e503 { proxy_set_header X-Code 503; proxy_set_header X-Original-URI $request_uri; rewrite (.*) / break; proxy_pass http://OTHER; }`
	ownErrorsOnly = `location / { error_page 404 502 = @e; PASS; } location @e { proxy_set_header X-Code 404; rewrite (.*) / break; proxy_pass http://OTHER; }`
)

// TestOracleAccess: who is let in, and how many.
func TestOracleAccess(t *testing.T) { runOracle(t, oracleAccess()) }

func oracleAccess() map[string]oracleRow {
	const verify = `location = /_auth { internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; %s proxy_set_header X-Auth-Request-Redirect $back; proxy_pass http://SERVICE/verify; }
 set $back $request_uri;
 location / { auth_request /_auth; auth_request_set $user $upstream_http_remote_user; proxy_set_header Remote-User $user; %s PASS; } %s`
	const escaped = `map $request_uri $escaped { /x %2Fx; /x?a=b %2Fx%3Fa%3Db; default %2F; }`
	const signin = `location @signin { add_header Set-Cookie $cookie; return 302 https://auth.example/?%s=$scheme://$http_host$escaped; }`
	const cookies = `auth_request_set $cookie $upstream_http_set_cookie; add_header Set-Cookie $cookie`
	wants := [][]string{{"/x", "X-Want: 200"}, {"/x?a=b", "X-Want: 401"}, {"/x", "X-Want: 401"}, {"/x", "X-Want: 403"}, {"/x", "X-Want: 500"}, {"/", "X-Want: 302"}}
	location, user := []string{"Location"}, []string{"GET", "Remote-User:"}
	const auth, keeper = "http://SERVICE/verify", "http://OTHER/kept"
	const kept = `location = /_auth { internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_cache auth; proxy_cache_key $host$http_authorization; %s proxy_pass http://OTHER/kept; }
 location / { auth_request /_auth; PASS; }`
	return map[string]oracleRow{
		"auth-secret-type": {nginx: `location / { auth_basic x; auth_basic_user_file @users; PASS; }`, annotations: said("auth-type", "basic", "auth-secret", "NAME", "auth-secret-type", "auth-map", "auth-realm", "x"),
			more: opaqueSecret("NAME", "sha", "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="), fields: []string{"WWW-Authenticate"}, requests: [][]string{{"/"}, {"/", basicField("sha", "secret")}, {"/", basicField("sha", "wrong")}, {"/", basicField("x", "secret")}}},
		"a Secret without the right key":     {nginx: "return 503;", annotations: said("auth-type", "basic", "auth-secret", "NAME"), more: opaqueSecret("NAME", "other", "x:y"), requests: targets("/")},
		"secret missing 503":                 {nginx: "return 503;", annotations: said("auth-type", "basic", "auth-secret", "nowhere"), requests: targets("/", "POST /x")},
		"list bad 503":                       {nginx: "return 503;", annotations: said("whitelist-source-range", "127.0.0.1, everybody"), requests: targets("/", "POST /x")},
		"auth-method":                        {nginx: sprintf(verify, "proxy_method POST;", "", ""), annotations: said("auth-url", auth, "auth-method", "POST", "auth-response-headers", "Remote-User"), lines: user, requests: wants, check: agree(lastAsked)},
		"auth-signin":                        {http: escaped, nginx: sprintf(verify, "", "error_page 401 = @signin;", sprintf(signin, "rd")), annotations: said("auth-url", auth, "auth-signin", "https://auth.example/", "auth-response-headers", "Remote-User"), fields: location, lines: user, requests: wants},
		"auth-signin-redirect-param":         {nginx: sprintf(verify, "", "error_page 401 = @signin;", sprintf(signin, "next")), annotations: said("auth-url", auth, "auth-signin", "https://auth.example/", "auth-signin-redirect-param", "next"), fields: location, requests: wants},
		"auth-request-redirect":              {nginx: sprintf(verify, "", "", "set $back https://back.example/;"), annotations: said("auth-url", auth, "auth-request-redirect", "https://back.example/"), check: agree(lastAsked)},
		"auth-proxy-set-headers":             {nginx: sprintf(verify, "proxy_set_header X-Team blue;", "", ""), annotations: said("auth-url", auth, "auth-proxy-set-headers", "default/NAME"), more: configMap("NAME", "X-Team", "blue"), check: agree(lastAsked)},
		"auth-always-set-cookie":             {nginx: sprintf(verify, "", cookies+" always;", ""), annotations: said("auth-url", auth, "auth-always-set-cookie", "true"), check: agree(cookieOf)},
		"auth-always-set-cookie off":         {nginx: sprintf(verify, "", cookies+";", ""), annotations: said("auth-url", auth), check: agree(cookieOf)},
		"auth-cache-key":                     {http: "proxy_cache_path @cache keys_zone=auth:1m;", nginx: sprintf(kept, "proxy_cache_valid 200 202 401 5m;"), annotations: said("auth-url", keeper, "auth-cache-key", "$http_authorization"), check: agree(askedOnce)},
		"auth-cache-duration":                {nginx: sprintf(kept, "proxy_cache_valid 403 5m;"), annotations: said("auth-url", keeper, "auth-cache-key", "$http_authorization", "auth-cache-duration", "403 5m"), check: agree(askedOnce)},
		"global-auth-cache":                  {nginx: sprintf(kept, "proxy_cache_valid 200 5m;"), keys: said("global-auth-url", keeper, "global-auth-cache-key", "$http_authorization", "global-auth-cache-duration", "200 5m"), check: agree(askedOnce)},
		"global-auth":                        {nginx: sprintf(verify, "proxy_method POST;", "error_page 401 = @signin;", sprintf(signin, "next")+" set $back https://back.example/;"), keys: said("global-auth-url", auth, "global-auth-method", "POST", "global-auth-signin", "https://auth.example/", "global-auth-signin-redirect-param", "next", "global-auth-response-headers", "Remote-User", "global-auth-request-redirect", "https://back.example/"), fields: location, lines: user, requests: wants, check: agree(lastAsked)},
		"global-auth-always-set-cookie":      {nginx: sprintf(verify, "", cookies+" always;", ""), keys: said("global-auth-url", auth, "global-auth-always-set-cookie", "true"), check: agree(cookieOf)},
		"enable-global-auth":                 {annotations: said("enable-global-auth", "false"), keys: said("global-auth-url", auth), requests: wants},
		"no-auth-locations":                  {path: "/open", nginx: "location /open { PASS; } location / { return 404; }", keys: said("global-auth-url", auth, "no-auth-locations", "/open"), requests: [][]string{{"/open", "X-Want: 403"}, {"/open/x", "X-Want: 401"}}},
		"satisfy":                            {nginx: `location / { satisfy all; deny 127.0.0.1; auth_basic x; auth_basic_user_file @users; PASS; }`, annotations: said("satisfy", "all", "denylist-source-range", "127.0.0.1", "auth-type", "basic", "auth-secret", "NAME", "auth-realm", "x"), more: opaqueSecret("NAME", "auth", oracleUsers), fields: []string{"WWW-Authenticate"}, requests: [][]string{{"/"}, {"/", basicField("sha", "secret")}}},
		"satisfy any external":               {nginx: `location = /_auth { internal; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_pass http://SERVICE/verify; } location / { satisfy any; auth_request /_auth; auth_basic x; auth_basic_user_file @users; PASS; }`, annotations: said("satisfy", "any", "auth-url", auth, "auth-type", "basic", "auth-secret", "NAME", "auth-realm", "x"), more: opaqueSecret("NAME", "auth", oracleUsers), requests: [][]string{{"/", "X-Want: 200"}, {"/", "X-Want: 403"}, {"/", "X-Want: 403", basicField("sha", "secret")}, {"/", "X-Want: 200", basicField("sha", "wrong")}, {"/", "X-Want: 401"}}},
		"whitelist-source-range":             {nginx: `location / { allow 10.0.0.0/8; deny all; PASS; }`, keys: said("whitelist-source-range", "10.0.0.0/8"), requests: targets("/")},
		"whitelist-source-range that allows": {nginx: `location / { allow 127.0.0.0/8; deny all; PASS; }`, keys: said("whitelist-source-range", "127.0.0.0/8"), requests: targets("/")},
		"denylist-source-range":              {nginx: `location / { deny 127.0.0.1; PASS; }`, keys: said("denylist-source-range", "127.0.0.1"), requests: targets("/")},
		"block-cidrs":                        {nginx: `deny 127.0.0.0/8; location / { PASS; }`, keys: said("block-cidrs", "127.0.0.0/8"), requests: targets("/")},
		"block-user-agents":                  {http: `map $http_user_agent $blocked { default 0; ~*badbot 1; exactly 1; ~Worse 1; }`, nginx: `if ($blocked) { return 403; } location / { PASS; }`, keys: said("block-user-agents", "~*badbot,exactly,~Worse"), requests: [][]string{{"/"}, {"/", "User-Agent: a BadBot/1"}, {"/", "User-Agent: exactly"}, {"/", "User-Agent: exactly so"}, {"/", "User-Agent: EXACTLY"}, {"/", "User-Agent: Worse"}, {"/", "User-Agent: worse"}}},
		"block-referers":                     {http: `map $http_referer $refused { default 0; http://bad.example/ 1; ~*evil 1; }`, nginx: `if ($refused) { return 403; } location / { PASS; }`, keys: said("block-referers", "http://bad.example/,~*evil"), requests: [][]string{{"/"}, {"/", "Referer: http://bad.example/"}, {"/", "Referer: http://bad.example/x"}, {"/", "Referer: http://EVIL.example/x"}}},
		"limit-req-status-code":              {http: "limit_req_zone $binary_remote_addr zone=coded:1m rate=1r/m;", nginx: `location / { limit_req zone=coded burst=5 nodelay; limit_req_status 429; PASS; }`, annotations: said("limit-rpm", "1"), keys: said("limit-req-status-code", "429"), requests: append(targets("/", "/", "/", "/", "/", "/"), targets("/", "/")...)},
		"limit-rps":                          {http: "limit_req_zone $binary_remote_addr zone=second:1m rate=1r/s;", nginx: `location / { limit_req zone=second burst=5 nodelay; PASS; }`, annotations: said("limit-rps", "1"), check: leaks},
		"limit-conn-status-code":             {http: "limit_conn_zone $binary_remote_addr zone=held:1m;", nginx: `location / { limit_conn held 1; limit_conn_status 429; PASS; }`, annotations: said("limit-connections", "1"), keys: said("limit-conn-status-code", "429"), check: agree(heldOne)},
		"limit-rate":                         {nginx: `location / { limit_rate 100k; limit_rate_after 200k; PASS; }`, keys: said("limit-rate", "100", "limit-rate-after", "200"), check: slowly},
	}
}

// TestOracleCanary: by field and cookie, as a map of nginx says it. What a weight between none and all does is chance.
func TestOracleCanary(t *testing.T) { runOracle(t, oracleCanary()) }

func oracleCanary() map[string]oracleRow {
	row := func(maps string, annotations ...string) oracleRow {
		return oracleRow{http: maps, nginx: `location / { proxy_pass http://$canary_N; }`, canary: canaryAnnotations(annotations...), lines: []string{"name:"}, requests: [][]string{{"/"}, {"/", "X-C: always"}, {"/", "X-C: never"}, {"/", "X-C: other"},
			{"/", "X-C: v1.2"}, {"/", "X-C: V1"}, {"/", "Cookie: c=always"}, {"/", "Cookie: a=b; c=never"}, {"/", "Cookie: c=x"}, {"/", "X-C: never", "Cookie: c=always"}, {"/", "X-C: other", "Cookie: c=always"}}}
	}
	inherits := row(`map $http_x_c $canary_N { default BACKEND; always OTHER; }`, "canary-by-header", "X-C", "upstream-vhost", "canary.internal", "denylist-source-range", "127.0.0.1")
	inherits.nginx, inherits.annotations = `location / { proxy_set_header Host main.internal; proxy_pass http://$canary_N; }`, said("upstream-vhost", "main.internal")
	inherits.lines = append(inherits.lines, "host:")
	rows := map[string]oracleRow{
		"canary-by-header":         row(`map $http_x_c $canary_N { default BACKEND; always OTHER; }`, "canary-by-header", "X-C"),
		"canary-by-header-value":   row(`map $http_x_c $canary_N { default BACKEND; other OTHER; }`, "canary-by-header", "X-C", "canary-by-header-value", "other"),
		"canary-by-header-pattern": row(`map $http_x_c $canary_N { default BACKEND; ~v[0-9] OTHER; }`, "canary-by-header", "X-C", "canary-by-header-pattern", "v[0-9]"),
		"canary-by-cookie":         row(`map $cookie_c $canary_N { default BACKEND; always OTHER; }`, "canary-by-cookie", "c"),
		"field before cookie":      row(`map $cookie_c $by_cookie { default BACKEND; always OTHER; } map $http_x_c $canary_N { default $by_cookie; always OTHER; never BACKEND; }`, "canary-by-header", "X-C", "canary-by-cookie", "c"),
		"canary-weight":            row(`map $http_x_c $canary_N { default OTHER; never BACKEND; }`, "canary-by-header", "X-C", "canary-weight", "100"),
		"canary-weight 0":          row(`map $http_x_c $canary_N { default BACKEND; }`, "canary-weight", "0"),
		"canary inherits":          inherits,
		"canary-weight-total":      row(`map $http_x_c $canary_N { default OTHER; }`, "canary-weight", "200", "canary-weight-total", "200"),
	}
	return rows
}
