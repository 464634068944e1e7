package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// What rows of proxy_oracle_rows_test.go check beside single requests.

var sprintf = fmt.Sprintf

// sameShapeOfID: an id that nobody has given has the same form.
func sameShapeOfID(t *testing.T, w *oracleWorld) {
	for _, address := range []string{w.ours, w.theirs} {
		if id := line(w.send(t, address, []string{"/"}).body, "X-Request-Id:"); !regexp.MustCompile("^X-Request-Id: [0-9a-f]{32}$").MatchString(id) {
			t.Errorf("%s: %q", address, id)
		}
	}
}

// row marks the requests of one row to one address.
func (w *oracleWorld) mark(address string) string { return w.host + "/" + address }

// lastAsked is what the authentication service was asked for a request with a body.
func lastAsked(t *testing.T, w *oracleWorld, address string) string {
	w.send(t, address, []string{"POST /x?a=b", "X-Want: 200", bodyOf + "hello", "X-Row: " + w.mark(address)})
	s := w.ports.service
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.asked {
		if r.Header.Get("X-Row") == w.mark(address) {
			return fmt.Sprintln(r.Method, r.RequestURI, r.ContentLength, r.Header["X-Auth-Request-Redirect"], r.Header["X-Team"])
		}
	}
	return ""
}

// cookieOf tells with which statuses the service's cookies come.
func cookieOf(t *testing.T, w *oracleWorld, address string) (all string) {
	for _, path := range []string{"/", "/201", "/206", "/301", "/304", "/400", "/404", "/500"} {
		a := w.send(t, address, []string{path, "X-Want: 200"})
		all += fmt.Sprintln(path, a.status, strings.HasPrefix(a.header.Get("Set-Cookie"), "auth=1"))
	}
	return all
}

// askedOnce tells how often a service was asked about equal requests, one after the other on a connection: each loop has a
// cache of its own.
func askedOnce(t *testing.T, w *oracleWorld, address string) (all string) {
	c := w.caller(address)
	defer c.hangUp()
	for i, status := range []string{"200", "401", "403", "202"} {
		mark := fmt.Sprint(w.mark(address), i)
		for range 3 {
			a, err := c.call(w.text([]string{"/", "X-Kept: " + status, "Authorization: " + status, "X-Row: " + mark}))
			if err != nil {
				t.Fatal(err)
			}
			all += fmt.Sprint(a.status, " ")
		}
		all += fmt.Sprintln(status, w.ports.count(mark, "other"))
	}
	return all
}

// leaks: 1 + 5 requests pass at once, and as many more as seconds go by.
func leaks(t *testing.T, w *oracleWorld) {
	for _, address := range []string{w.ours, w.theirs} {
		began := time.Now()
		passed := 0
		for range 20 {
			if a := w.send(t, address, []string{"/"}); a.status == 200 {
				passed++
			} else if a.status != 503 {
				t.Errorf("%s: %d", address, a.status)
			}
		}
		if most := 7 + int(time.Since(began)/time.Second); passed < 6 || passed > most {
			t.Errorf("%s: %d pass, want 6 to %d", address, passed, most)
		}
	}
}

// heldOne is the status of a request while another one is held.
func heldOne(t *testing.T, w *oracleWorld, address string) string {
	c := w.caller(address)
	defer c.hangUp()
	if err := c.dial(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, w.text([]string{"/hold", "X-Row: " + w.mark(address)})); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, "a request is held", func() bool { return w.ports.count(w.mark(address), "good") == 1 })
	return fmt.Sprint(w.send(t, address, []string{"/"}).status)
}

// slowly: 400 KiB, of which 200 are free and 100 a second follow, do not come at once.
func slowly(t *testing.T, w *oracleWorld) {
	for _, address := range []string{w.ours, w.theirs} {
		began := time.Now()
		a := w.send(t, address, []string{"/?X-Bytes=409600"})
		if took := time.Since(began); a.status != 200 || len(a.body) < 400<<10 || took < 500*time.Millisecond {
			t.Errorf("%s: %d, %d bytes in %v", address, a.status, len(a.body), took)
		}
	}
}

