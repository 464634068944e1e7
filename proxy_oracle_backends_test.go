package main

import (
	"crypto/tls"
	"testing"
	"time"
)

// TestOracleBackends: which endpoint is asked, when the next one is, and what backends are told on which connections.
func TestOracleBackends(t *testing.T) { runOracle(t, oracleBackends()) }

func oracleBackends() map[string]oracleRow {
	const two = "upstream up_N { server FAIL1 max_fails=0; server BACKEND max_fails=0; }"
	const four = "upstream up_N { server FAIL1 max_fails=0; server FAIL2 max_fails=0; server FAIL3 max_fails=0; server FAIL4 max_fails=0; }"
	const kept = "upstream up_N { server BACKEND; keepalive 8; %s }"
	next := func(what string) string {
		return "location / { proxy_next_upstream " + what + "; proxy_pass http://up_N; }"
	}
	fails := []string{"FAIL1", "FAIL2", "FAIL3", "FAIL4"}
	forwardedHost := func(key string) []string { return []string{"/", "X-Forwarded-Host: " + key + ".example"} }
	status := func(a *answer) string { return sprintf("%d", a.status) }
	rows := map[string]oracleRow{
		"load-balance":                       {http: "upstream up_N { server BACKEND; server OTHER; }", nginx: "location / { proxy_pass http://up_N; }", endpoints: []string{"BACKEND", "OTHER"}, annotations: said("load-balance", "round_robin"), alsoKeys: true, check: tally(8, "/")},
		"sluice.dev/load-balance":            {http: "upstream up_N { least_conn; server BACKEND; server OTHER; }", nginx: "location / { proxy_pass http://up_N; }", endpoints: []string{"BACKEND", "OTHER"}, annotations: said("sluice.dev/load-balance", "least_conn"), check: agree(avoidsTheBusy)},
		"upstream-hash-by":                   {http: "upstream up_N { hash $request_uri consistent; server BACKEND; server OTHER; }", nginx: "location / { proxy_pass http://up_N; }", endpoints: []string{"BACKEND", "OTHER"}, annotations: said("upstream-hash-by", "$request_uri"), check: agree(ofKeys(func(key string) []string { return []string{"/" + key} }))},
		"upstream-hash-by best_http_host":    {http: `map $http_x_forwarded_host $best_N { default $http_x_forwarded_host; "" $http_host; } upstream up_N { hash $best_N consistent; server BACKEND; server OTHER; }`, nginx: "location / { proxy_pass http://up_N; }", endpoints: []string{"BACKEND", "OTHER"}, annotations: said("upstream-hash-by", "$best_http_host"), keys: said("use-forwarded-headers", "true", "proxy-real-ip-cidr", "127.0.0.0/8"), check: agree(ofKeys(forwardedHost))},
		"best_http_host, not believed":       {http: "upstream up_N { hash $http_host consistent; server BACKEND; server OTHER; }", nginx: "location / { proxy_pass http://up_N; }", endpoints: []string{"BACKEND", "OTHER"}, annotations: said("upstream-hash-by", "$best_http_host"), check: agree(ofKeys(forwardedHost))},
		"proxy-next-upstream invalid_header": {http: "upstream up_N { server GARBAGE max_fails=0; server BACKEND max_fails=0; }", nginx: next("invalid_header"), endpoints: []string{"GARBAGE", "BACKEND"}, annotations: said("proxy-next-upstream", "invalid_header"), check: tally(4, "/")},
		"an invalid header":                  {nginx: "location / { proxy_pass http://GARBAGE; }", endpoints: []string{"GARBAGE"}, check: tally(2, "/")},
		"a POST is not sent again":           {http: two, nginx: next("error timeout http_503"), endpoints: []string{"FAIL1", "BACKEND"}, annotations: said("proxy-next-upstream", "error timeout http_503"), check: tally(6, "POST /", "X-Fail: 503", bodyOf+"hello")},
		"retry-non-idempotent":               {http: two, nginx: next("error timeout http_503 non_idempotent"), endpoints: []string{"FAIL1", "BACKEND"}, keys: said("proxy-next-upstream", "error timeout http_503", "retry-non-idempotent", "true"), check: tally(6, "POST /", "X-Fail: 503", bodyOf+"hello")},
		"proxy-next-upstream non_idempotent": {http: two, nginx: next("error timeout http_503 non_idempotent"), endpoints: []string{"FAIL1", "BACKEND"}, annotations: said("proxy-next-upstream", "error timeout http_503 non_idempotent"), check: tally(6, "POST /", "X-Fail: 503", bodyOf+"hello")},
		"proxy-next-upstream-tries":          {http: four, nginx: next("http_503; proxy_next_upstream_tries 2"), endpoints: fails, annotations: said("proxy-next-upstream", "http_503", "proxy-next-upstream-tries", "2"), alsoKeys: true, check: inTurn(1, []string{"/", "X-Fail: 503"}, status)},
		"proxy-next-upstream-tries 0":        {http: "upstream up_N { server FAIL1 max_fails=0; server FAIL2 max_fails=0; server FAIL3 max_fails=0; server FAIL4 max_fails=0; server BACKEND max_fails=0; }", nginx: next("http_503; proxy_next_upstream_tries 0"), endpoints: append(fails, "BACKEND"), annotations: said("proxy-next-upstream", "http_503", "proxy-next-upstream-tries", "0"), alsoKeys: true, check: tally(10, "/", "X-Fail: 503")},
		"proxy-next-upstream-timeout":        {http: four, nginx: next("http_503; proxy_next_upstream_timeout 1"), endpoints: fails, annotations: said("proxy-next-upstream", "http_503", "proxy-next-upstream-timeout", "1"), alsoKeys: true, check: inTurn(1, []string{"/", "X-Fail: 503", "X-Slow: 1"}, status)},
		"proxy-connect-timeout":              {nginx: "location / { proxy_connect_timeout 1; proxy_pass http://SILENT; }", endpoints: []string{"SILENT"}, annotations: said("proxy-connect-timeout", "1", "proxy-next-upstream", "off"), alsoKeys: true, requests: targets("/")},
		"proxy-read-timeout":                 {nginx: "location / { proxy_read_timeout 1; PASS; }", annotations: said("proxy-read-timeout", "1", "proxy-next-upstream", "off"), alsoKeys: true, requests: targets("/hold", "POST /hold")},
		"proxy-send-timeout":                 {nginx: "location / { client_max_body_size 0; proxy_request_buffering off; proxy_send_timeout 1; proxy_pass http://DEAF; }", endpoints: []string{"DEAF"}, annotations: said("proxy-send-timeout", "1", "proxy-body-size", "0", "proxy-next-upstream", "off"), alsoKeys: true, check: agree(deaf)},
		"proxy-http-version": {nginx: "location / { proxy_http_version 1.0; proxy_set_header Host $http_host; proxy_set_header Connection close; proxy_pass http://RAW; }", endpoints: []string{"RAW"},
			annotations: said("proxy-http-version", "1.0"), alsoKeys: true, check: agree(inHTTP10)},
		"proxy-http-version 1.1":           {http: sprintf(kept, ""), nginx: "location / { proxy_pass http://up_N; }", annotations: said("proxy-http-version", "1.1"), keys: said("proxy-http-version", "1.0"), check: agree(connections)},
		"proxy-request-buffering":          {check: halfBody(false)},
		"proxy-request-buffering off":      {nginx: "location / { proxy_request_buffering off; PASS; }", annotations: said("proxy-request-buffering", "off"), alsoKeys: true, check: halfBody(true)},
		"client-body-buffer-size":          {nginx: "location / { client_body_buffer_size 1k; PASS; }", annotations: said("client-body-buffer-size", "1k"), alsoKeys: true, check: agree(arrivesWhole)},
		"proxy-buffer-size":                {nginx: "location / { proxy_buffer_size 1k; proxy_buffers 4 1k; proxy_busy_buffers_size 1k; PASS; }", annotations: said("proxy-buffer-size", "1k"), requests: targets("/?X-A="+long(500), "/?X-A=b&X-Head=70000"), check: largerHead},
		"proxy-body-size":                  {nginx: "location / { client_max_body_size 10; PASS; }", annotations: said("proxy-body-size", "10"), alsoKeys: true, lines: []string{"POST"}, requests: [][]string{{"POST /", bodyOf + "0123456789"}, {"POST /", bodyOf + "0123456789a"}, {"/"}}},
		"upstream-keepalive-requests":      {http: sprintf(kept, "keepalive_requests 2;"), nginx: "location / { proxy_pass http://up_N; }", keys: said("upstream-keepalive-requests", "2"), check: agree(connections)},
		"upstream-keepalive-connections":   {http: sprintf(kept, ""), nginx: "location / { proxy_pass http://up_N; }", keys: said("upstream-keepalive-connections", "8"), check: agree(connections)},
		"upstream-keepalive-connections 0": {keys: said("upstream-keepalive-connections", "0"), check: agree(connections)},
		"upstream-keepalive-timeout":       {http: sprintf(kept, "keepalive_timeout 1;"), nginx: "location / { proxy_pass http://up_N; }", keys: said("upstream-keepalive-timeout", "1"), check: renewed(1100 * time.Millisecond)},
		"upstream-keepalive-time":          {http: sprintf(kept, "keepalive_time 1;"), nginx: "location / { proxy_pass http://up_N; }", keys: said("upstream-keepalive-time", "1s"), check: renewed(100 * time.Millisecond)},
		"mirror-target":                    {nginx: "location / { mirror /_mirror; PASS; } location = /_mirror { internal; proxy_set_header Host 127.0.0.1; proxy_pass http://OTHER/copy$request_uri; }", annotations: said("mirror-target", "http://OTHER/copy$request_uri"), check: agree(copied)},
		"mirror-host":                      {nginx: "location / { mirror /_mirror; PASS; } location = /_mirror { internal; proxy_set_header Host copy.example; proxy_pass http://OTHER$request_uri; }", annotations: said("mirror-target", "http://OTHER$request_uri", "mirror-host", "copy.example"), check: agree(copied)},
		"mirror-request-body":              {nginx: `location / { mirror /_mirror; mirror_request_body off; PASS; } location = /_mirror { internal; proxy_pass_request_body off; proxy_set_header Host copy.example; proxy_set_header Content-Length ""; proxy_pass http://OTHER$request_uri; }`, annotations: said("mirror-target", "http://OTHER$request_uri", "mirror-host", "copy.example", "mirror-request-body", "off"), check: agree(copied)},
	}
	for _, code := range []string{"500", "502", "503", "504", "403", "404", "429"} {
		what := "error http_" + code
		rows["proxy-next-upstream http_"+code] = oracleRow{http: two, nginx: next(what), endpoints: []string{"FAIL1", "BACKEND"}, annotations: said("proxy-next-upstream", what), alsoKeys: code == "500",
			check: tally(6, "/", "X-Fail: "+code)}
		// A lone endpoint is asked again, as by ingress-nginx's own balancer; nginx's asks each once.
		rows["no other endpoint for http_"+code] = oracleRow{nginx: "location / { proxy_next_upstream " + what + "; proxy_pass http://FAIL1; }", endpoints: []string{"FAIL1"}, annotations: said("proxy-next-upstream", what),
			check: tally(2, "/", "X-Fail: "+code)}
	}
	return rows
}

