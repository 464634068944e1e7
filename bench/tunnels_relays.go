package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
)

// Names of candidates that others are compared with.
const nameSluice, nameHAProxy, nameNginx = "Sluice", "HAProxy", "nginx"

// tunnelNames are the candidates in the report's order.
var tunnelNames = []string{"Go copy", "Go io.Copy", nameSluice, nameJoined, nameHAProxy, nameNginx}

// tunnelRelay is a candidate: start writes its configuration and answers its command.
type tunnelRelay struct {
	name  string
	start func(b *tunnelBench) ([]string, error)
}

func tunnelRelays(program, haproxy, nginx string) []tunnelRelay {
	self := func(how string) func(b *tunnelBench) ([]string, error) {
		return func(b *tunnelBench) ([]string, error) {
			exe, err := os.Executable()
			return []string{exe, "relay", how, net.JoinHostPort(b.address, strconv.Itoa(b.port)), net.JoinHostPort(b.origin, strconv.Itoa(b.originPort))}, err
		}
	}
	sluice := func(sockmap string) func(b *tunnelBench) ([]string, error) {
		return func(b *tunnelBench) ([]string, error) {
			dir := filepath.Join(b.dir, "manifests")
			err := os.MkdirAll(dir, 0o755)
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "all.yaml"), fmt.Appendf(nil, tunnelManifests, hostPass, b.origin, b.originPort), 0o644)
			}
			return []string{program, "--manifests=" + dir, "--http-port=0", fmt.Sprint("--https-port=", b.port), "--bind-address=" + b.address,
				"--admin-address=", twoLoops, "--enable-ssl-passthrough", "--sockmap=" + sockmap, "--allow-backend-cidr=" + b.origin + "/32"}, err
		}
	}
	return []tunnelRelay{
		{"Go copy", self("copy")}, {"Go io.Copy", self("splice")},
		{nameSluice, sluice("off")}, {nameJoined, sluice("on")},
		{nameHAProxy, func(b *tunnelBench) ([]string, error) {
			file := filepath.Join(b.dir, "haproxy.cfg")
			return []string{haproxy, "-f", file, "-db"}, os.WriteFile(file, fmt.Appendf(nil, tunnelHAProxy, b.address, b.port, hostPass, b.origin, b.originPort), 0o644)
		}},
		{nameNginx, func(b *tunnelBench) ([]string, error) {
			printed, _ := output(context.Background(), nginx, "-V") // one that does not tell has no stream module
			module, err := nginxStream(printed, "")
			if err != nil {
				return nil, err
			}
			if module != "" {
				module = "load_module " + module + ";\n"
			}
			file := filepath.Join(b.dir, "nginx.conf")
			return []string{nginx, "-c", file, "-p", b.dir}, os.WriteFile(file, fmt.Appendf(nil, tunnelNginx, module, b.dir, hostPass, b.origin, b.originPort, b.address, b.port), 0o644)
		}},
	}
}

// relayCommand is a tunnel as plain Go writes it: `bench relay copy|splice LISTEN TO`.
func relayCommand(args []string) error {
	if len(args) != 3 {
		return errors.New("relay: give copy or splice, an address to listen on, and one to connect to")
	}
	ln, err := net.Listen("tcp", args[1])
	if err != nil {
		return err
	}
	for {
		a, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer a.Close()
			b, err := net.Dial("tcp", args[2])
			if err != nil {
				return
			}
			defer b.Close()
			done := make(chan struct{})
			move := func(to, from net.Conn) {
				if args[0] == "copy" {
					_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 64<<10))
				} else {
					_, _ = io.Copy(to, from)
				}
				_ = to.(*net.TCPConn).CloseWrite()
			}
			go func() { move(b, a); close(done) }()
			move(a, b)
			<-done
		}()
	}
}

const tunnelManifests = `apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: pass
  namespace: default
  annotations: {nginx.ingress.kubernetes.io/ssl-passthrough: "true"}
spec:
  ingressClassName: nginx
  rules:
  - host: %s
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: pass, port: {number: 443}}}}]}
---
apiVersion: v1
kind: Service
metadata: {name: pass, namespace: default}
spec: {ports: [{port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pass, namespace: default, labels: {kubernetes.io/service-name: pass}}
addressType: IPv4
endpoints: [{addresses: [%q]}]
ports: [{port: %d}]
`

const tunnelHAProxy = `global
    nbthread 2
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    option splice-auto
frontend sni
    bind %s:%d
    tcp-request inspect-delay 5s
    tcp-request content accept if { req.ssl_hello_type 1 }
    use_backend pass if { req.ssl_sni -i %s }
backend pass
    server origin %s:%d
`

const tunnelNginx = `%sdaemon off;
worker_processes 2;
pid %s/nginx.pid;
error_log stderr error;
events { worker_connections 1024; }
stream {
    map $ssl_preread_server_name $to { %s %s:%d; }
    server {
        listen %s:%d reuseport;
        ssl_preread on;
        proxy_half_close on;
        proxy_pass $to;
    }
}
`