// inTurn sends requests one after the other on one connection, which one loop leads, and tells what show makes of the answers.
func inTurn(n int, q []string, show func(a *answer) string) func(*testing.T, *oracleWorld) {
	return agree(func(t *testing.T, w *oracleWorld, address string) (all string) {
		c := w.caller(address)
		defer c.hangUp()
		for range n {
			a, err := c.call(w.text(append(q, "X-Row: "+w.mark(address))))
			if err != nil {
				t.Fatal(err)
			}
			all += show(a) + "\n"
		}
		return fmt.Sprintln(all, w.ports.count(w.mark(address), "fail"))
	})
}

// tally is how often each status and name came, in whatever order.
func tally(n int, q ...string) func(*testing.T, *oracleWorld) {
	return agree(func(t *testing.T, w *oracleWorld, address string) string {
		c := w.caller(address)
		defer c.hangUp()
		got := map[string]int{}
		for range n {
			a, err := c.call(w.text(append(q, "X-Row: "+w.mark(address))))
			if err != nil {
				t.Fatal(err)
			}
			got[fmt.Sprint(a.status, line(a.body, "name:"))]++
		}
		return fmt.Sprint(got)
	})
}

// avoidsTheBusy tells how many endpoints answer while one of two has a request that does not end.
func avoidsTheBusy(t *testing.T, w *oracleWorld, address string) string {
	c := w.caller(address)
	defer c.hangUp()
	if err := c.dial(); err != nil {
		t.Fatal(err)
	}
	mark := w.mark(address)
	if _, err := io.WriteString(c.conn, w.text([]string{"/hold", "X-Row: " + mark})); err != nil {
		t.Fatal(err)
	}
	within(t, 30*time.Second, "a request is held", func() bool { return w.ports.count(mark, "good")+w.ports.count(mark, "other") == 1 })
	idle := "name: good"
	if w.ports.count(mark, "good") == 1 {
		idle = "name: other"
	}
	names := map[bool]int{}
	for range 8 {
		names[line(w.send(t, address, []string{"/"}).body, "name:") == idle]++
	}
	return fmt.Sprint(names)
}

// ofKeys tells whether requests with one key go to one endpoint, and to how many those with 40 keys go. Which one it is differs:
// ingress-nginx's ring calls endpoints otherwise than nginx's (upstream.TestRingIsNginx).
func ofKeys(request func(key string) []string) func(*testing.T, *oracleWorld, string) string {
	return func(t *testing.T, w *oracleWorld, address string) string {
		names, moved := map[string]bool{}, false
		for i := range 40 {
			first := ""
			for range 2 {
				name := line(w.send(t, address, request(fmt.Sprint("key", i))).body, "name:")
				moved = moved || first != "" && name != first
				first, names[name] = name, true
			}
		}
		return fmt.Sprintf("%d endpoints, moved: %v", len(names), moved)
	}
}

// resolvedPaths: both route a path as it is without dot segments. Backends get it so, from nginx as the client wrote it.
func resolvedPaths(t *testing.T, w *oracleWorld) {
	for path, resolved := range map[string]string{"/private/a/../b?c=/../d": "/private/b?c=/../d", "/x/../private/./b": "/private/b", "/private/%2e%2e/private": "/private", "/private/b": "/private/b", "/private//b": "/private//b"} {
		ours, theirs := line(w.send(t, w.ours, []string{path}).body, "GET"), line(w.send(t, w.theirs, []string{path}).body, "GET")
		if ours != "GET "+resolved || theirs != "GET "+path {
			t.Errorf("%s: the backend was told %q, by nginx %q", path, ours, theirs)
		}
	}
}

// serverNames are what either calls itself in an answer of its own. ingress-nginx has a module clear the field where the key is off.
func serverNames(ours, theirs string) func(*testing.T, *oracleWorld) {
	return func(t *testing.T, w *oracleWorld) {
		for address, want := range map[string]string{w.ours: ours, w.theirs: theirs} {
			if got := w.send(t, address, []string{"/"}).header.Get("Server"); got != want {
				t.Errorf("%s: %q, want %q", address, got, want)
			}
		}
	}
}

// arrivesWhole is what the backend heard of bodies larger than what is held in memory.
func arrivesWhole(t *testing.T, w *oracleWorld, address string) (heard string) {
	for _, size := range []int{10, 1024, 1025, 500_000} {
		a := w.send(t, address, []string{"POST /", bodyOf + long(size), "X-Row: " + w.mark(address)})
		w.ports.mu.Lock()
		heard += fmt.Sprintln(a.status, w.ports.heard[w.mark(address)+" good"])
		w.ports.mu.Unlock()
	}
	return heard
}

