package main

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What rows of proxy_oracle_rows_test.go check beside single requests.

var sprintf = fmt.Sprintf

// numbered makes variables of nginx, which all servers share, those of one row each.
func numbered(rows map[string]oracleRow, variable string) map[string]oracleRow {
	n := 0
	for name, r := range rows {
		own := fmt.Sprint(variable, n)
		r.http, r.nginx = strings.ReplaceAll(r.http, variable, own), strings.ReplaceAll(r.nginx, variable, own)
		rows[name], n = r, n+1
	}
	return rows
}

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
