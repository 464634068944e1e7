package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
)

// reviewIngress is an Ingress as an API server sends it.
const reviewIngress = `{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web", "namespace": "default", "annotations": {%s}},
 "spec": {"ingressClassName": "nginx", "rules": [{"host": %q, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}`

// webhookPair are the files of a certificate and its key for webhook.example.
func webhookPair(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	certificate, key, err := issue(t, "webhook.example").pem()
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert"), filepath.Join(dir, "key")
	for name, text := range map[string]string{certFile: certificate, keyFile: key} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// TestWebhook asks over TLS, as an API server does.
func TestWebhook(t *testing.T) {
	certFile, keyFile := webhookPair(t)
	port := freePort(t)
	startProxy(t, site{name: "shop", host: "taken.example"}.yaml(), fmt.Sprintf("--validating-webhook=127.0.0.1:%d", port),
		"--validating-webhook-certificate="+certFile, "--validating-webhook-key="+keyFile)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting(t, "webhook.example"), ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	post := func(body string) (int, string) {
		t.Helper()
		a, err := client.Post(fmt.Sprintf("https://127.0.0.1:%d/networking/v1/ingresses", port), "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil {
			t.Fatal(err)
		}
		return a.StatusCode, string(text)
	}
	before := "null" // what an UPDATE changes
	review := func(kind, operation, object string) *admissionv1.AdmissionResponse {
		t.Helper()
		status, text := post(fmt.Sprintf(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": "u-1", "kind": {"group": "networking.k8s.io", "version": "v1", "kind": %q},
 "namespace": "default", "operation": %q, "object": %s, "oldObject": %s}}`, kind, operation, object, before))
		got := admissionv1.AdmissionReview{}
		if err := json.NewDecoder(bytes.NewReader([]byte(text))).Decode(&got); err != nil || status != 200 || got.Response == nil || got.Response.UID != "u-1" || got.Kind != "AdmissionReview" {
			t.Fatalf("%d %s: %v", status, text, err)
		}
		return got.Response
	}
	if r := review("Ingress", "CREATE", fmt.Sprintf(reviewIngress, "", "free.example")); !r.Allowed || len(r.Warnings) > 0 {
		t.Errorf("a good one: %+v", r)
	}
	if r := review("Ingress", "CREATE", fmt.Sprintf(reviewIngress, "", "taken.example")); r.Allowed || r.Result.Code != 422 ||
		!strings.Contains(r.Result.Message, "Ingress default/web: spec.rules[0].http.paths[0]") || !strings.Contains(r.Result.Message, "belongs to Ingress default/shop") {
		t.Errorf("a path that is taken: %+v", r)
	}
	long := fmt.Sprintf(`"nginx.ingress.kubernetes.io/proxy-body-size": %q`, strings.Repeat("9", 300))
	if r := review("Ingress", "UPDATE", fmt.Sprintf(reviewIngress, long, "free.example")); !r.Allowed || len(r.Warnings) != 1 || len(r.Warnings[0]) > 256 ||
		!strings.Contains(r.Warnings[0], "proxy-body-size") {
		t.Errorf("a bad value: %+v", r)
	}
	ending := strings.Replace(fmt.Sprintf(reviewIngress, "", "taken.example"), `"metadata": {`, `"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", `, 1)
	before = fmt.Sprintf(reviewIngress, "", "taken.example")
	if r := review("Ingress", "UPDATE", ending); !r.Allowed {
		t.Errorf("one that is being deleted, whose finalizer goes: %+v", r)
	}
	before = fmt.Sprintf(reviewIngress, "", "free.example")
	if r := review("Ingress", "UPDATE", ending); r.Allowed {
		t.Errorf("one that is being deleted, and gets another's host: %+v", r)
	}
	if r := review("Ingress", "CREATE", `{"spec": 5}`); r.Allowed {
		t.Errorf("no Ingress: %+v", r)
	}
	if r := review("Ingress", "DELETE", "null"); !r.Allowed {
		t.Errorf("one that goes: %+v", r)
	}
	if r := review("Pod", "CREATE", "{}"); !r.Allowed {
		t.Errorf("a Pod: %+v", r)
	}
	for _, body := range []string{"", "{}", "[]", `{"apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "x"}}`, strings.Repeat(" ", reviewBytesMax+1)} {
		if status, _ := post(body); status != 400 {
			t.Errorf("%.60q: %d", body, status)
		}
	}
	if a, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/", port)); err != nil || a.StatusCode != 405 {
		t.Errorf("GET: %v, %v", a, err)
	} else {
		a.Body.Close()
	}
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11})
	if err == nil {
		conn.Close()
		t.Error("TLS 1.1 is spoken")
	}
}

