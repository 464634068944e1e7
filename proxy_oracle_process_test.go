package main

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An oracleLog says in nginx's words and in the dialect's what is logged.
type oracleLog struct {
	http        string // of nginx's http block
	logged      string // behind access_log's file and format; "": all
	location    string // … of the location
	byDefault   string // of the server that answers for other hosts
	annotations map[string]string
	keys        map[string]string
	off         bool // the keys switch the log off, also the witness's
}

// oracleLogs are the rows of TestOracleLogs.
var oracleLogs = map[string]oracleLog{
	"enable-access-log":       {location: "access_log off;", annotations: said("enable-access-log", "false")},
	"disable-access-log":      {location: "access_log off;", byDefault: "access_log off;", keys: said("disable-access-log", "true"), off: true},
	"disable-http-access-log": {location: "access_log off;", byDefault: "access_log off;", keys: said("disable-http-access-log", "true"), off: true},
	"skip-access-log-urls": {http: `map $request_uri $loud { default 1; /healthz 0; ~^/quiet/ 0; ~*secret 0; }`, logged: "if=$loud",
		keys: said("skip-access-log-urls", "/healthz,~^/quiet/,~*secret")},
	"enable-access-log-for-default-backend":       {keys: said("enable-access-log-for-default-backend", "true")},
	"enable-access-log-for-default-backend false": {byDefault: "access_log off;", keys: said("enable-access-log-for-default-backend", "false")},
	"http-access-log-path":                        {keys: said("http-access-log-path", "FILE", "access-log-path", "OTHERFILE")},
	"access-log-path":                             {},
}

// TestOracleLogs compares which requests are logged, in the file that the keys name.
func TestOracleLogs(t *testing.T) {
	port, dir := application(t, told), t.TempDir()
	theirs, servers := map[string]int{}, "log_format plain '$host $request_uri $status';"
	for name, row := range oracleLogs {
		theirs[name] = freePort(t)
		server := func(host, logged, location string) string {
			return fmt.Sprintf("server { listen 127.0.0.1:%d %s; access_log %s/%d plain %s; location / { %s } }\n", theirs[name], host, dir, theirs[name], logged, location)
		}
		pass := fmt.Sprintf("proxy_pass http://127.0.0.1:%d;", port)
		servers += row.http + server("; server_name web.example", row.logged, row.location+pass) + server("; server_name witness.example", "", pass) + server("default_server", row.logged, row.byDefault+"return 404;")
	}
	nginx(t, "return 404;", "http", servers)
	for name, row := range oracleLogs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "ours")
			sites := site{name: "web", host: "web.example", ports: []int{port}, annotations: row.annotations}.yaml() + site{name: "witness", host: "witness.example", ports: []int{port}}.yaml()
			keys := func(more map[string]string) string {
				list := []string{"log-format-upstream", "$host $request_uri $status"}
				all := said("access-log-path", "FILE")
				maps.Copy(all, more)
				for k, v := range all {
					list = append(list, k, strings.NewReplacer("OTHERFILE", file+".other", "FILE", file).Replace(v))
				}
				return configMapOf(list...)
			}
			p := startProxy(t, sites+keys(row.keys), configMapFlag)
			ours := linesBeforeWitness(t, p.HTTP, file, func() {
				if row.off {
					p.write("all.yaml", sites+keys(nil))
				}
			})
			nginxs := linesBeforeWitness(t, fmt.Sprint("127.0.0.1:", theirs[name]), filepath.Join(dir, strconv.Itoa(theirs[name])), func() {})
			if ours != nginxs || p.Log.String() != "" {
				t.Errorf("logged:\n%snginx:\n%sstandard output:\n%s", ours, nginxs, p.Log.String())
			}
		})
	}
}

