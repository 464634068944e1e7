package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// oracleCall is a call of gRPC: what its client sends and what the backend does.
type oracleCall struct {
	host, path string // "": calls.example
	fields     map[string]string
	messages   int    // empty ones
	differs    string // what this proxy answers other than nginx; "": nothing
}

// grpcBackend does what a call's path says.
func grpcBackend(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	h := w.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("X-Heard", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Host, " ", len(body), " ", r.Header.Get("Te"), r.Header.Get("Grpc-Timeout"), r.Header.Get("X-Meta"), r.Header.Get("X-Meta-Bin")))
	switch r.URL.Path {
	case "/s/Unary", "/s/Stream":
		h.Set("Trailer", "Grpc-Status, Grpc-Message, X-Tail-Bin")
		w.(http.Flusher).Flush()
		for range len(body) / 5 {
			_, _ = w.Write([]byte("\x00\x00\x00\x00\x02hi"))
			w.(http.Flusher).Flush()
		}
		h.Set("Grpc-Status", "0")
		h.Set("X-Tail-Bin", "AAEC")
	case "/s/Fails": // behind a message
		h.Set("Trailer", "Grpc-Status, Grpc-Message")
		_, _ = w.Write([]byte("\x00\x00\x00\x00\x00"))
		h.Set("Grpc-Status", "9")
		h.Set("Grpc-Message", "no%20such%0Athing %E2%98%BA")
	case "/s/Refuses": // Trailers-Only
		h.Set("Grpc-Status", "5")
		h.Set("Grpc-Message", "not found")
	default: // no gRPC at all
		h.Set("Content-Type", "text/plain")
		w.WriteHeader(404)
	}
}

// TestOracleGRPC compares calls with those through nginx's grpc_pass: their answers, trailers and errors, and what the backend
// was told. Errors of their own nginx tells in HTTP's words and this proxy in gRPC's.
func TestOracleGRPC(t *testing.T) {
	port, secure, dead := http2Application(t, false, grpcBackend), http2Application(t, true, grpcBackend), freePort(t)
	theirPort := freePort(t)
	server := func(host, pass string, more ...string) string {
		return fmt.Sprintf("server { listen 127.0.0.1:%d http2; server_name %s; grpc_set_header Host $http_host; client_max_body_size 10; %s location / { grpc_pass %s; } }\n", theirPort, host, strings.Join(more, " "), pass)
	}
	nginx(t, "return 404;", "http", server("calls.example", fmt.Sprintf("grpc://127.0.0.1:%d", port))+server("secure.example", fmt.Sprintf("grpcs://127.0.0.1:%d", secure))+
		server("dead.example", fmt.Sprintf("grpc://127.0.0.1:%d", dead))+server("denied.example", "grpc://127.0.0.1:1", "deny all;"))
	ingress := func(name, protocol string, port int, more ...string) string {
		return site{name: name, host: name + ".example", ports: []int{port}, annotations: said(append(more, "backend-protocol", protocol, "proxy-body-size", "10")...)}.yaml()
	}
	p := startProxy(t, ingress("calls", "GRPC", port)+ingress("secure", "GRPCS", secure)+ingress("dead", "GRPC", dead)+ingress("denied", "GRPC", port, "denylist-source-range", "127.0.0.0/8"))
	client := clientsOf(t, p, "calls.example")["h2c"]
	for name, c := range map[string]oracleCall{
		"unary":             {path: "/s/Unary", messages: 1},
		"unary over TLS":    {host: "secure.example", path: "/s/Unary", messages: 1},
		"no message":        {path: "/s/Unary"},
		"messages":          {path: "/s/Stream", messages: 2},
		"metadata":          {path: "/s/Unary", messages: 1, fields: said("X-Meta", "a, b", "X-Meta-Bin", "AAEC", "Grpc-Timeout", "30S")},
		"an error":          {path: "/s/Fails", messages: 1},
		"an error at once":  {path: "/s/Refuses", messages: 1},
		"an answer of HTTP": {path: "/other", messages: 1},
		"no endpoint":       {host: "dead.example", path: "/s/Unary", messages: 1, differs: "200 14, nginx 502 "},
		"forbidden":         {host: "denied.example", path: "/s/Unary", messages: 1, differs: "200 7, nginx 403 "},
		"too large":         {path: "/s/Stream", messages: 3, differs: "200 8, nginx 413 "},
	} {
		t.Run(name, func(t *testing.T) {
			ours, status := c.call(t, client, p.HTTP)
			theirs, nginxs := c.call(t, client, fmt.Sprint("127.0.0.1:", theirPort))
			if differs := status + ", nginx " + nginxs; c.differs != "" && differs != c.differs {
				t.Errorf("%s, want %s", differs, c.differs)
			}
			if c.differs == "" && ours != theirs {
				t.Errorf("%s\nnginx\n%s", ours, theirs)
			}
		})
	}
}

// call makes the call and tells all of its answer, and its statuses of HTTP and gRPC.
func (c *oracleCall) call(t *testing.T, client *http.Client, address string) (all, status string) {
	t.Helper()
	r, err := http.NewRequest("POST", "http://"+address+c.path, strings.NewReader(strings.Repeat("\x00\x00\x00\x00\x00", c.messages)))
	if err != nil {
		t.Fatal(err)
	}
	if r.Host = c.host; r.Host == "" {
		r.Host = "calls.example"
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	for name, value := range c.fields {
		r.Header.Set(name, value)
	}
	res, body := readWhole(t, client, r)
	all = fmt.Sprintf("%d %q\n", res.StatusCode, body)
	for i, fields := range []http.Header{res.Header, res.Trailer} {
		for _, name := range slices.Sorted(maps.Keys(fields)) {
			if name != "Server" && name != "Date" && name != "Trailer" {
				all += fmt.Sprintf("%s %s: %q\n", []string{"field", "trailer"}[i], name, fields[name])
			}
		}
	}
	status = res.Header.Get("Grpc-Status") + res.Trailer.Get("Grpc-Status")
	return all, fmt.Sprint(res.StatusCode, " ", status)
}
