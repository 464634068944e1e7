package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	logLineBytesMax = 1 << 20
	logHeadTimeout  = 10 * time.Second
)

// stamped writes lines to a file, each after the time it came.
type stamped struct {
	mu   sync.Mutex
	file *os.File
	rest []byte // a line without its end
}

// Write implements io.Writer.
func (s *stamped) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = append(s.rest, b...)
	for {
		i := bytes.IndexByte(s.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		if _, err := s.file.WriteString(time.Now().UTC().Format(time.RFC3339Nano) + " " + string(s.rest[:i+1])); err != nil {
			return 0, err
		}
		s.rest = s.rest[i+1:]
	}
}

// serveLogs answers what the API server asks a kubelet for `kubectl logs`:
//
//	/containerLogs/NAMESPACE/POD/CONTAINER?sinceTime&sinceSeconds&tailLines&timestamps
func (k *kubelet) serveLogs() (port int32, err error) {
	ip := net.IP(k.network.gateway4.Addr().AsSlice())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IPAddresses: []net.IP{ip}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return 0, err
	}
	l, err := tls.Listen("tcp", net.JoinHostPort(ip.String(), "0"),
		&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		return 0, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.answerLogs)
	go func() {
		if err := (&http.Server{Handler: mux, ReadHeaderTimeout: logHeadTimeout}).Serve(l); err != nil {
			log.Printf("logs: %v", err)
		}
	}()
	return int32(l.Addr().(*net.TCPAddr).Port), nil
}

func (k *kubelet) answerLogs(w http.ResponseWriter, r *http.Request) {
	dir := ""
	k.mu.Lock()
	for _, p := range k.pods {
		if p.Namespace == r.PathValue("namespace") && p.Name == r.PathValue("pod") {
			dir = p.dir
		}
	}
	k.mu.Unlock()
	f, err := os.Open(filepath.Join(dir, filepath.Base(r.PathValue("container"))+".log"))
	if dir == "" || err != nil {
		http.Error(w, "no log", http.StatusNotFound)
		return
	}
	defer f.Close()
	for _, line := range logLines(f, r.URL.Query()) {
		_, _ = io.WriteString(w, line)
	}
}

func logLines(r io.Reader, q url.Values) (lines []string) {
	var since time.Time
	if t, err := time.Parse(time.RFC3339, q.Get("sinceTime")); err == nil {
		since = t
	} else if n, err := strconv.Atoi(q.Get("sinceSeconds")); err == nil {
		since = time.Now().Add(-time.Duration(n) * time.Second)
	}
	scan := bufio.NewScanner(r)
	scan.Buffer(nil, logLineBytesMax)
	for scan.Scan() {
		at, text, _ := strings.Cut(scan.Text(), " ")
		if t, err := time.Parse(time.RFC3339Nano, at); err != nil || t.Before(since) {
			continue
		}
		if q.Get("timestamps") == "true" {
			text = scan.Text()
		}
		lines = append(lines, text+"\n")
	}
	if n, err := strconv.Atoi(q.Get("tailLines")); err == nil && n < len(lines) {
		lines = lines[len(lines)-n:]
	}
	return lines
}
