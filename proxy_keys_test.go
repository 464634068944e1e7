package main

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestOracleSlashRedirects compares the 301 to a path with its slash, in all its forms, with nginx's.
func TestOracleSlashRedirects(t *testing.T) {
	port := application(t, told)
	for _, form := range []struct{ relative, port string }{{"false", "false"}, {"true", "false"}, {"false", "true"}, {"true", "true"}} {
		onOff := map[string]string{"true": "on", "false": "off"}
		absolute := map[string]string{"true": "off", "false": "on"}[form.relative]
		theirs := nginx(t, fmt.Sprintf(`absolute_redirect %s; port_in_redirect %s; location /foo/ { proxy_pass http://127.0.0.1:%d; }`, absolute, onOff[form.port], port))
		p := startProxy(t, site{name: "web", host: "web.example", path: "/foo/", ports: []int{port},
			annotations: map[string]string{"relative-redirects": form.relative, "use-port-in-redirects": form.port}}.yaml())
		for _, host := range []string{"web.example", "web.example:1234", "WEB.example", "web.example."} {
			for _, path := range []string{"/foo", "/foo?a=b"} {
				a, b := ask(t, p.HTTP, nil, host, path), ask(t, theirs, nil, host, path)
				one := strings.ReplaceAll(a.header.Get("Location"), colonPort(p.HTTP), ":PORT")
				two := strings.ReplaceAll(b.header.Get("Location"), colonPort(theirs), ":PORT")
				if a.status != b.status || one != two {
					t.Errorf("%+v, %s%s: %d %q, nginx %d %q", form, host, path, a.status, one, b.status, two)
				}
			}
		}
	}
}

// TestUsePortInRedirects: the redirect to https names the port of --https-port.
func TestUsePortInRedirects(t *testing.T) {
	p := startProxy(t, configMapOf("use-port-in-redirects", "true", "force-ssl-redirect", "true")+
		site{name: "web", host: "web.example", ports: []int{application(t, told)}}.yaml(), configMapFlag)
	a := ask(t, p.HTTP, nil, "web.example:1234", "/a")
	if want := "https://web.example" + colonPort(p.HTTPS) + "/a"; a.status != 308 || a.header.Get("Location") != want {
		t.Errorf("%d %q, want %q", a.status, a.header.Get("Location"), want)
	}
}

// TestOracleLogFormat compares lines of log-format-upstream with those that nginx writes of the same log_format.
func TestOracleLogFormat(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "it is I") })
	const line = `$remote_addr|$remote_user|$request|$request_method|$request_uri|$uri|$args|$arg_a|$status|$host|$http_host|$scheme|$server_protocol|` +
		`"$http_referer"|$http_user_agent|$http_x_odd|$cookie_sid|$content_length|$content_type|$request_length|$body_bytes_sent|` +
		`$upstream_addr|$upstream_status|$upstream_response_length|$sent_http_content_type|$https|${http_x_forwarded_for}`
	for _, escape := range []string{"default", "json", "none"} {
		other := freePort(t)
		logFile := filepath.Join(t.TempDir(), "access.log")
		nginx(t, fmt.Sprintf(`location / { return 404; } }
 log_format t escape=%s '%s'; server { listen 127.0.0.1:%d; server_name web.example; access_log %s t; location / { proxy_http_version 1.1; proxy_pass http://127.0.0.1:%d; }`,
			escape, line, other, logFile, port))
		p := startProxy(t, configMapOf("log-format-upstream", line, "log-format-escape-json", fmt.Sprint(escape == "json"), "log-format-escape-none", fmt.Sprint(escape == "none"))+
			site{name: "web", host: "web.example", ports: []int{port}}.yaml(), configMapFlag)
		theirs := fmt.Sprintf("127.0.0.1:%d", other)
		lines := func(text string) []string { return slices.Collect(strings.Lines(text)) }
		var one, two []string
		asked := 0
		for _, r := range [][]string{{"/"}, {"/a%20b/%2F?a=1&b=2", "Referer: http://x.example/\"q\"", "User-Agent: a\\b", "X-Odd: \"caf\u00e9\"", "Cookie: x=1; sid=abc"},
			{"/none", "X-Forwarded-For: 1.2.3.4", "Content-Type: text/x"}} {
			asked++
			ask(t, p.HTTP, nil, "web.example", r[0], r[1:]...)
			ask(t, theirs, nil, "web.example", r[0], r[1:]...)
			within(t, 30*time.Second, "a line of both", func() bool { // each loop has lines of its own: one after the other
				b, _ := os.ReadFile(logFile)
				one, two = lines(p.Log.String()), lines(string(b))
				return len(one) == asked && len(two) == asked
			})
		}
		names := strings.Split(line, "|")
		for i := range one {
			ours, nginxs := strings.Split(one[i], "|"), strings.Split(two[i], "|")
			if len(ours) != len(names) || len(nginxs) != len(names) {
				t.Fatalf("%s: %q, nginx %q", escape, one[i], two[i])
			}
			for k := range names {
				if ours[k] != nginxs[k] {
					t.Errorf("escape %s, request %d: %s is %q, nginx says %q", escape, i, names[k], ours[k], nginxs[k])
				}
			}
		}
	}
}