// TestOracleClients: limits, timeouts, and what is believed of clients.
func TestOracleClients(t *testing.T) { runOracle(t, oracleClients()) }

func oracleClients() map[string]oracleRow {
	const named = "set_real_ip_from 127.0.0.0/8; real_ip_recursive on; real_ip_header %s; location / { proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Real-IP $remote_addr; proxy_set_header X-Original-Forwarded-For $http_%s; %s PASS; }"
	told := []string{"X-Forwarded-For:", "X-Real-Ip:", "X-Original-Forwarded-For:"}
	lists := [][]string{{"/"}, {"/", "X-Forwarded-For: 192.0.2.7"}, {"/", "X-Forwarded-For: 192.0.2.9, 192.0.2.7, 127.0.0.2"}, {"/", "X-Forwarded-For: 127.0.0.3"}, {"/", "X-Forwarded-For: 2001:db8::7"},
		{"/", "X-Client: 192.0.2.8", "X-Forwarded-For: 192.0.2.7"}}
	trusted := func(pairs ...string) map[string]string {
		return said(append(pairs, "proxy-real-ip-cidr", "127.0.0.0/8")...)
	}
	head, open := "GET / HTTP/1.1\r\nHost: HOST\r\n", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 10\r\n\r\nhello"
	return map[string]oracleRow{
		"keep-alive-requests":   {nginx: "keepalive_requests 3; location / { PASS; }", keys: said("keep-alive-requests", "3"), check: inTurn(7, []string{"/"}, func(a *answer) string { return sprintf("%d %v", a.status, a.close) })},
		"keep-alive":            {nginx: "keepalive_timeout 1; location / { PASS; }", keys: said("keep-alive", "1"), check: untilCut(head + "\r\n")},
		"client-header-timeout": {nginx: "client_header_timeout 1; location / { PASS; }", keys: said("client-header-timeout", "1"), check: toldWhy(head)},
		"client-body-timeout":   {nginx: "client_body_timeout 1; location / { PASS; }", keys: said("client-body-timeout", "1"), check: toldWhy(open)},
		"large-client-header-buffers": {nginx: "client_header_buffer_size 1k; large_client_header_buffers 4 1k; location / { PASS; }", keys: said("large-client-header-buffers", "4 1k"), lines: []string{"GET"},
			requests: [][]string{{"/"}, {"/" + long(900)}, {"/" + long(1100)}, {"/", "X-A: " + long(900)}, {"/", "X-A: " + long(900), "X-B: " + long(900)}}},
		"use-forwarded-headers":      {nginx: sprintf(named, "X-Forwarded-For", "x_forwarded_for", ""), keys: trusted("use-forwarded-headers", "true"), lines: told, requests: lists},
		"enable-real-ip":             {nginx: sprintf(named, "X-Forwarded-For", "x_forwarded_for", ""), keys: trusted("enable-real-ip", "true"), lines: told, requests: lists},
		"forwarded-for-header":       {nginx: sprintf(named, "X-Client", "x_client", ""), keys: trusted("use-forwarded-headers", "true", "forwarded-for-header", "X-Client"), lines: append(told, "X-Client:"), requests: lists},
		"forwarded-host-header":      {http: `map $http_x_said $said { default $http_x_said; "" $http_host; }`, nginx: "location / { proxy_set_header Host $said; proxy_set_header X-Forwarded-Host $said; PASS; }", keys: trusted("use-forwarded-headers", "true", "forwarded-host-header", "X-Said"), lines: []string{"host:", "X-Forwarded-Host:"}, requests: [][]string{{"/"}, {"/", "X-Said: said.example"}, {"/", "X-Forwarded-Host: other.example"}}},
		"compute-full-forwarded-for": {http: `map $http_x_forwarded_for $full { default "$http_x_forwarded_for, $realip_remote_addr"; "" $realip_remote_addr; }`, nginx: "set_real_ip_from 127.0.0.0/8; real_ip_header X-Forwarded-For; location / { proxy_set_header X-Forwarded-For $full; PASS; }", keys: trusted("use-forwarded-headers", "true", "compute-full-forwarded-for", "true"), lines: []string{"X-Forwarded-For:"}, requests: lists},
		"proxy-real-ip-cidr":         {nginx: "set_real_ip_from 192.0.2.0/24; real_ip_header X-Forwarded-For; location / { proxy_set_header X-Forwarded-For $remote_addr; PASS; }", keys: said("use-forwarded-headers", "true", "proxy-real-ip-cidr", "192.0.2.0/24"), lines: []string{"X-Forwarded-For:"}, requests: lists},
		"use-proxy-protocol": {listen: "proxy_protocol", nginx: "set_real_ip_from 127.0.0.0/8; real_ip_header proxy_protocol; location / { proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header Connection close; PASS; }", keys: trusted("use-proxy-protocol", "true"),
			check: headers("PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\n", "PROXY TCP6 2001:db8::7 2001:db8::1 1234 80\r\n", "PROXY TCP4 nonsense\r\n", "", proxyV2("192.0.2.7:1234", "192.0.2.1:80", ""))},
		"proxy-protocol-header-timeout": {listen: "proxy_protocol", nginx: "client_header_timeout 1; location / { PASS; }", keys: trusted("use-proxy-protocol", "true", "proxy-protocol-header-timeout", "1s"), check: untilCut("PROXY TCP4 192")},
	}
}