// largerHead: an answer's head beyond proxy-buffer-size is nginx's 502; here every head may have 64 KiB.
func largerHead(t *testing.T, w *oracleWorld) {
	q := []string{"/?X-A=" + long(2000)}
	if ours, theirs := w.send(t, w.ours, q).status, w.send(t, w.theirs, q).status; ours != 200 || theirs != 502 {
		t.Errorf("%d, nginx %d; want 200 and 502", ours, theirs)
	}
}

// connections tells on how many connections a backend got requests that came on one.
func connections(t *testing.T, w *oracleWorld, address string) string {
	c := w.caller(address)
	defer c.hangUp()
	peers := map[string]bool{}
	for range 6 {
		a, err := c.call(w.text([]string{"/"}))
		if err != nil {
			t.Fatal(err)
		}
		peers[line(a.body, "peer:")] = true
	}
	return fmt.Sprint(len(peers))
}

// renewed: a backend's connection gives way to another one, and not before a second has passed since it began.
func renewed(pause time.Duration) func(*testing.T, *oracleWorld) {
	return func(t *testing.T, w *oracleWorld) {
		for _, address := range []string{w.ours, w.theirs} {
			c := w.caller(address)
			first, began, wait := "", time.Now(), pause
			within(t, 30*time.Second, "another connection to the backend", func() bool {
				a, err := c.call(w.text([]string{"/"}))
				if err != nil {
					t.Fatal(err)
				}
				peer := line(a.body, "peer:")
				if first == "" {
					first = peer
				}
				if peer == first {
					time.Sleep(wait)
					if pause >= time.Second {
						wait *= 2
					}
				}
				return peer != first
			})
			if took := time.Since(began); took < time.Second {
				t.Errorf("%s: another connection after %v", address, took)
			}
			c.hangUp()
		}
	}
}

// copied is what the mirror heard of a request.
func copied(t *testing.T, w *oracleWorld, address string) (heard string) {
	w.send(t, address, []string{"POST /a?b=c", bodyOf + "hello", "X-Row: " + w.mark(address)})
	within(t, 30*time.Second, "the copy", func() bool {
		w.ports.mu.Lock()
		defer w.ports.mu.Unlock()
		heard = w.ports.heard[w.mark(address)+" other"]
		return heard != ""
	})
	return heard
}

// untilCut sends what is not a whole request, and tells the status line that comes before the connection ends.
func untilCut(text string) func(*testing.T, *oracleWorld) {
	return agree(func(t *testing.T, w *oracleWorld, address string) string {
		c := w.caller(address)
		defer c.hangUp()
		if err := c.dial(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c.conn, strings.ReplaceAll(text, "HOST", w.host)); err != nil {
			t.Fatal(err)
		}
		return cutAfter(t, c)
	})
}

// cutAfter is the status line that comes before a connection ends.
func cutAfter(t *testing.T, c *caller) string {
	_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	b, err := io.ReadAll(c.reader)
	if err != nil && !isReset(err) {
		t.Error(err)
	}
	status, _, _ := strings.Cut(string(b), "\r\n")
	return "ended after " + status
}

// toldWhy: half a request ends the connection of both; nginx closes it without a word, this proxy says 408.
func toldWhy(text string) func(*testing.T, *oracleWorld) {
	return func(t *testing.T, w *oracleWorld) {
		for address, want := range map[string]string{w.ours: "ended after HTTP/1.1 408 Request Timeout", w.theirs: "ended after "} {
			c := w.caller(address)
			if err := c.dial(); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c.conn, strings.ReplaceAll(text, "HOST", w.host))
			if got := cutAfter(t, c); got != want {
				t.Errorf("%s: %q, want %q", address, got, want)
			}
			c.hangUp()
		}
	}
}

// pour sends a request whose body goes on until its connection ends. It begins at once: a request that is made beforehand takes
// longer, under load, than its first byte may.
func pour(conn net.Conn, host, path string) {
	_, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", path, host, 1<<40)
	for b := make([]byte, 64<<10); err == nil; {
		_, err = conn.Write(b)
	}
}