// TestSkipAccessLog: what the ConfigMap leaves out of the log is left out, and nothing else.
func TestSkipAccessLog(t *testing.T) {
	p := startProxy(t, configMapOf("skip-access-log-urls", "/healthz,~^/quiet/", "enable-access-log-for-default-backend", "false", "log-format-upstream", "$request_uri $status")+
		site{name: "web", host: "web.example", ports: []int{application(t, told)}}.yaml(), configMapFlag)
	for _, path := range []string{"/healthz", "/quiet/a", "/healthz?a", "/a/quiet/"} {
		ask(t, p.HTTP, nil, "web.example", path)
	}
	ask(t, p.HTTP, nil, "other.example", "/nobody")
	ask(t, p.HTTP, nil, "web.example", "/last")
	const want = "/a/quiet/ 200\n/healthz?a 200\n/last 200\n"
	within(t, 30*time.Second, "the lines", func() bool { return strings.Count(p.Log.String(), "\n") >= strings.Count(want, "\n") })
	if got := slices.Sorted(strings.Lines(p.Log.String())); strings.Join(got, "") != want { // loops write one after the other
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestWordBlocklist: an Ingress with one of the words in an annotation serves nothing, and those beside it go on.
func TestWordBlocklist(t *testing.T) {
	port := application(t, told)
	realm := func(name, value string) string {
		return site{name: name, host: name + ".example", ports: []int{port}, annotations: map[string]string{"auth-realm": value}}.yaml()
	}
	p := startProxy(t, configMapOf("annotation-value-word-blocklist", "load_module,lua_package")+realm("bad", "x; lua_package")+realm("good", "lua"), configMapFlag)
	ask(t, p.HTTP, nil, "bad.example", "/").want(t, 404, "")
	if a := ask(t, p.HTTP, nil, "good.example", "/"); a.status != 200 {
		t.Errorf("an Ingress without the words: %d", a.status)
	}
}

// TestTLSKeys has ssl-ciphers, ssl-session-tickets and ssl-reject-handshake before real clients.
func TestTLSKeys(t *testing.T) {
	web := site{name: "web", host: "web.example", secret: "pair", ports: []int{application(t, told)}}.yaml()
	pair := secretOf(t, "pair", issue(t, "web.example"))
	const suite = tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	p := startProxy(t, configMapOf("ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256", "ssl-session-tickets", "false",
		"ssl-reject-handshake", "true")+pair+web, configMapFlag)
	usual := startProxy(t, pair+web)
	shake := func(address, name string, change func(*tls.Config)) (tls.ConnectionState, error) {
		return shakeHands(t, address, name, "web.example", change)
	}
	old := func(suites ...uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, suites }
	}
	if s, err := shake(p.HTTPS, "web.example", old()); err != nil || s.CipherSuite != suite {
		t.Errorf("%s, %v", tls.CipherSuiteName(s.CipherSuite), err)
	}
	other := old(tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
	if _, err := shake(p.HTTPS, "web.example", other); err == nil {
		t.Error("a suite that is not in the list is taken")
	}
	if _, err := shake(usual.HTTPS, "web.example", other); err != nil {
		t.Errorf("without the key: %v", err)
	}
	if _, err := shake(p.HTTPS, "web.example", nil); err != nil {
		t.Errorf("TLS 1.3: %v", err)
	}
	for _, name := range []string{"other.example", ""} {
		blind := func(c *tls.Config) { c.InsecureSkipVerify = true }
		if _, err := shake(p.HTTPS, name, blind); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v, want alert 112", name, err)
		}
		if _, err := shake(usual.HTTPS, name, blind); err != nil {
			t.Errorf("%q without the key: %v", name, err)
		}
	}
	for _, c := range []struct {
		address string
		want    bool
	}{{usual.HTTPS, true}, {p.HTTPS, false}} {
		cache := tls.NewLRUClientSessionCache(4)
		remember := func(c *tls.Config) { c.ClientSessionCache = cache }
		_, _ = shake(c.address, "web.example", remember)
		if s, err := shake(c.address, "web.example", remember); err != nil || s.DidResume != c.want {
			t.Errorf("resumed is %v, %v; want %v", s.DidResume, err, c.want)
		}
	}
}

// shakeHands asks for / of a host over a connection of its own with a server name, and gives the connection's state.
func shakeHands(t *testing.T, address, name, host string, change func(*tls.Config)) (tls.ConnectionState, error) {
	t.Helper()
	c := trusting(t, host)
	if c.ServerName = name; change != nil {
		change(c)
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", address, c)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	fmt.Fprint(conn, request(host, "/")) // what is answered brings the tickets of TLS 1.3
	if _, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil {
		return tls.ConnectionState{}, err
	}
	return conn.ConnectionState(), nil
}

// TestCiphersOfHosts: ssl-ciphers of an Ingress holds for its hosts, as of the next handshake, and for no others; TLS 1.3 and
// the sessions of clients are as before.
func TestCiphersOfHosts(t *testing.T) {
	port := application(t, told)
	pair := secretOf(t, "pair", issue(t, "strict.example", "usual.example"))
	const all, one = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	sites := func(list string) string {
		strict := site{name: "strict", host: "strict.example", secret: "pair", ports: []int{port}, annotations: map[string]string{}}
		if list != "" {
			strict.annotations["ssl-ciphers"] = list
		}
		return pair + strict.yaml() + site{name: "usual", host: "usual.example", secret: "pair", ports: []int{port}}.yaml()
	}
	p := startProxy(t, sites("ECDHE-ECDSA-AES256-GCM-SHA384:AES256-SHA"))
	cache := tls.NewLRUClientSessionCache(4)
	with := func(suite uint16) func(*tls.Config) {
		return func(c *tls.Config) { c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{suite} }
	}
	for _, c := range []struct {
		host  string
		suite uint16
		taken bool
	}{{"strict.example", one, true}, {"strict.example", all, false}, {"usual.example", one, true}, {"usual.example", all, true}} {
		s, err := shakeHands(t, p.HTTPS, c.host, c.host, with(c.suite))
		if taken := err == nil && s.CipherSuite == c.suite; taken != c.taken {
			t.Errorf("%s with %s: %v, want taken %v", c.host, tls.CipherSuiteName(c.suite), err, c.taken)
		}
	}
	for resumed := range 2 {
		s, err := shakeHands(t, p.HTTPS, "strict.example", "strict.example", func(c *tls.Config) { c.ClientSessionCache = cache })
		if err != nil || s.Version != tls.VersionTLS13 || s.DidResume != (resumed == 1) {
			t.Errorf("TLS 1.3, time %d: version %x, resumed %v, %v", resumed, s.Version, s.DidResume, err)
		}
	}
	if text := p.problems(t); !strings.Contains(text, "AES256-SHA is not supported") {
		t.Errorf("of a suite that is not spoken it is told %s", text)
	}
	p.write("all.yaml", sites(""))
	within(t, 30*time.Second, "the list is gone", func() bool {
		_, err := shakeHands(t, p.HTTPS, "strict.example", "strict.example", with(all))
		return err == nil
	})
}

// TestTicketKey: proxies with the same ssl-session-ticket-key resume each other's sessions; another key ends them.
func TestTicketKey(t *testing.T) {
	web := site{name: "web", host: "web.example", secret: "pair", ports: []int{application(t, told)}}.yaml() + secretOf(t, "pair", issue(t, "web.example"))
	key := func(c string) string {
		return configMapOf("ssl-session-ticket-key", base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 80))))
	}
	one, two := startProxy(t, web+key("a"), configMapFlag), startProxy(t, web+key("a"), configMapFlag)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		remember := func(cache tls.ClientSessionCache) func(*tls.Config) {
			return func(c *tls.Config) { c.ClientSessionCache, c.MinVersion, c.MaxVersion = cache, version, version }
		}
		cache := tls.NewLRUClientSessionCache(4)
		resumed := func(p *testProxy, cache tls.ClientSessionCache) bool {
			s, err := shakeHands(t, p.HTTPS, "web.example", "web.example", remember(cache))
			if err != nil {
				t.Fatal(err)
			}
			return s.DidResume
		}
		if resumed(one, cache) || !resumed(two, cache) {
			t.Errorf("%s: the other proxy does not resume the session", tls.VersionName(version))
		}
		two.write("all.yaml", web+key("b"))
		within(t, 30*time.Second, "the key has changed", func() bool { // a session of the first's each time
			fresh := tls.NewLRUClientSessionCache(4)
			return !resumed(one, fresh) && !resumed(two, fresh)
		})
		two.write("all.yaml", web+key("a"))
		within(t, 30*time.Second, "the first key is back", func() bool {
			fresh := tls.NewLRUClientSessionCache(4)
			return !resumed(one, fresh) && resumed(two, fresh)
		})
	}
}