// linesBeforeWitness sends requests and then, after change, another host's until that one is in the file: all on one
// connection, whose loop writes its lines in their order. It answers the lines before the witness's.
func linesBeforeWitness(t *testing.T, address, file string, change func()) (lines string) {
	t.Helper()
	c := &caller{address: address}
	defer c.hangUp()
	call := func(host, path string) {
		if _, err := c.call(request(host, path)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/", "/healthz", "/healthz?a", "/quiet/a?b=c", "/a/quiet/", "/a%20b?SECRET", "/HEALTHZ"} {
		call("web.example", path)
	}
	call("nobody.example", "/nobody")
	change()
	within(t, 30*time.Second, "the witness is logged", func() bool {
		call("witness.example", "/the-witness")
		b, _ := os.ReadFile(file)
		before, _, found := strings.Cut(string(b), "witness.example")
		lines = before
		return found
	})
	return lines
}

// streamLogs compares the lines about connections of a TCP service; off: there are none.
func streamLogs(t *testing.T, access string, off bool, keys ...string) {
	one, dir := named(t, "one"), t.TempDir()
	both := [2]string{filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")}
	ours := freePort(t)
	theirs := nginxStream(t, fmt.Sprintf("access_log %s; proxy_pass 127.0.0.1:%d;", strings.ReplaceAll(access, "FILE", both[1]), one.port()), "log_format plain '[$remote_addr] [-] $protocol $status';")
	p := startProxy(t, serviceOf("one", one.port())+portMap("tcp", strconv.Itoa(ours), "default/one:80")+configMapOf(append(keys, "stream-access-log-path", both[0])...), tcpFlag, configMapFlag)
	before, _ := os.ReadFile(both[1]) // of who asked whether nginx listens
	for i, port := range []int{ours, theirs} {
		for range 3 {
			if name := greets(t, port); name != "one" {
				t.Fatalf("port %d: %q", port, name)
			}
		}
		if off {
			continue
		}
		within(t, 30*time.Second, "three lines", func() bool {
			b, _ := os.ReadFile(both[i])
			return strings.Count(string(b), "TCP 200") >= 3+i*strings.Count(string(before), "TCP 200")
		})
	}
	if off {
		p.write("all.yaml", serviceOf("one", one.port())+portMap("tcp", strconv.Itoa(ours), "default/one:80")+configMapOf("stream-access-log-path", both[0]))
		asked := 0
		within(t, 30*time.Second, "a line after the edit", func() bool {
			_ = greets(t, ours)
			asked++
			b, _ := os.ReadFile(both[0])
			return strings.Contains(string(b), "TCP 200")
		})
		if b, _ := os.ReadFile(both[0]); strings.Count(string(b), "TCP 200") > asked {
			t.Errorf("connections from before the edit are logged: %s", b)
		}
		if b, err := os.ReadFile(both[1]); len(b) > 0 {
			t.Errorf("nginx: %s, %v", b, err)
		}
	}
}

// oracleProcesses are the rows of TestOracleProcess.
var oracleProcesses = map[string]func(t *testing.T){
	"bind-address":                 bindAddresses,
	"disable-ipv6":                 familiesOf,
	"worker-shutdown-timeout":      func(t *testing.T) { shutDown(t, "1s", false) },
	"worker-shutdown-timeout long": func(t *testing.T) { shutDown(t, "60s", true) },
	"ssl-session-ticket-key":       ticketKeys,
	"--default-ssl-certificate":    fallbackCertificate,
}

// TestOracleProcess compares what is not of one request: addresses, ends and keys.
func TestOracleProcess(t *testing.T) {
	for name, run := range oracleProcesses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}

// nginxProcess is nginx with a master, as services have it.
func nginxProcess(t *testing.T, main, http string, listens string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: on Debian apt-get install nginx-light")
	}
	dir := t.TempDir()
	text := fmt.Sprintf("daemon off; user root; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log; %[2]s\nevents {}\nhttp { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; "+
		"fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s; %[3]s }\n", dir, main, http)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, "-e", filepath.Join(dir, "error.log"), "-c", file, "-p", dir)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // on that only, nginx's master takes its workers along
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGTERM); _ = c.Wait() })
	within(t, callTimeout, "nginx listens", func() bool { return reachable(listens) })
	return c
}

