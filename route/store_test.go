package route

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/upstream"
)

func TestEmptyStore(t *testing.T) {
	s := NewStore()
	if s.Load().Generation != 0 || s.Settings() == nil || len(s.Problems()) != 0 || len(s.Load().Stats()) != 0 {
		t.Error("a new store is not empty")
	}
	x := &l7.Exchange{}
	x.Req.Host, x.Req.Path = []byte("shop.example"), []byte("/")
	if s.Route(x) != nil {
		t.Error("a new store has a route")
	}
	if s.ApplyEndpoints("web", addresses("192.0.2.1:80")) != nil {
		t.Error("a new store knows a cluster")
	}
}

func TestStoreRoute(t *testing.T) {
	s := NewStore()
	s.Swap(compiled(t, config(host("shop.example", rules("Prefix", "/cart")...)), nil, newTestEnv()))
	x := &l7.Exchange{}
	x.Req.Host = []byte("shop.example")
	for path, want := range map[string]string{"/cart/1": "0", "/": ""} {
		x.Req.Path = []byte(path)
		if got := led(s.Route(x)); got != want {
			t.Errorf("%s leads to %q, want %q", path, got, want)
		}
	}
}

func TestApplyEndpoints(t *testing.T) {
	e, s := newTestEnv(), NewStore()
	v := host("shop.example", rules("Prefix", "/")...)
	web := service("web")
	s.Swap(compiled(t, &Config{Hosts: []*VirtualHost{v}, Clusters: []*Cluster{web}}, nil, e))
	before := s.Load()
	list := addresses("192.0.2.7:80", "127.0.0.1:1")
	problems := s.ApplyEndpoints("web", list)
	if got := e.of(before, "web").last(); !slices.Equal(got, list) {
		t.Errorf("endpoints %v, want %v", got, list)
	}
	if s.Load() != before {
		t.Error("endpoints made a new Snapshot")
	}
	want := []string{"Service shop/web: endpoint 127.0.0.1:1: may not be dialled"}
	if got := texts(problems); !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
	if got := texts(s.Problems()); !slices.Equal(got, want) {
		t.Errorf("problems of the store %q, want %q", got, want)
	}
	s.ApplyEndpoints("web", list[:1])
	if got := s.Problems(); len(got) != 0 {
		t.Errorf("problems that are no more: %q", texts(got))
	}
}

// The newer word on endpoints wins, whichever way it came.
func TestEndpointsInOrder(t *testing.T) {
	old, new := addresses("192.0.2.1:80"), addresses("192.0.2.2:80")
	with := func(list []upstream.Address) *Config {
		c := service("web")
		c.Endpoints = list
		return &Config{Clusters: []*Cluster{c}, Sequence: NextSequence()}
	}
	for _, test := range []struct {
		name string
		run  func(e *testEnv, s *Store)
		want string // what was applied, in order
	}{
		{"applied while a Config with older endpoints waited", func(e *testEnv, s *Store) {
			s.Swap(compiled(t, with(nil), nil, e))
			c := with(old)
			s.ApplyEndpoints("web", new)
			s.Swap(compiled(t, c, s.Load(), e))
		}, "new"},
		{"applied before the cluster was there", func(e *testEnv, s *Store) {
			next := compiled(t, with(old), nil, e)
			s.ApplyEndpoints("web", new)
			s.Swap(next)
		}, "new"},
		{"a Config after it was applied", func(e *testEnv, s *Store) {
			s.Swap(compiled(t, with(nil), nil, e))
			s.ApplyEndpoints("web", old)
			s.Swap(compiled(t, with(new), s.Load(), e))
		}, "old new"},
		{"a Config that goes back to what it said before", func(e *testEnv, s *Store) {
			c := with(new)
			s.Swap(compiled(t, c, nil, e))
			s.ApplyEndpoints("web", old)
			s.Swap(compiled(t, &Config{Clusters: c.Clusters, Sequence: NextSequence()}, s.Load(), e))
		}, "new old new"},
		{"without a sequence the compile's start counts", func(e *testEnv, s *Store) {
			c := with(old)
			c.Sequence = 0
			next := compiled(t, c, nil, e)
			s.ApplyEndpoints("web", new)
			s.Swap(next)
		}, "new"},
		{"every later Config that is older", func(e *testEnv, s *Store) {
			first, second := with(nil), with(old)
			s.ApplyEndpoints("web", new)
			s.Swap(compiled(t, first, nil, e))
			s.Swap(compiled(t, second, s.Load(), e))
		}, "new"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, s := newTestEnv(), NewStore()
			test.run(e, s)
			var got []string
			for _, list := range e.of(s.Load(), "web").applied {
				got = append(got, map[netip.AddrPort]string{old[0].Addr: "old", new[0].Addr: "new"}[list[0].Addr])
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("endpoints %q, want %q", got, test.want)
			}
		})
	}
}