// TestCurves: ssl-ecdh-curve says which key exchanges there are.
func TestCurves(t *testing.T) {
	web := site{name: "web", host: "web.example", secret: "pair", ports: []int{application(t, told)}}.yaml() + secretOf(t, "pair", issue(t, "web.example"))
	usual, strict := startProxy(t, web), startProxy(t, web+configMapOf("ssl-ecdh-curve", "prime256v1"), configMapFlag)
	for _, c := range []struct {
		p    *testProxy
		want tls.CurveID
	}{{usual, tls.X25519MLKEM768}, {strict, tls.CurveP256}} {
		if s, err := shakeHands(t, c.p.HTTPS, "web.example", "web.example", nil); err != nil || s.CurveID != c.want {
			t.Errorf("%s, %v; want %s", s.CurveID, err, c.want)
		}
	}
	if _, err := shakeHands(t, strict.HTTPS, "web.example", "web.example", func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} }); err == nil {
		t.Error("a curve that is not in the list is taken")
	}
}

// TestDisableIPv6: the ports are IPv4's alone.
func TestDisableIPv6(t *testing.T) {
	dir := t.TempDir()
	for _, off := range []string{"false", "true"} {
		if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(configMapOf("disable-ipv6", off)), 0o600); err != nil {
			t.Fatal(err)
		}
		port := freePort(t)
		p := startChild(t, "--manifests="+dir, configMapFlag, fmt.Sprint("--http-port=", port), "--https-port=0", "--admin-address=")
		p.logged("msg=serving")
		ask(t, fmt.Sprint("127.0.0.1:", port), nil, "web.example", "/").want(t, 404, "")
		c, err := net.DialTimeout("tcp", fmt.Sprintf("[::1]:%d", port), 30*time.Second)
		switch {
		case off == "false" && err != nil:
			t.Skip("no IPv6 on this machine: ", err)
		case off == "true" && err == nil:
			t.Error("IPv6 is taken although it is off")
		}
		if err == nil {
			c.Close()
		}
	}
}

// colonPort is the port of an address, with its colon.
func colonPort(address string) string { return address[strings.LastIndexByte(address, ':'):] }
