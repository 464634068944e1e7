package route

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/upstream"
)

// testEnv listens to what happens to clusters.
type testEnv struct {
	Env
	mu       sync.Mutex
	clusters map[*upstream.Cluster]*recordedCluster
	made     int
}

// recordedCluster is a clusterControl that remembers.
type recordedCluster struct {
	mu       sync.Mutex
	settings []upstream.Settings
	applied  [][]upstream.Address
	closed   int
	refused  []upstream.Refusal
}

var upstreamEnv = &upstream.Env{}

func newTestEnv() *testEnv {
	e := &testEnv{clusters: map[*upstream.Cluster]*recordedCluster{}}
	e.Env = Env{
		Loops:      2,
		NewCluster: func(id string, s upstream.Settings) *upstream.Cluster { return upstream.NewCluster(id, upstreamEnv, s) },
		SelfSigned: &tls.Certificate{},
		Now:        func() time.Time { return time.Unix(1_700_000_000, 0) },
		control: func(c *upstream.Cluster) clusterControl {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.made++
			e.clusters[c] = &recordedCluster{}
			return e.clusters[c]
		},
	}
	return e
}

// of answers the recorder of a snapshot's cluster.
func (e *testEnv) of(s *Snapshot, id string) *recordedCluster {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.clusters[s.clusters[id].live.upstream]
}

func (r *recordedCluster) SetSettings(s upstream.Settings) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settings = append(r.settings, s)
}

// Problem finds fault with a server name.
func (r *recordedCluster) Problem() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.settings); n > 0 && r.settings[n-1].TLS != nil && r.settings[n-1].TLS.ServerName == "bad" {
		return errBehaviour
	}
	return nil
}

// Apply refuses port 1.
func (r *recordedCluster) Apply(list []upstream.Address) []upstream.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied, r.refused = append(r.applied, list), nil
	for _, a := range list {
		if a.Addr.Port() == 1 {
			r.refused = append(r.refused, upstream.Refusal{Address: a, Reason: "may not be dialled"})
		}
	}
	return r.refused
}

func (r *recordedCluster) Refusals() []upstream.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused
}

func (r *recordedCluster) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
}

func (r *recordedCluster) closes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

func (r *recordedCluster) last() []upstream.Address {
	if len(r.applied) == 0 {
		return nil
	}
	return r.applied[len(r.applied)-1]
}

func addresses(texts ...string) (list []upstream.Address) {
	for _, t := range texts {
		list = append(list, upstream.Address{Addr: netip.MustParseAddrPort(t)})
	}
	return list
}

// shop is an Ingress, and service a cluster with one endpoint.
var shop = Object{Kind: "Ingress", Namespace: "shop", Name: "web"}

func service(id string) *Cluster {
	return &Cluster{ID: id, Owner: Object{Kind: "Service", Namespace: "shop", Name: id}, Endpoints: addresses("192.0.2.1:80")}
}

// rules reads "Type path" pairs; a rule's service is its number.
func rules(pairs ...string) (list []Rule) {
	for i := 0; i < len(pairs); i += 2 {
		t := slices.Index([]string{"Exact", "Prefix", "Impl"}, pairs[i])
		if t < 0 {
			panic("path type " + pairs[i])
		}
		list = append(list, Rule{Owner: shop, Type: PathType(t), Path: pairs[i+1], Cluster: "web", Service: strconv.Itoa(i / 2)})
	}
	return list
}

func host(name string, list ...Rule) *VirtualHost {
	return &VirtualHost{Name: name, Owner: shop, Rules: list}
}

func config(hosts ...*VirtualHost) *Config {
	return &Config{Hosts: hosts, Clusters: []*Cluster{service("web")}}
}

// compiled compiles without Problems.
func compiled(t testing.TB, c *Config, previous *Snapshot, e *testEnv) *Snapshot {
	t.Helper()
	s, problems := Compile(c, previous, e.Env)
	for _, p := range problems {
		t.Errorf("unexpected problem: %s", p)
	}
	return s
}

// led tells where a request is led: the number of the rule, "301 <path>", "503", or "" for nowhere.
func led(r *l7.Route) string {
	if r == nil {
		return ""
	}
	if n := len(r.Request); n > 0 {
		switch f := r.Request[n-1].(type) {
		case addSlash:
			return "301 " + string(f.path)
		case answer:
			return strconv.Itoa(int(f))
		}
	}
	return r.ID.Service
}

// texts are Problems as text.
func texts(problems []Problem) (list []string) {
	for _, p := range problems {
		list = append(list, p.String())
	}
	return list
}

// behaviour is a filter.Config by name.
type behaviour struct {
	name     string
	stage    filter.Stage
	response bool // has only a response half
	err      error
	panics   bool
}

func (b behaviour) Stage() filter.Stage { return b.stage }

func (b behaviour) Compile(s *filter.State) (l7.Filter, error) {
	if b.panics {
		panic("a defect of " + b.name)
	}
	if b.err != nil {
		return l7.Filter{}, b.err
	}
	f := named{name: b.name, state: s.Get(b.name, func() any { return new(int) }).(*int)}
	if b.response {
		return l7.Filter{Response: f}, nil
	}
	return l7.Filter{Request: f, Response: f}, nil
}

type named struct {
	name  string
	state *int
}

func (named) Request(*l7.Exchange) l7.Verdict { return l7.Continue }
func (named) Response(*l7.Exchange)           {}

// requests and responses name the filters of a route in order.
func requests(r *l7.Route) (names []string) {
	for _, f := range r.Request {
		if n, ok := f.(named); ok {
			names = append(names, n.name)
		} else {
			names = append(names, led(&l7.Route{Request: []l7.RequestFilter{f}}))
		}
	}
	return names
}

func responses(r *l7.Route) (names []string) {
	for _, f := range r.Response {
		names = append(names, f.(named).name)
	}
	return names
}

// fieldError names its field.
type fieldError struct{ field string }

func (fieldError) Error() string   { return "is not what it should be" }
func (e fieldError) Field() string { return e.field }

var errBehaviour = errors.New("cannot be")

// keyPair makes a self-signed certificate for names.
func keyPair(t testing.TB, secret string, names ...string) *Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: secret}, DNSNames: names,
		NotBefore: time.Unix(1_600_000_000, 0), NotAfter: time.Unix(4_000_000_000, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &Certificate{
		Owner:   Object{Kind: "Secret", Namespace: "shop", Name: secret},
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	}
}

// shown names a certificate by its secret.
func shown(c *tls.Certificate) string {
	if c == nil {
		return "none"
	}
	if c.Leaf == nil {
		return "self-signed"
	}
	return c.Leaf.Subject.CommonName
}