// deaf is the status of a request whose body the backend does not read.
func deaf(t *testing.T, w *oracleWorld, address string) string {
	c := w.caller(address)
	defer c.hangUp()
	if err := c.dial(); err != nil {
		t.Fatal(err)
	}
	_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	go pour(c.conn, w.host, "/")
	status, err := c.reader.ReadString('\n')
	if err != nil {
		return err.Error()
	}
	return status[:12]
}

// halfBody tells whether the backend is asked before a body is complete.
func halfBody(early bool) func(*testing.T, *oracleWorld) {
	return func(t *testing.T, w *oracleWorld) {
		for _, address := range []string{w.ours, w.theirs} {
			c := w.caller(address)
			if err := c.dial(); err != nil {
				t.Fatal(err)
			}
			mark := w.mark(address)
			fmt.Fprintf(c.conn, "POST / HTTP/1.1\r\nHost: %s\r\nX-Row: %s\r\nContent-Length: 10\r\n\r\nhello", w.host, mark)
			asked := func() bool { return w.ports.count(mark, "good") == 1 }
			if early {
				within(t, 30*time.Second, "the backend is asked early", asked)
			} else {
				for range 20 {
					w.send(t, address, []string{"/"})
				}
				if asked() {
					t.Errorf("%s: the backend is asked before the body is complete", address)
				}
			}
			fmt.Fprint(c.conn, "world")
			if a, err := http.ReadResponse(c.reader, nil); err != nil || a.StatusCode != 200 {
				t.Errorf("%s: %v %v", address, a, err)
			}
			c.hangUp()
		}
	}
}

// handshake tells what a client agreed on, or that it was refused.
func handshake(t *testing.T, w *oracleWorld, address string) string {
	config := w.config()
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return "refused"
	}
	defer conn.Close()
	s := conn.ConnectionState()
	return fmt.Sprintf("%x %x %s", s.Version, s.CipherSuite, s.NegotiatedProtocol)
}

// resumes tells whether a second connection resumes the first one's session.
func resumes(t *testing.T, w *oracleWorld, address string) string {
	config := w.config()
	config.ClientSessionCache, config.MaxVersion = tls.NewLRUClientSessionCache(1), tls.VersionTLS12
	resumed := false
	for range 2 {
		c := &caller{address: address, tls: config}
		if err := c.dial(); err != nil {
			t.Fatal(err)
		}
		resumed = c.conn.(*tls.Conn).ConnectionState().DidResume
		c.hangUp()
	}
	return fmt.Sprint("resumed: ", resumed)
}

// firstSettings tells the streams that a server of HTTP/2 allows.
func firstSettings(t *testing.T, w *oracleWorld, address string) string {
	return fmt.Sprint(streamsAllowed(t, w.config(), address))
}

// streamsAllowed are the streams that a server's first SETTINGS allow; 0: it does not say.
func streamsAllowed(t *testing.T, config *tls.Config, address string) uint32 {
	t.Helper()
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	frame, err := framer.ReadFrame()
	settings, ok := frame.(*http2.SettingsFrame)
	if err != nil || !ok {
		t.Fatalf("the first frame is %v, %v", frame, err)
	}
	n, _ := settings.Value(http2.SettingMaxConcurrentStreams)
	return n
}

func long(n int) string { return strings.Repeat("x", n) }

// headers sends a request behind each of the PROXY headers, and compares whom the backend is told of.
func headers(list ...string) func(*testing.T, *oracleWorld) {
	return func(t *testing.T, w *oracleWorld) {
		for _, header := range list {
			var both [2]string
			for i, address := range []string{w.ours, w.theirs} {
				c := &caller{address: address}
				if a, err := c.call(header + w.text([]string{"/"})); err == nil {
					both[i] = fmt.Sprint(a.status, line(a.body, "X-Forwarded-For:"))
				}
				c.hangUp()
			}
			if both[0] != both[1] {
				t.Errorf("%q: %q, nginx %q", header, both[0], both[1])
			}
		}
	}
}

