// Command echo is the backend of tests in a cluster: it answers every request with what it received and who it is, as
// JSON, on port 8080 (or --port). On SIGTERM it ends as a well-made server does: it accepts nothing more, finishes what is
// under way, and closes idle connections.
//
//	?sleep=300ms    waits before it answers
//	?status=503     answers with that status
//	?bytes=1000     answers with so many bytes instead
//
// A request with Upgrade becomes a tunnel that sends back what comes.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// answer is what a test learns.
type answer struct {
	Name      string      `json:"name"` // --name
	Pod       string      `json:"pod"`
	Namespace string      `json:"namespace"`
	Method    string      `json:"method"`
	Host      string      `json:"host"`
	Path      string      `json:"path"` // as it came, with the query
	Proto     string      `json:"proto"`
	Headers   http.Header `json:"headers"`
}

const (
	bytesMax        = 64 << 20
	headTimeout     = 30 * time.Second
	shutdownTimeout = 30 * time.Second
)

func main() {
	port := flag.Int("port", 8080, "where to listen")
	name := flag.String("name", os.Getenv("ECHO_NAME"), "who this is (default $ECHO_NAME)")
	flag.Parse()
	if err := serve(*port, *name); err != nil {
		log.Fatal("echo: ", err)
	}
}

func serve(port int, name string) error {
	s := &http.Server{Addr: fmt.Sprintf(":%d", port), ReadHeaderTimeout: headTimeout, Handler: echo(name)}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- s.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	return s.Shutdown(ctx)
}

func echo(name string) http.HandlerFunc {
	pod, namespace := os.Getenv("HOSTNAME"), os.Getenv("POD_NAMESPACE")
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echoTunnel(w)
			return
		}
		q := r.URL.Query()
		if d, err := time.ParseDuration(q.Get("sleep")); err == nil {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
				return
			}
		}
		status, err := strconv.Atoi(q.Get("status"))
		if err != nil || status < 200 || status > 599 {
			status = http.StatusOK
		}
		if n, err := strconv.Atoi(q.Get("bytes")); err == nil && n >= 0 && n <= bytesMax {
			w.Header().Set("Content-Length", strconv.Itoa(n))
			w.WriteHeader(status)
			writeBytes(w, n)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Server", "echo")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(answer{name, pod, namespace, r.Method, r.Host, r.RequestURI, r.Proto, r.Header})
	}
}

// echoTunnel takes an upgrade, whatever the protocol, and sends back what comes until the client ends.
func echoTunnel(w http.ResponseWriter) {
	conn, both, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"); err == nil {
		_, _ = io.Copy(conn, both)
	}
}

func writeBytes(w http.ResponseWriter, n int) {
	chunk := []byte(strings.Repeat("x", 16<<10))
	for n > 0 {
		m, err := w.Write(chunk[:min(n, len(chunk))])
		if err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
			return // the client has gone
		}
		if m == 0 {
			return
		}
		n -= m
	}
}
