//go:build cluster

package clustertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWebhook has the real API server ask the proxy before it takes an Ingress of one namespace: one that cannot be served is
// refused with the reason, one with an annotation that is not taken comes with a warning, and what others may still bring
// is no reason for either.
func TestWebhook(t *testing.T) {
	cluster(t)
	t.Parallel()
	dir := t.TempDir()
	authority := webhookCertificate(t, dir)
	port := freePorts(1)[0]
	p := startProxy(t, "--validating-webhook=127.0.0.1:"+port, "--validating-webhook-certificate="+filepath.Join(dir, "tls.crt"),
		"--validating-webhook-key="+filepath.Join(dir, "tls.key"))
	namespace := newNamespace(t)
	name := "sluice-" + namespace
	apply(t, namespace, fmt.Sprintf(`apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %s}
webhooks:
- name: ingresses.sluice.dev
  rules: [{apiGroups: [networking.k8s.io], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [ingresses]}]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %s}}
  clientConfig: {url: "https://127.0.0.1:%s/networking/v1/ingresses", caBundle: %s}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 5
`, name, namespace, port, base64.StdEncoding.EncodeToString(authority)))
	t.Cleanup(func() { _, _ = tryKubectl("", "delete", "validatingwebhookconfiguration", name, "--wait=false") })

	bad := p.ingress("bad", "  rules:\n"+rule("bad.example", "/", "nobody"))
	bad = strings.Replace(bad, "metadata: {", `metadata: {annotations: {nginx.ingress.kubernetes.io/whitelist-source-range: everybody}, `, 1)
	eventually(t, "the API server asks the webhook, and refuses", func() (bool, string) { // it learns of the webhook a little later
		out, err := tryKubectl(bad, "apply", "-n", namespace, "--dry-run=server", "-f", "-")
		return err != nil && strings.Contains(err.Error(), "whitelist-source-range") && strings.Contains(err.Error(), "denied the request"), out + fmt.Sprint(err)
	})
	warned := strings.Replace(p.ingress("warned", "  rules:\n"+rule("warned.example", "/", "nobody")), "metadata: {",
		`metadata: {annotations: {nginx.ingress.kubernetes.io/http2-push-preload: "true"}, `, 1)
	cmd := exec.Command("kubectl", "apply", "-n", namespace, "-f", "-")
	cmd.Stdin = strings.NewReader(warned)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Warning:") || !strings.Contains(string(out), "http2-push-preload") {
		t.Errorf("an annotation that is refused: %v, %s", err, out)
	}
	p.serves("http://warned.example/", status(503))
	// Both may be of one second, and then the name decides which comes first.
	taken := p.ingress("younger", "  rules:\n"+rule("warned.example", "/", "nobody"))
	if out, err := tryKubectl(taken, "apply", "-n", namespace, "-f", "-"); err == nil || !strings.Contains(err.Error(), "belongs to Ingress "+namespace+"/warned") {
		t.Errorf("a path that is taken: %v, %s", err, out)
	}
}

// webhookCertificate writes a certificate for 127.0.0.1 and its key, and is the authority that the API server trusts.
func webhookCertificate(t *testing.T, dir string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{"tls.crt": certificate, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate
}