// noToken: a name that is no token is 400 here, whatever is set, and no backend hears of it. nginx drops the field, or passes it on:
// then it is the backend that refuses it.
func noToken(passed bool) func(*testing.T, *oracleWorld) {
	return func(t *testing.T, w *oracleWorld) {
		for _, field := range []string{"X(Y: 1", "X/Y: 1", "X\"Y: 1", "X\xe9Y: 1"} {
			ours, theirs := w.send(t, w.ours, []string{"/", field}), w.send(t, w.theirs, []string{"/", field})
			if ours.status != 400 || ours.body != "400 Bad Request\n" { // the proxy's own page, which no backend sent
				t.Errorf("%q: %d %q", field, ours.status, ours.body)
			}
			if refused := theirs.status == 400 && !strings.Contains(theirs.body, "nginx"); refused != passed || !passed && theirs.status != 200 {
				t.Errorf("%q: nginx answers %d %q", field, theirs.status, theirs.body)
			}
		}
	}
}

// sayBack answers in HTTP/1.0, until the close, with the bytes of the request.
func sayBack(c *net.TCPConn) {
	heard := new(bytes.Buffer)
	r, err := http.ReadRequest(bufio.NewReader(io.TeeReader(c, heard)))
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(c, "HTTP/1.0 200 OK\r\nServer: old\r\n\r\n"+heard.String())
}

// inHTTP10 is what a backend of HTTP/1.0 hears, byte for byte; but that the order of fields means nothing, and that those about
// the client are another row's.
func inHTTP10(t *testing.T, w *oracleWorld, address string) (heard string) {
	c := w.caller(address)
	defer c.hangUp()
	for _, text := range []string{
		"GET /a%20b?c HTTP/1.1\r\nHost: HOST\r\nAccept: a, b\r\nTE: trailers\r\nConnection: TE, keep-alive\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n",
		"PUT /b HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
		"GET / HTTP/1.0\r\nHost: HOST\r\n\r\n",
	} {
		a, err := c.call(strings.ReplaceAll(text, "HOST", w.host))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		head, body, _ := strings.Cut(a.body, "\r\n\r\n")
		lines := slices.DeleteFunc(strings.Split(head, "\r\n"), func(l string) bool { return strings.HasPrefix(l, "X-") })
		slices.Sort(lines[1:])
		heard += fmt.Sprintf("%d %q %q\n", a.status, lines, body)
	}
	return heard
}

// bothOrders are the suites that are chosen of two, offered one way and the other.
func bothOrders(t *testing.T, w *oracleWorld, address string) string {
	const weak, strong = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
	return fmt.Sprintf("%x %x", chosenSuite(t, w, address, weak, strong), chosenSuite(t, w, address, strong, weak))
}

// clientOrder: what nginx leaves to the client, this proxy decides.
func clientOrder(t *testing.T, w *oracleWorld) {
	if ours, theirs := w.both(func(address string) string { return bothOrders(t, w, address) }); ours != "c02b c02b" || theirs != "c02b c02c" {
		t.Errorf("%q, nginx %q", ours, theirs)
	}
}

// chosenSuite offers two suites of TLS 1.2 in this order, which crypto/tls has no say for: its ClientHello is changed on its way.
func chosenSuite(t *testing.T, w *oracleWorld, address string, first, second uint16) uint16 {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	config := w.config()
	config.MaxVersion, config.CipherSuites = tls.VersionTLS12, []uint16{first, second}
	go func() {
		_ = tls.Client(near, config).Handshake()
	}()
	hello := make([]byte, 5, 1024)
	_, err := io.ReadFull(far, hello)
	if err == nil {
		hello = append(hello, make([]byte, binary.BigEndian.Uint16(hello[3:]))...)
		_, err = io.ReadFull(far, hello[5:])
	}
	_ = far.Close()
	suite := func(a, b uint16) []byte {
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, a), b)
	}
	if at := bytes.Index(hello, suite(second, first)); at > 0 {
		copy(hello[at:], suite(first, second))
	}
	if err != nil || bytes.Count(hello, suite(first, second)) != 1 {
		t.Fatalf("no hello with the suites %x and %x: %v, %x", first, second, err, hello)
	}
	c, err := net.DialTimeout("tcp", address, callTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(callTimeout))
	_, _ = c.Write(hello)
	answer := make([]byte, 5+4+2+32+1)
	if _, err := io.ReadFull(c, answer); err != nil || answer[0] != 22 || answer[5] != 2 {
		t.Fatalf("no ServerHello: %v, %x", err, answer)
	}
	rest := make([]byte, int(answer[len(answer)-1])+2)
	if _, err := io.ReadFull(c, rest); err != nil {
		t.Fatal(err)
	}
	return binary.BigEndian.Uint16(rest[len(rest)-2:])
}
