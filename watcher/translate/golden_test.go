package translate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

var update = flag.Bool("update", false, "rewrite testdata/*.out.yaml")

// TestGolden translates every testdata/NAME.in.yaml and compares with NAME.out.yaml; `go test -run Golden -update` writes
// the latter. An input is a stream of manifests. Two things in it are only the test's: a document of kind Options holds
// flags, and a Secret's stringData "CERT a.example *.b.example" stands for a certificate of these names.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			options, objects, err := readManifests(text)
			if err != nil {
				t.Fatal(err)
			}
			tr := New(options)
			config, problems := tr.Translate(objects)
			got := render(t, config, tr.Process(), problems)
			out := strings.TrimSuffix(in, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(out, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is now (-update accepts it):\n%s", out, got)
			}
		})
	}
}

// readManifests decodes a stream of documents strictly.
func readManifests(text []byte) (Options, *Objects, error) {
	var options Options
	objects := &Objects{}
	for i, document := range bytes.Split(text, []byte("\n---\n")) {
		var head struct{ Kind string }
		if err := yaml.Unmarshal(document, &head); err != nil {
			return options, nil, fmt.Errorf("document %d: %w", i, err)
		}
		if err := readDocument(head.Kind, document, &options, objects); err != nil {
			return options, nil, fmt.Errorf("document %d: %w", i, err)
		}
	}
	return options, objects, nil
}

func readDocument(kind string, text []byte, options *Options, o *Objects) (err error) {
	switch kind {
	case "": // comments only
	case "Options":
		var with struct {
			Kind string
			Options
		}
		err = yaml.UnmarshalStrict(text, &with)
		*options = with.Options
	case "Ingress":
		err = decodeInto(&o.Ingresses, text)
	case "IngressClass":
		err = decodeInto(&o.IngressClasses, text)
	case "Service":
		err = decodeInto(&o.Services, text)
	case "EndpointSlice":
		err = decodeInto(&o.EndpointSlices, text)
	case "ConfigMap":
		err = decodeInto(&o.ConfigMaps, text)
	case "Secret":
		if err = decodeInto(&o.Secrets, text); err == nil {
			fillSecret(o.Secrets[len(o.Secrets)-1])
		}
	default:
		err = fmt.Errorf("kind %q", kind)
	}
	return err
}

func decodeInto[T any](list *[]*T, text []byte) error {
	object := new(T)
	if err := yaml.UnmarshalStrict(text, object); err != nil {
		return err
	}
	*list = append(*list, object)
	return nil
}

// fillSecret makes data of stringData, and certificates of names.
func fillSecret(s *corev1.Secret) {
	for name, value := range s.StringData {
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		if names, ok := strings.CutPrefix(value, "CERT "); ok {
			certificate, private := testCertificate(strings.Fields(names)...)
			if s.Data[name] = certificate; name == corev1.TLSCertKey {
				s.Data[corev1.TLSPrivateKeyKey] = private
			}
			continue
		}
		s.Data[name] = []byte(value)
	}
	s.StringData = nil
}