// TestWebhookIsBusy: a review too many is not read.
func TestWebhookIsBusy(t *testing.T) {
	w := webhook{places: make(chan struct{}, 1)}
	w.places <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nobody waits any more
	body := strings.NewReader("{}")
	out := httptest.NewRecorder()
	w.ServeHTTP(out, httptest.NewRequestWithContext(ctx, http.MethodPost, "/", body))
	if out.Code != http.StatusServiceUnavailable || body.Len() != 2 {
		t.Errorf("%d, %d bytes of the body are unread", out.Code, body.Len())
	}
	<-w.places
	w.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", body))
	if len(w.places) != 0 || body.Len() != 0 {
		t.Errorf("%d places are taken, %d bytes unread", len(w.places), body.Len())
	}
}

// TestWebhookNeedsACertificate: it is missed at start, not at the first review.
func TestWebhookNeedsACertificate(t *testing.T) {
	for _, flags := range [][]string{{"--validating-webhook=127.0.0.1:0"}, {"--validating-webhook=127.0.0.1:0", "--validating-webhook-certificate=nowhere"}} {
		o := defaultOptions()
		if err := parseFlags(&o, append([]string{"--manifests=" + t.TempDir()}, flags...), table); err != nil {
			t.Fatal(err)
		}
		if _, err := newProxy(o, slog.New(slog.DiscardHandler), io.Discard); err == nil || !strings.Contains(err.Error(), "--validating-webhook-key") {
			t.Errorf("%q: %v", flags, err)
		}
	}
}

// TestWebhookCertificateIsRenewed: files that changed are read, and broken ones change nothing.
func TestWebhookCertificateIsRenewed(t *testing.T) {
	dir := t.TempDir()
	c := fileCertificate{certFile: filepath.Join(dir, "cert"), keyFile: filepath.Join(dir, "key")}
	if _, err := c.get(nil); err == nil {
		t.Error("nothing is read, and nothing said")
	}
	names := map[string]bool{}
	for i, name := range []string{"one.example", "two.example", ""} {
		certificate, key := "broken", "broken"
		if name != "" {
			var err error
			if certificate, key, err = issue(t, name).pem(); err != nil {
				t.Fatal(err)
			}
		}
		changed := time.Unix(1e9+int64(i), 0)
		for file, text := range map[string]string{c.certFile: certificate, c.keyFile: key} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(file, changed, changed); err != nil {
				t.Fatal(err)
			}
		}
		c.looked = time.Time{}
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		names[pair.Leaf.Subject.CommonName] = true
	}
	if len(names) != 2 || !names["two.example"] {
		t.Errorf("shown were %v", names)
	}
}

// TestWarningsAreCutBetweenCharacters: a long warning stays UTF-8, and within what API servers take.
func TestWarningsAreCutBetweenCharacters(t *testing.T) {
	for _, letter := range []string{"a", "\u00e4", "\u20ac", "\U0001f642"} {
		for lead := range 4 {
			text := strings.Repeat("x", lead) + strings.Repeat(letter, reviewWarningMax+1)
			got := cutWarning(text)
			if len(got) > reviewWarningMax || len(got) < reviewWarningMax-3 || !utf8.ValidString(got) || !strings.HasSuffix(got, letter+"...") {
				t.Errorf("%q after %d: %d bytes, %q", letter, lead, len(got), got)
			}
		}
	}
	for _, text := range []string{"", "short", strings.Repeat("y", reviewWarningMax)} {
		if got := cutWarning(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}