func TestUnusableSettings(t *testing.T) {
	e, s := newTestEnv(), NewStore()
	web := service("web")
	s.Swap(compiled(t, &Config{Clusters: []*Cluster{web}}, nil, e))
	bad := *web
	bad.Settings.TLS = &upstream.TLS{ServerName: "bad"}
	s.Swap(compiled(t, &Config{Clusters: []*Cluster{&bad}}, s.Load(), e))
	want := []string{"Service shop/web: cluster web: cannot be; requests are answered 503"}
	if got := texts(s.Problems()); !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
}

// A cluster that nobody names any more is closed when the exchanges that have its route are over, not before.
func TestRemovedClusterLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, s := newTestEnv(), NewStore()
		s.Swap(compiled(t, &Config{Clusters: []*Cluster{service("web"), service("api")}}, nil, e))
		web, api := e.of(s.Load(), "web"), e.of(s.Load(), "api")
		s.Swap(compiled(t, &Config{Clusters: []*Cluster{service("web")}}, s.Load(), e))
		time.Sleep(clusterLinger - 1)
		synctest.Wait()
		if api.closes() != 0 {
			t.Error("the cluster was closed at once")
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if api.closes() != 1 || web.closes() != 0 || s.lingering.Load() != 0 {
			t.Errorf("closed %d and %d times, %d linger", api.closes(), web.closes(), s.lingering.Load())
		}
		s.lingering.Store(lingerMax)
		s.Swap(compiled(t, &Config{}, s.Load(), e))
		if web.closes() != 1 {
			t.Error("there is no bound to the clusters that linger")
		}
	})
}

// Readers never wait, and see one Snapshot or the other. Run it with -race.
func TestSwapUnderReaders(t *testing.T) {
	e, s := newTestEnv(), NewStore()
	a := host("shop.example", rules("Prefix", "/", "Exact", "/a")...)
	b := host("shop.example", rules("Exact", "/a", "Prefix", "/")...)
	web := service("web")
	configs := []*Config{{Hosts: []*VirtualHost{a}, Clusters: []*Cluster{web}}, {Hosts: []*VirtualHost{b}, Clusters: []*Cluster{web}}}
	s.Swap(compiled(t, configs[0], nil, e))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			x := &l7.Exchange{}
			x.Req.Host, x.Req.Path = []byte("shop.example"), []byte("/a")
			for {
				select {
				case <-done:
					return
				default:
				}
				if got := led(s.Route(x)); got != "0" && got != "1" {
					t.Errorf("led to %q", got)
					return
				}
				s.Load().Certificate(x.Req.Host)
			}
		})
	}
	readers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				s.ApplyEndpoints("web", addresses("192.0.2.1:80", "192.0.2.2:80")[:1+i%2])
				s.Problems()
				s.Load().Describe()
			}
		}
	})
	for i := range 300 {
		next, _ := Compile(configs[i%2], s.Load(), e.Env)
		s.Swap(next)
	}
	close(done)
	readers.Wait()
}

func TestDescribe(t *testing.T) {
	pair := keyPair(t, "pair", "shop.example")
	v := host("shop.example", rules("Prefix", "/", "Prefix", "/gone", "Prefix", "bad")...)
	v.Certificate = pair
	v.Rules[0].Filters = append(v.Rules[0].Filters, behaviour{name: "a password"})
	v.Rules[1].Cluster = "gone"
	s, _ := Compile(config(v), nil, newTestEnv().Env)
	NewStore().Swap(s)
	text := marshal(t, s.Describe())
	for _, want := range []string{`"path":"/"`, `"state":"serves"`, `"state":"503"`, `"state":"left out"`, `"filters":["behaviour"]`,
		`"secret":"Secret shop/pair"`, `"names":["shop.example"]`, `"endpoints":["192.0.2.1:80"]`, `"type":"Prefix"`, `"generation":1`,
		`cluster gone does not exist`} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	for _, secret := range []string{"a password", "PRIVATE", "BEGIN"} {
		if strings.Contains(text, secret) {
			t.Errorf("%q is in %s", secret, text)
		}
	}
	hosts := 0
	for h := range s.Hosts() {
		hosts += len(h.Name())
	}
	if hosts != len("shop.example") {
		t.Errorf("Hosts yields names of %d bytes", hosts)
	}
}