// testCertificate is a self-signed one; "CN=name" is a common name.
func testCertificate(names ...string) (chain, private []byte) {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, n := range names {
		if cn, ok := strings.CutPrefix(n, "CN="); ok {
			template.Subject = pkix.Name{CommonName: cn}
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, secret.Public(), secret)
	if err != nil {
		panic(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
}

// The rendered form of a Config leaves out what is at its default, so that a case shows what it is about.
type (
	goldenConfig struct {
		Hosts              []goldenHost      `json:"hosts,omitempty"`
		Clusters           []goldenCluster   `json:"clusters,omitempty"`
		Services           []string          `json:"services,omitempty"`
		DefaultBackend     string            `json:"defaultBackend,omitempty"`
		DefaultCertificate string            `json:"defaultCertificate,omitempty"`
		Settings           map[string]string `json:"settings,omitempty"`
		Process            map[string]string `json:"process,omitempty"`
		Problems           []string          `json:"problems,omitempty"`
	}
	goldenHost struct {
		Name             string       `json:"name"`
		Owner            string       `json:"owner"`
		Certificate      string       `json:"certificate,omitempty"`
		Passthrough      string       `json:"passthrough,omitempty"`
		PassthroughProxy int          `json:"passthroughProxy,omitempty"`
		RegexMode        bool         `json:"regexMode,omitempty"`
		IgnoreSlash      bool         `json:"ignoreSlash,omitempty"`
		Ciphers          string       `json:"ciphers,omitempty"`
		ClientAuth       string       `json:"clientAuth,omitempty"`
		Filters          []string     `json:"filters,omitempty"`
		Rules            []goldenRule `json:"rules,omitempty"`
	}
	goldenRule struct {
		Path     string            `json:"path"`
		Owner    string            `json:"owner"`
		Backend  string            `json:"backend"`
		Cluster  string            `json:"cluster"`
		Canaries []string          `json:"canaries,omitempty"`
		Mirror   string            `json:"mirror,omitempty"`
		Fallback string            `json:"fallback,omitempty"`
		Filters  []string          `json:"filters,omitempty"`
		Policy   map[string]string `json:"policy,omitempty"`
		Slash    map[string]string `json:"slash,omitempty"`
		Deny     string            `json:"deny,omitempty"`
	}
	goldenCluster struct {
		ID        string            `json:"id"`
		Settings  map[string]string `json:"settings,omitempty"`
		Endpoints []string          `json:"endpoints,omitempty"`
	}
)

func render(t testing.TB, c *route.Config, p *Process, problems []route.Problem) []byte {
	t.Helper()
	out := goldenConfig{
		DefaultBackend:     c.DefaultBackend,
		DefaultCertificate: certificateName(c.DefaultCertificate),
		Settings:           differences(*c.Settings, *l7.DefaultSettings()),
		Process:            differences(*p, *DefaultProcess()),
	}
	for _, h := range c.Hosts {
		out.Hosts = append(out.Hosts, renderHost(h))
	}
	for _, cl := range c.Clusters {
		out.Clusters = append(out.Clusters, renderCluster(cl))
	}
	for _, s := range c.Services {
		usual := route.Service{Idle: 600 * time.Second, Tries: 3, RetryWithin: 600 * time.Second, Owner: s.Owner,
			Namespace: s.Namespace, Service: s.Service, To: s.To}
		if s.Protocol == route.UDP {
			usual.Protocol, usual.Responses, usual.SessionsMax = route.UDP, 1, 4096
		}
		usual.Port, usual.Cluster = s.Port, s.Cluster
		text := fmt.Sprintf("%s %d → %s (%s/%s port %s)", s.Protocol, s.Port, s.Cluster, s.Namespace, s.Service, s.To)
		if d := differences(*s, usual); len(d) > 0 {
			text += fmt.Sprintf(" %v", d)
		}
		out.Services = append(out.Services, text)
	}
	for _, p := range problems {
		out.Problems = append(out.Problems, p.String())
	}
	text, err := yaml.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// usualHSTS is on every host unless the ConfigMap says otherwise.
var usualHSTS = filter.HSTS{MaxAge: 31536000 * time.Second, IncludeSubdomains: true}

func renderHost(h *route.VirtualHost) goldenHost {
	out := goldenHost{Name: h.Name, Owner: h.Owner.Namespace + "/" + h.Owner.Name, Certificate: certificateName(h.Certificate),
		Passthrough: h.Passthrough, PassthroughProxy: int(h.PassthroughProxy), Ciphers: h.Ciphers, RegexMode: h.RegexMode, IgnoreSlash: h.IgnoreSlash}
	if a := h.ClientAuth; a != nil {
		out.ClientAuth = fmt.Sprintf("%s/%s: %s, depth %d, revocations %v", a.Owner.Namespace, a.Owner.Name, a.Terms.Mode, a.Terms.Depth, a.Terms.RevocationList != "")
	}
	filters := h.Filters
	if len(filters) > 0 {
		if _, ok := filters[0].(filter.ClientCertificate); ok {
			out.Filters = renderFilters(filters[:1])
			filters = filters[1:]
		}
	}
	if len(filters) > 0 && filters[0] == filter.Config(usualHSTS) {
		filters = filters[1:]
	} else {
		out.Filters = append(out.Filters, "without the usual HSTS")
	}
	out.Filters = append(out.Filters, renderFilters(filters)...)
	for _, r := range h.Rules {
		var canaries []string
		for _, c := range r.Canaries {
			canaries = append(canaries, fmt.Sprintf("%s/%s → %s sticky=%v %+v", c.Owner.Namespace, c.Owner.Name, c.Cluster, c.Sticky, c.When))
		}
		mirror := ""
		if r.Mirror != nil {
			mirror = fmt.Sprintf("%+v", *r.Mirror)
		}
		out.Rules = append(out.Rules, goldenRule{
			Canaries: canaries, Mirror: mirror,
			Path: r.Path + " " + r.Type.String(), Owner: r.Owner.Namespace + "/" + r.Owner.Name,
			Backend: r.Service + ":" + r.Port, Cluster: r.Cluster, Fallback: r.Fallback,
			Filters: renderFilters(r.Filters), Policy: differences(r.Policy, l7.DefaultPolicy()), Slash: differences(r.Slash, route.SlashRedirect{}), Deny: r.Deny,
		})
	}
	return out
}

func renderFilters(list []filter.Config) (out []string) {
	for _, f := range list {
		out = append(out, strings.TrimPrefix(fmt.Sprintf("%T%+v", f, f), "filter."))
	}
	return out
}

func renderCluster(c *route.Cluster) goldenCluster {
	s := c.Settings
	defaults := upstream.Settings{ConnectTimeout: 5 * time.Second, Name: s.Name}
	out := goldenCluster{ID: c.ID, Settings: differences(s, defaults)}
	if s.TLS != nil {
		out.Settings["TLS"] = fmt.Sprintf("verify %v, server name %q, roots %v, certificate %v", s.TLS.Verify, s.TLS.ServerName, s.TLS.RootsPEM != "", s.TLS.CertPEM != "")
		if t := s.TLS; t.Verify || t.MinVersion != 0 || t.Ciphers != "" {
			out.Settings["TLS"] += fmt.Sprintf(", depth %d, versions %x to %x, ciphers %q", t.Depth, t.MinVersion, t.MaxVersion, t.Ciphers)
		}
	}
	if s.Affinity != nil {
		out.Settings["Affinity"] = fmt.Sprintf("%+v", *s.Affinity)
	}
	for _, a := range c.Endpoints {
		text := a.Addr.String()
		if a.Name != "" {
			text = fmt.Sprintf("%s port %d", a.Name, a.Port)
		}
		if a.Terminating {
			text += " terminating"
		}
		if a.Pod {
			text += " pod"
		}
		out.Endpoints = append(out.Endpoints, text)
	}
	return out
}

func certificateName(c *route.Certificate) string {
	if c == nil {
		return ""
	}
	return c.Owner.Namespace + "/" + c.Owner.Name
}

// differences are the members of a struct that are not as in another one.
func differences[T any](a, b T) map[string]string {
	out := map[string]string{}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	for i := range x.NumField() {
		v := x.Field(i).Interface()
		if reflect.DeepEqual(v, y.Field(i).Interface()) {
			continue
		}
		if text, ok := v.([]byte); ok {
			v = string(text)
		}
		out[x.Type().Field(i).Name] = fmt.Sprintf("%+v", v)
	}
	return out
}
