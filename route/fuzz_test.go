package route

import (
	"strconv"
	"testing"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// script reads decisions from a fuzzer's bytes; after their end all are 0.
type script struct{ b []byte }

func (s *script) pick(n int) int {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return int(c) % n
}

func pickOf[T any](s *script, list []T) T { return list[s.pick(len(list))] }

// materials are what FuzzConfig builds Configs of. Pointers recur, as they do between the Configs of a source.
type materials struct {
	hosts        []*VirtualHost
	clusters     []*Cluster
	certificates []*Certificate
}

var (
	fuzzNames = []string{"", "a.example", "*.example", "b.a.example", "A", "*", "a..b", "*.", "x_y.test", "-", "good.example"}
	fuzzPaths = []string{"/", "/a", "/a/", "/a/b", "/ab", "", "a", "/a//", "/(", "/[a-z]+", "/a(/|$)(.*)", "/\x00", "/A", "/a|b", "/\xff"}
	fuzzIDs   = []string{"web", "api", "spare", "", "gone"}
)

func (m *materials) host(s *script) *VirtualHost {
	if n := len(m.hosts); n > 0 && s.pick(3) > 0 {
		return m.hosts[s.pick(n)]
	}
	v := &VirtualHost{Name: pickOf(s, fuzzNames), Owner: shop, RegexMode: s.pick(4) == 1, Filters: fuzzFilters(s), Certificate: pickOf(s, m.certificates)}
	if s.pick(5) == 1 {
		v.Passthrough = pickOf(s, fuzzIDs)
	}
	for range s.pick(6) {
		r := Rule{Owner: Object{Kind: "Ingress", Name: strconv.Itoa(s.pick(3))}, Path: pickOf(s, fuzzPaths), Type: PathType(s.pick(4)),
			Cluster: pickOf(s, fuzzIDs), Fallback: pickOf(s, []string{"", "", "spare", "gone"}), Service: strconv.Itoa(len(v.Rules)), Filters: fuzzFilters(s)}
		if s.pick(8) == 1 {
			r.Deny = "denied"
		}
		v.Rules = append(v.Rules, r)
	}
	m.hosts = append(m.hosts, v)
	return v
}

func fuzzFilters(s *script) []filter.Config {
	return pickOf(s, [][]filter.Config{nil, nil, {behaviour{name: "f", stage: filter.Body}, behaviour{name: "g"}}, {nil},
		{behaviour{name: "p", panics: true}}, {behaviour{err: errBehaviour}}, {(*behaviour)(nil)}, {behaviour{name: "s", stage: 200, response: true}}})
}

func (m *materials) config(s *script, good *VirtualHost) *Config {
	c := &Config{Hosts: []*VirtualHost{good}, DefaultCertificate: pickOf(s, m.certificates), DefaultBackend: pickOf(s, []string{"", "web", "gone"})}
	for range s.pick(6) {
		c.Hosts = append(c.Hosts, m.host(s))
	}
	if s.pick(9) == 1 {
		c.Hosts = append(c.Hosts, nil)
	}
	c.Clusters = []*Cluster{m.clusters[0]}
	for range s.pick(5) {
		c.Clusters = append(c.Clusters, m.clusters[s.pick(len(m.clusters))])
	}
	return c
}

// asked is what a snapshot answers to many requests.
func asked(s *Snapshot) (answers []string) {
	for _, name := range append(fuzzNames, "x.example", "other.test") {
		h := s.Host([]byte(name))
		line := name + " is " + h.Name() + " " + strconv.FormatBool(h.Passthrough != nil) + " " + shown(s.Certificate([]byte(name)))
		for _, path := range append(fuzzPaths, "/b", "/a/b/c", "/abc", "*") {
			line += " " + path + ">" + lookedUp(h, path)
		}
		answers = append(answers, line)
	}
	return answers
}

func lookedUp(h *Host, path string) string {
	r := h.Match([]byte(path))
	if r == nil {
		return "404"
	}
	return led(r) + r.ID.Path + strconv.FormatBool(r.Cluster != nil) + strconv.FormatBool(r.Fallback != nil) +
		strconv.Itoa(len(r.Request)) + strconv.Itoa(len(r.Response))
}

// FuzzConfig feeds one Store with arbitrary Configs in a row. Nothing panics; what is good is served whatever stands beside
// it, on the same Host and cluster throughout; a Snapshot made from the one before answers like one made from nothing,
// with the same Problems; and the one before goes on answering as it did.
func FuzzConfig(f *testing.F) {
	pair, broken := keyPair(f, "pair", "a.example"), &Certificate{Owner: Object{Kind: "Secret", Name: "broken"}, CertPEM: []byte("-")}
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30})
	f.Add([]byte("the quick brown fox jumps over the lazy dog, and the lazy dog does not care at all about the quick brown fox"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, e, store := &script{b}, newTestEnv(), NewStore()
		good := host("good.example", rules("Prefix", "/", "Exact", "/a")...)
		m := &materials{certificates: []*Certificate{nil, pair, broken}}
		m.clusters = []*Cluster{service("web"), service("api"), service("spare"), nil, {Owner: shop}, service("web"), service("api")}
		var first *Host
		for range 4 {
			c, before := m.config(s, good), store.Load()
			answers := asked(before)
			next, problems := Compile(c, before, e.Env)
			same(t, "the Snapshot before", asked(before), answers)
			fresh, freshProblems := Compile(c, nil, newTestEnv().Env)
			same(t, "a Snapshot from nothing", asked(next), asked(fresh))
			same(t, "its problems", texts(problems), texts(freshProblems))
			store.Swap(next)
			h := next.Host([]byte("good.example"))
			if first == nil {
				first = h
			}
			if got := led(h.Match([]byte("/a"))); got != "1" || h.routes[1] != first.routes[1] {
				t.Fatalf("the good host leads to %q", got)
			}
			next.Describe()
		}
	})
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d lines, want %d: %q, want %q", what, len(got), len(want), got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: %q, want %q", what, got[i], want[i])
		}
	}
}