// TestOracleTLS: what clients of TLS are offered, and what they are told.
func TestOracleTLS(t *testing.T) { runOracle(t, oracleTLS()) }

func oracleTLS() map[string]oracleRow {
	hsts := func(value string) string {
		return sprintf("location / { add_header Strict-Transport-Security %q always; PASS; }", value)
	}
	only := func(version uint16, suites ...uint16) func(*testing.T, *tls.Config) {
		return func(_ *testing.T, c *tls.Config) {
			c.MinVersion, c.MaxVersion, c.CipherSuites = version, version, suites
		}
	}
	protos := func(_ *testing.T, c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} }
	strict, all := []string{"Strict-Transport-Security"}, targets("/", "/404", "/500")
	const weak, strong = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	const serverOrder = "ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384; location / { PASS; }"
	const suites = "ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384; location / { PASS; }"
	return map[string]oracleRow{
		"hsts":                             {tls: true, nginx: hsts("max-age=31536000; includeSubDomains"), fields: strict, requests: all},
		"hsts off":                         {tls: true, keys: said("hsts", "false"), fields: strict, requests: all},
		"hsts-max-age":                     {tls: true, nginx: hsts("max-age=5; includeSubDomains"), keys: said("hsts-max-age", "5"), fields: strict, requests: all},
		"hsts-include-subdomains":          {tls: true, nginx: hsts("max-age=31536000"), keys: said("hsts-include-subdomains", "false"), fields: strict, requests: all},
		"hsts-preload":                     {tls: true, nginx: hsts("max-age=31536000; includeSubDomains; preload"), keys: said("hsts-preload", "true"), fields: strict, requests: all},
		"use-http2":                        {tls: true, listen: "http2", client: protos, check: agree(handshake)},
		"use-http2 off":                    {tls: true, keys: said("use-http2", "false"), client: protos, check: agree(handshake)},
		"http2-max-concurrent-streams":     {tls: true, listen: "http2", nginx: "http2_max_concurrent_streams 7; location / { PASS; }", keys: said("http2-max-concurrent-streams", "7"), check: agree(firstSettings)},
		"ssl-protocols refused":            {tls: true, nginx: "ssl_protocols TLSv1.3; location / { PASS; }", keys: said("ssl-protocols", "TLSv1.3"), client: only(tls.VersionTLS12), check: agree(handshake)},
		"ssl-protocols":                    {tls: true, nginx: "ssl_protocols TLSv1.3; location / { PASS; }", keys: said("ssl-protocols", "TLSv1.3"), client: only(tls.VersionTLS13), check: agree(handshake)},
		"ssl-prefer-server-ciphers":        {tls: true, nginx: "ssl_prefer_server_ciphers on; " + serverOrder, annotations: said("ssl-prefer-server-ciphers", "true"), check: agree(bothOrders)},
		"ssl-prefer-server-ciphers unsaid": {tls: true, nginx: "ssl_prefer_server_ciphers on; " + serverOrder, check: agree(bothOrders)},
		"ssl-prefer-server-ciphers false":  {tls: true, nginx: "ssl_prefer_server_ciphers off; " + serverOrder, annotations: said("ssl-prefer-server-ciphers", "false"), check: clientOrder},
		"ssl-ciphers refused":              {tls: true, nginx: suites, annotations: said("ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"), alsoKeys: true, client: only(tls.VersionTLS12, weak), check: agree(handshake)},
		"ssl-ciphers":                      {tls: true, nginx: suites, annotations: said("ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"), alsoKeys: true, client: only(tls.VersionTLS12, weak, strong), check: agree(handshake)},
		"ssl-ecdh-curve refused":           {tls: true, nginx: "ssl_ecdh_curve secp384r1; location / { PASS; }", keys: said("ssl-ecdh-curve", "secp384r1"), client: func(_ *testing.T, c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }, check: agree(handshake)},
		"ssl-ecdh-curve":                   {tls: true, nginx: "ssl_ecdh_curve secp384r1; location / { PASS; }", keys: said("ssl-ecdh-curve", "secp384r1"), client: func(_ *testing.T, c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP384} }, check: agree(handshake)},
		"ssl-session-tickets":              {tls: true, keys: said("ssl-session-tickets", "true"), check: agree(resumes)},
		"ssl-session-tickets off":          {tls: true, nginx: "ssl_session_tickets off; ssl_session_cache none; location / { PASS; }", keys: said("ssl-session-tickets", "false"), check: agree(resumes)},
		"ssl-reject-handshake":             {tls: true, nginx: "ssl_protocols TLSv1.2 TLSv1.3; location / { PASS; } } server { listen 127.0.0.1:PORT ssl default_server; ssl_protocols TLSv1.2 TLSv1.3; ssl_reject_handshake on;", keys: said("ssl-reject-handshake", "true"), client: func(_ *testing.T, c *tls.Config) { c.ServerName = "nobody.example" }, check: agree(handshake)},
		"ssl-reject-handshake, a host":     {tls: true, nginx: "ssl_protocols TLSv1.2 TLSv1.3; location / { PASS; } } server { listen 127.0.0.1:PORT ssl default_server; ssl_protocols TLSv1.2 TLSv1.3; ssl_reject_handshake on;", keys: said("ssl-reject-handshake", "true"), check: agree(handshake)},
		"ssl-redirect":                     {tls: true, plain: true, http: slashless, nginx: "return 308 https://HOST$without_N;", fields: []string{"Location"}, requests: targets("/", "/a/", "/a/?b=c/", "POST /a")},
		"ssl-redirect off":                 {tls: true, plain: true, annotations: said("ssl-redirect", "false"), alsoKeys: true, fields: []string{"Location"}, requests: targets("/", "/a/")},
		"client CA missing 403":            {tls: true, nginx: "return 403;", annotations: said("auth-tls-secret", "default/nowhere"), requests: targets("/", "POST /a")},
		"auth-tls-error-page":              {tls: true, nginx: errorPage, annotations: said("auth-tls-secret", "clients", "auth-tls-error-page", "https://help.example/no"), fields: []string{"Location"}, requests: targets("/", "/a?b")},
		"auth-tls-error-page, certified":   {tls: true, client: certified("good"), nginx: errorPage, annotations: said("auth-tls-secret", "clients", "auth-tls-error-page", "https://help.example/no"), fields: []string{"Location"}, requests: targets("/", "/a?b")},
		"auth-tls-match-cn":                {tls: true, client: certified("goood"), nginx: matchCN, annotations: said("auth-tls-secret", "clients", "auth-tls-match-cn", "CN=go+d"), requests: targets("/")},
		"auth-tls-match-cn, other":         {tls: true, client: certified("bad"), nginx: matchCN, annotations: said("auth-tls-secret", "clients", "auth-tls-match-cn", "CN=go+d"), lines: []string{"client"}, requests: targets("/")},
	}
}