// reachable tells whether somebody listens at an address.
func reachable(address string) bool {
	c, err := net.DialTimeout("tcp", address, 30*time.Second)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

// childWith is this program with keys of the ConfigMap and its HTTP port, at all addresses unless a key says otherwise.
func childWith(t *testing.T, keys ...string) (port int) {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	if err := os.WriteFile(filepath.Join(dir, "all.yaml"), []byte(configMapOf(keys...)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startChild(t, "--manifests="+dir, configMapFlag, fmt.Sprint("--http-port=", port), "--https-port=0", "--admin-address=")
	p.logged("msg=serving")
	return port
}

func bindAddresses(t *testing.T) {
	ours, theirs := childWith(t, "bind-address", "127.0.0.2"), freePort(t)
	nginxProcess(t, "", fmt.Sprintf("server { listen 127.0.0.2:%d; return 404; }", theirs), fmt.Sprint("127.0.0.2:", theirs))
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3"} {
		at := func(port int) bool { return reachable(net.JoinHostPort(host, strconv.Itoa(port))) }
		if one, two := at(ours), at(theirs); one != two || two != (host == "127.0.0.2") {
			t.Errorf("%s is reached: %v, with nginx %v", host, one, two)
		}
	}
}

func familiesOf(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine: ", err)
	}
	_ = ln.Close()
	for value, listen := range map[string]string{"false": "listen %[1]d; listen [::]:%[1]d;", "true": "listen %d;"} {
		ours, theirs := childWith(t, "disable-ipv6", value), freePort(t)
		nginxProcess(t, "", "server { "+fmt.Sprintf(listen, theirs)+" return 404; }", fmt.Sprint("127.0.0.1:", theirs))
		for _, host := range []string{"127.0.0.1", "::1"} {
			at := func(port int) bool { return reachable(net.JoinHostPort(host, strconv.Itoa(port))) }
			if one, two := at(ours), at(theirs); one != two {
				t.Errorf("disable-ipv6 %s: %s is reached: %v, with nginx %v", value, host, one, two)
			}
		}
	}
}

// shutDown ends both while a request is held: it is answered if its backend answers in time, and else cut, not before the
// limit and not without an end.
func shutDown(t *testing.T, limit string, answered bool) {
	port, arrived, answer := slowBackend(t)
	ours := startServing(t, port, "--configmap=default/sluice")
	if err := os.WriteFile(filepath.Join(ours.dir, "settings.yaml"), []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sluice}\ndata: {worker-shutdown-timeout: "+limit+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ours.logged(`msg="problem has gone" object="ConfigMap default/sluice"`)
	theirs := freePort(t)
	at := fmt.Sprint("127.0.0.1:", theirs)
	master := nginxProcess(t, "worker_shutdown_timeout "+limit+";", fmt.Sprintf("server { listen 127.0.0.1:%d; location / { proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_pass http://127.0.0.1:%d; } }", theirs, port), at)
	reads := map[string]func() string{"sluice": askSlow(t, ours.http), "nginx": askSlow(t, at)}
	<-arrived
	<-arrived
	began := time.Now()
	ours.signal(syscall.SIGTERM)
	if err := master.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	if answered {
		ours.logged("msg=\"draining")
		within(t, 30*time.Second, "nginx does not listen any more", func() bool { return !reachable(at) })
		answer()
	}
	for name, read := range reads {
		got, took := read(), time.Since(began)
		if answered && !strings.HasPrefix(got, "200 done") || !answered && (strings.HasPrefix(got, "200") || took < 900*time.Millisecond) {
			t.Errorf("%s: %s after %v", name, got, took)
		}
	}
}

// ticketKeys: servers with one key resume each other's sessions, and those of another key do not.
func ticketKeys(t *testing.T) {
	pair := issue(t, "web.example")
	certificate, private, err := pair.pem()
	if err != nil {
		t.Fatal(err)
	}
	web := site{name: "web", host: "web.example", secret: "pair", ports: []int{application(t, told)}}.yaml() + secretOf(t, "pair", pair)
	servers, both := "", map[string][]string{}
	for _, c := range []string{"a", "a", "b"} {
		p := startProxy(t, web+configMapOf("ssl-session-ticket-key", base64.StdEncoding.EncodeToString([]byte(strings.Repeat(c, 80)))), configMapFlag)
		at := fmt.Sprint("127.0.0.1:", freePort(t))
		servers += fmt.Sprintf("server { listen %s ssl; server_name web.example; ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate @pair; ssl_certificate_key @key; ssl_session_ticket_key @tickets-%s; return 200; }\n", at, c)
		both["sluice"], both["nginx"] = append(both["sluice"], p.HTTPS), append(both["nginx"], at)
	}
	nginx(t, "return 404;", "http", servers, "pair", certificate, "key", private, "tickets-a", strings.Repeat("a", 80), "tickets-b", strings.Repeat("b", 80))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, list := range both {
			cache, got := tls.NewLRUClientSessionCache(4), ""
			for _, at := range list {
				s, err := shakeHands(t, at, "web.example", "web.example", func(c *tls.Config) { c.ClientSessionCache, c.MinVersion, c.MaxVersion = cache, version, version })
				if err != nil {
					t.Fatal(name, err)
				}
				got += fmt.Sprint(s.DidResume, " ")
			}
			if got != "false true false " {
				t.Errorf("%s, %s: resumed: %s", name, tls.VersionName(version), got)
			}
		}
	}
}

// fallbackCertificate compares which certificate is shown for which name.
func fallbackCertificate(t *testing.T) {
	pairs, servers, files := map[string]*keyPair{"pair": issue(t, "web.example"), "fallback": issue(t, "fallback.example")}, "", []string{}
	theirs := fmt.Sprint("127.0.0.1:", freePort(t))
	manifests := site{name: "web", host: "web.example", secret: "pair", ports: []int{application(t, told)}}.yaml()
	for name, server := range map[string]string{"pair": "; server_name web.example", "fallback": "default_server; server_name _"} {
		certificate, private, err := pairs[name].pem()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, name, certificate, "key-of-"+name, private)
		servers += fmt.Sprintf("server { listen %s ssl %s; ssl_certificate @%s; ssl_certificate_key @key-of-%s; return 404; }\n", theirs, server, name, name)
		manifests += secretOf(t, name, pairs[name])
	}
	nginx(t, "return 404;", append([]string{"http", servers}, files...)...)
	p := startProxy(t, manifests, "--default-ssl-certificate=default/fallback")
	for _, name := range []string{"web.example", "WEB.example", "other.example", "x.web.example", ""} {
		shown := func(address string) string {
			conn, err := tls.Dial("tcp", address, &tls.Config{ServerName: name, InsecureSkipVerify: true})
			if err != nil {
				return err.Error()
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
		}
		if one, two := shown(p.HTTPS), shown(theirs); one != two {
			t.Errorf("%q: the certificate of %s, by nginx of %s", name, one, two)
		}
	}
}
