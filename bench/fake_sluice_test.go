package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The test binary plays all the programs that the harness starts: the origin, and a proxy that takes Sluice's
// flags and reads just enough of its manifests.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "origin":
		main()
	case len(os.Args) > 1 && os.Args[1] == "version":
		fmt.Println("fake 1.0")
	case len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "--manifests="):
		if err := fakeSluice(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	default:
		os.Exit(m.Run())
	}
}

// fakeSpoilt in the environment makes the fake answer wrongly from its second request on.
const fakeSpoilt = "BENCH_TEST_SPOILT"

// fakeOld in the environment makes the fake speak HTTP/1.1 only.
const fakeOld = "BENCH_TEST_OLD"

// fakeWaste in the environment makes the fake burn a good deal of CPU for each request.
const fakeWaste = "BENCH_TEST_WASTE"

func fakeSluice(args []string) error {
	f := flag.NewFlagSet("fake", flag.ContinueOnError)
	manifests := f.String("manifests", "", "")
	bind := f.String("bind-address", "", "")
	plain := f.String("http-port", "", "")
	secured := f.String("https-port", "", "")
	admin := f.String("admin-address", "", "")
	for _, name := range []string{"ingress-class", "default-ssl-certificate", "configmap", "loops"} {
		f.String(name, "", "")
	}
	f.Bool("enable-ssl-passthrough", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	yaml, err := os.ReadFile(filepath.Join(*manifests, "bench.yaml"))
	if err != nil {
		return err
	}
	pair, err := tls.X509KeyPair(fakeData(yaml, "tls.crt"), fakeData(yaml, "tls.key"))
	if err != nil {
		return err
	}
	port := regexp.MustCompile(`targetPort: (\d+)`).FindSubmatch(yaml)[1]
	handler := fakeHandler("127.0.0.1:" + string(port))
	failed := make(chan error)
	go func() { failed <- http.ListenAndServe(net.JoinHostPort(*bind, *plain), handler) }()
	go func() {
		server := http.Server{Addr: net.JoinHostPort(*bind, *secured), Handler: handler, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
		if os.Getenv(fakeOld) != "" {
			server.TLSNextProto = map[string]func(*http.Server, *tls.Conn, http.Handler){}
		}
		failed <- server.ListenAndServeTLS("", "")
	}()
	go func() {
		failed <- http.ListenAndServe(*admin, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {}))
	}()
	return <-failed
}

func fakeData(yaml []byte, key string) []byte {
	encoded := regexp.MustCompile(key + `: (\S+)`).FindSubmatch(yaml)[1]
	data, err := base64.StdEncoding.DecodeString(string(encoded))
	if err != nil {
		panic(err)
	}
	return data
}

func fakeHandler(origin string) http.Handler {
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: origin})
	proxy.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	requests := 0 // the spoilt test uses one connection at a time
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if os.Getenv(fakeWaste) != "" {
			b := bytes.Repeat([]byte("x"), 1<<20)
			for range 4 {
				sha256.Sum256(b)
			}
		}
		if os.Getenv(fakeSpoilt) != "" {
			if requests++; requests > 2 && requests%2 == 0 { // the probes are right, half of the rest is not
				w.Header().Set("Content-Length", "2")
				w.Write([]byte("no"))
				return
			}
		}
		proxy.ServeHTTP(w, r)
	})
}