const (
	slashless = `map $request_uri $without_N { ~^(?<shorter>.*)/$ $shorter; default $request_uri; }`
	errorPage = `ssl_client_certificate @ca; ssl_verify_client on; error_page 495 496 = https://help.example/no; location / { PASS; }`
	matchCN   = `ssl_client_certificate @ca; ssl_verify_client on; location / { if ($ssl_client_s_dn !~ CN=go+d) { return 403 "client certificate unauthorized"; } PASS; }`
)

// certified is a client that shows a certificate of the tests' authority.
func certified(name string) func(*testing.T, *tls.Config) {
	return func(t *testing.T, c *tls.Config) { c.Certificates = []tls.Certificate{*issue(t, name).tls()} }
}

// TestOracleBackendTLS: what backends of TLS are told, and which are believed.
func TestOracleBackendTLS(t *testing.T) { runOracle(t, oracleBackendTLS()) }

func oracleBackendTLS() map[string]oracleRow {
	const show = "proxy_ssl_certificate @client; proxy_ssl_certificate_key @proof; "
	lines := []string{"sni:", "client:"}
	row := func(backend, directives string, pairs ...string) oracleRow {
		return oracleRow{nginx: "location / { proxy_ssl_session_reuse off; " + directives + " proxy_pass https://" + backend + "; }", endpoints: []string{backend}, annotations: said(append(pairs, "backend-protocol", "HTTPS")...), lines: lines, requests: targets("/", "POST /a")}
	}
	verified := func(backend, ca, name string, depth int, pairs ...string) oracleRow {
		return row(backend, show+sprintf("proxy_ssl_trusted_certificate @%s; proxy_ssl_verify on; proxy_ssl_name %s; proxy_ssl_server_name on; proxy_ssl_verify_depth %d;", ca, name, depth),
			append(pairs, "proxy-ssl-verify", "on", "proxy-ssl-name", name, "proxy-ssl-server-name", "on", "proxy-ssl-verify-depth", sprintf("%d", depth))...)
	}
	suite := row("SECURE1", "proxy_ssl_protocols TLSv1.2; proxy_ssl_ciphers ECDHE-ECDSA-AES256-GCM-SHA384;", "proxy-ssl-secret", "good", "proxy-ssl-protocols", "TLSv1.2", "proxy-ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384")
	version := row("SECURE1", "proxy_ssl_protocols TLSv1.3;", "proxy-ssl-secret", "good", "proxy-ssl-protocols", "TLSv1.3")
	suite.lines, version.lines = []string{"version:", "cipher:"}, []string{"version:"}
	return map[string]oracleRow{
		"backend-protocol":             row("SECURE1", ""),
		"proxy-ssl-secret":             row("SECURE1", show, "proxy-ssl-secret", "good"),
		"proxy-ssl-name":               row("SECURE1", show+"proxy_ssl_name web.internal;", "proxy-ssl-secret", "good", "proxy-ssl-name", "web.internal"),
		"proxy-ssl-server-name":        row("SECURE1", show+"proxy_ssl_name web.internal; proxy_ssl_server_name on;", "proxy-ssl-secret", "good", "proxy-ssl-name", "web.internal", "proxy-ssl-server-name", "on"),
		"proxy-ssl-verify":             verified("SECURE1", "ca", "web.internal", 1, "proxy-ssl-secret", "good"),
		"proxy-ssl-verify, wrong name": verified("SECURE1", "ca", "other.internal", 1, "proxy-ssl-secret", "good"),
		"proxy-ssl-verify, stranger":   verified("SECURE1", "chain", "web.internal", 1, "proxy-ssl-secret", "chain"),
		"proxy-ssl-verify-depth":       verified("SECURE2", "chain", "web.internal", 1, "proxy-ssl-secret", "chain"),
		"proxy-ssl-verify-depth 0":     verified("SECURE2", "chain", "web.internal", 0, "proxy-ssl-secret", "chain"),
		"proxy-ssl-protocols":          version,
		"proxy-ssl-ciphers":            suite,
	}
}
