package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// filteredManifests are one host whose paths are filtered in different ways, and the Service pages.
func filteredManifests(t *testing.T, port, pages, service, mirror int) string {
	const asked = "http://127.0.0.1:%d/verify"
	at := func(name, path string, annotations ...string) string {
		s := site{name: name, host: "shop.example", path: path, secret: "tls", ports: []int{port}, annotations: map[string]string{}}
		for i := 0; i < len(annotations); i += 2 {
			s.annotations[annotations[i]] = annotations[i+1]
		}
		return s.yaml()
	}
	return secretOf(t, "tls", issue(t, "shop.example")) + opaqueSecret("users", "auth", passwordFile(t)) +
		site{name: "pages", host: "pages.example", ports: []int{pages}}.yaml() +
		at("errors", "/", "custom-http-errors", "401,404,503", "default-backend", "pages", "enable-cors", "true") +
		at("basic", "/basic", "auth-type", "basic", "auth-secret", "users") +
		at("asked", "/asked", "auth-url", fmt.Sprintf(asked, service), "auth-response-headers", "Remote-User") +
		at("own", "/own", "auth-url", "https://$host/200") +
		at("denied", "/denied", "custom-http-errors", "401", "default-backend", "pages", "auth-type", "basic", "auth-secret", "users",
			"mirror-target", fmt.Sprintf("http://127.0.0.1:%d$request_uri", mirror))
}

// TestFiltersOverHTTP2: what parks a request, asks others for it or replaces its answer does so for streams too, beside
// each other on one connection.
func TestFiltersOverHTTP2(t *testing.T) {
	port := application(t, func(w http.ResponseWriter, r *http.Request) {
		if status, _ := strconv.Atoi(strings.Trim(r.URL.Path, "/")); status != 0 {
			w.WriteHeader(status)
		}
		told(w, r)
	})
	pages := application(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(410)
		told(w, r)
	})
	var copies atomic.Int64
	mirror := application(t, func(http.ResponseWriter, *http.Request) { copies.Add(1) })
	p := startProxy(t, filteredManifests(t, port, pages, newAuthService(t).port, mirror))
	transport := &http.Transport{TLSClientConfig: trusting(t, "shop.example"), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	c := h2Caller{t, &http.Client{Transport: transport, Timeout: 20 * time.Second}, "https://" + p.HTTPS}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			c.want("GET", "/basic", basicField("bcrypt", "secret"), 200, "GET /basic\n")
			c.want("POST", "/basic", basicField("bcrypt", "wrong"), 401, "")
			c.want("POST", "/basic", basicField("sha", "secret"), 200, "POST /basic\n")
			c.want("GET", "/asked", "", 200, "Remote-User: ann\r\n")
			c.want("POST", "/asked", "X-Want: 200", 200, "Remote-User: ann\r\n")
			c.want("POST", "/asked", "X-Want: 401", 401, "")
			c.want("POST", "/asked", "X-Want: 403", 403, "")
			c.want("GET", "/asked", "X-Want: 3", 200, "Remote-User: ann\r\n")
			c.want("GET", "/asked", "X-Want: 1", 500, "")
			c.want("GET", "/own", "", 200, "GET /own\n")
			c.want("POST", "/own", "", 200, "POST /own\n")
			c.want("GET", "/404?a=b", "", 410, "X-Code: 404\r\n")
			c.want("POST", "/404", "", 410, "GET /\n")
			c.want("HEAD", "/404", "", 410, "")
			c.want("POST", "/denied", "", 410, "X-Code: 401\r\n")
			c.want("GET", "/200", "", 200, "GET /200\n")
		})
	}
	all.Wait()
	if h := c.want("GET", "/200", "Origin: https://other.example", 200, ""); h.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("CORS: %v", h)
	}
	if n := copies.Load(); n != 0 {
		t.Errorf("%d requests that were denied, or that ask for a page, were mirrored", n)
	}
	c.want("GET", "/denied", basicField("sha", "secret"), 200, "GET /denied\n")
	within(t, callTimeout, "the copy", func() bool { return copies.Load() == 1 })
}

// h2Caller calls shop.example over HTTP/2.
type h2Caller struct {
	t      *testing.T
	client *http.Client
	base   string
}

// want calls, a POST with 64 KiB, and checks the answer's status and a piece of its body.
func (c *h2Caller) want(method, path, field string, status int, has string) http.Header {
	var body io.Reader
	if method == "POST" {
		body = strings.NewReader(strings.Repeat("0123456789abcdef", 4<<10))
	}
	r, err := http.NewRequest(method, c.base+path, body)
	if err != nil {
		c.t.Error(err)
		return nil
	}
	r.Host = "shop.example"
	if name, value, ok := strings.Cut(field, ": "); ok {
		r.Header.Set(name, value)
	}
	a, err := c.client.Do(r)
	if err != nil {
		c.t.Errorf("%s %s %s: %v", method, path, field, err)
		return nil
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil || a.ProtoMajor != 2 || a.StatusCode != status || !strings.Contains(string(text), has) {
		c.t.Errorf("%s %s %s: HTTP/%d, %v, %d %q, want %d with %q", method, path, field, a.ProtoMajor, err, a.StatusCode, text, status, has)
	}
	return a.Header
}
