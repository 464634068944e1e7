package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/valyala/fasthttp"
)

// demoBackends are the servers behind the demo's routes, with the certificates of the demo.
type demoBackends struct {
	servers      []*demoServer
	certificates []demoCertificate // for Secrets
	authority    string            // PEM of who signed them
}

type demoServer struct {
	name, portName string
	handler        fasthttp.RequestHandler
	tls            *tls.Certificate

	listener net.Listener
	server   *fasthttp.Server
}

type demoCertificate struct{ secret, certificate, key string }

func (s *demoServer) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

// startDemoBackends starts them on ports that the system chooses.
func startDemoBackends() (*demoBackends, error) {
	authority, err := newKeyPair("Sluice demo authority", nil, nil)
	if err != nil {
		return nil, err
	}
	own, err := newKeyPair("secure.localhost", []string{"secure.localhost"}, authority)
	if err != nil {
		return nil, err
	}
	b := &demoBackends{servers: []*demoServer{
		{name: "shop", portName: "http", handler: demoShop},
		{name: "api", portName: "http", handler: demoAPI},
		{name: "secure", portName: "https", handler: demoSecure, tls: own.tls()},
	}}
	if b.authority, _, err = authority.pem(); err != nil {
		return nil, err
	}
	for secret, host := range map[string]string{"shop-tls": "shop.localhost", "apps-tls": "*.apps.localhost"} {
		pair, err := newKeyPair(host, []string{host}, authority)
		if err != nil {
			return nil, err
		}
		c := demoCertificate{secret: secret}
		if c.certificate, c.key, err = pair.pem(); err != nil {
			return nil, err
		}
		b.certificates = append(b.certificates, c)
	}
	for _, s := range b.servers {
		if err := s.start(); err != nil {
			b.close()
			return nil, fmt.Errorf("the demo's backend %s: %w", s.name, err)
		}
	}
	return b, nil
}

func (s *demoServer) start() (err error) {
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	if s.tls != nil {
		s.listener = tls.NewListener(s.listener, &tls.Config{Certificates: []tls.Certificate{*s.tls}, NextProtos: []string{"http/1.1"}})
	}
	s.server = &fasthttp.Server{
		Handler: s.handler, Name: s.name, IdleTimeout: 5 * time.Minute, CloseOnShutdown: true,
		DisableHeaderNamesNormalizing: true,
	}
	go func() { _ = s.server.Serve(s.listener) }() // ends with close; the proxy reports a backend that is not there
	return nil
}

func (b *demoBackends) close() {
	for _, s := range b.servers {
		if s.listener != nil {
			_ = s.listener.Close()
		}
	}
}

// demoShop shows a request as it arrives behind the proxy.
func demoShop(ctx *fasthttp.RequestCtx) {
	fmt.Fprintf(ctx, "Hello from the shop. Your request arrived as\n\n%s", ctx.Request.Header.Header())
	_, _ = ctx.Write(ctx.PostBody())
}

// demoAPI answers in JSON.
func demoAPI(ctx *fasthttp.RequestCtx) {
	ctx.SetContentType("application/json")
	e := json.NewEncoder(ctx)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	_ = e.Encode(map[string]any{ // into memory
		"service": "api",
		"method":  string(ctx.Method()),
		"path":    string(ctx.URI().PathOriginal()),
		"query":   string(ctx.URI().QueryString()),
		"client":  string(ctx.Request.Header.Peek("X-Real-IP")),
	})
}

func demoSecure(ctx *fasthttp.RequestCtx) {
	fmt.Fprintf(ctx, "Hello from a backend with a certificate of its own: your TLS connection was passed through as it is.\n")
}
