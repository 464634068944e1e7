package route

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/filter"
)

// The size that the goals are set for.
const (
	manyHosts = 10_000
	manyPaths = 10 // of each
)

// manyRules are the paths of one application, of all types; what they have in common is what real ones have.
var manyRules = []struct {
	path string
	t    PathType
}{
	{"/", Prefix}, {"/api/v1/users", Prefix}, {"/api/v1/orders", Prefix}, {"/api/v2", Prefix}, {"/static/", Implementation},
	{"/healthz", Exact}, {"/login", Exact}, {"/admin/console", Prefix}, {"/docs", Implementation}, {"/metrics", Prefix},
}

func manyName(i int) string { return fmt.Sprintf("app-%d.team-%d.example.com", i, i%97) }

// manyHost is the i-th of many hosts: an Ingress of its own, two Services, two filters that all its rules share.
func manyHost(i int) *VirtualHost {
	name := manyName(i)
	v := &VirtualHost{Name: name, Owner: Object{Kind: "Ingress", Namespace: "team", Name: name}}
	filters := []filter.Config{behaviour{name: "redirect", stage: filter.Rewrite}, behaviour{name: "limit", stage: filter.PreAccess}}
	for j, r := range manyRules {
		service := fmt.Sprintf("%s-%d", name, j%2)
		v.Rules = append(v.Rules, Rule{Owner: v.Owner, Path: r.path, Type: r.t, Cluster: service, Service: service, Port: "http", Filters: filters})
	}
	return v
}

func manyConfig() *Config {
	c := &Config{}
	for i := range manyHosts {
		v := manyHost(i)
		c.Hosts = append(c.Hosts, v)
		for j := range 2 {
			c.Clusters = append(c.Clusters, service(v.Rules[j].Cluster))
		}
	}
	return c
}

// changeOne is the Config after one Ingress changed.
func changeOne(c *Config, i int) *Config {
	next := *c
	next.Hosts = slices.Clone(c.Hosts)
	v := *next.Hosts[i]
	v.Rules = slices.Clone(v.Rules)
	v.Rules[0].Policy.BodyMax++
	next.Hosts[i] = &v
	return &next
}

type request struct{ host, path []byte }

// manyRequests are requests in random order; half of them go on below the rule's path. Their bytes lie in the order in which
// they are asked, as those of a request just read are at hand.
func manyRequests(n int) []request {
	rng := rand.New(rand.NewPCG(1, 2))
	list, text := make([]request, n), make([]byte, 0, n*64)
	view := func(s string) []byte {
		text = append(text, s...)
		return text[len(text)-len(s) : len(text) : len(text)]
	}
	for i := range list {
		path := manyRules[rng.IntN(manyPaths)]
		below := ""
		if path.t != Exact && rng.IntN(2) == 0 {
			below = "/4711"
		}
		list[i] = request{host: view(manyName(rng.IntN(manyHosts))), path: view(path.path + below)}
	}
	return list
}

// BenchmarkRoute looks up host and path of requests that are spread evenly over 100,000 routes of 10,000 hosts.
func BenchmarkRoute(b *testing.B) {
	s := compiled(b, manyConfig(), nil, newTestEnv())
	lookUpMany(b, s, manyRequests(1<<18))
}

// cpuTime is what the process has had of the processor. On a machine that is shared, it tells more than the clock.
func cpuTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// reportCPU adds the processor time of a benchmark's loop, which began at start, collector included.
func reportCPU(b *testing.B, start time.Duration) {
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N), "cpu-ns/op")
}

func lookUpMany(b *testing.B, s *Snapshot, requests []request) {
	b.ReportAllocs()
	missing, start := 0, cpuTime()
	for i := 0; b.Loop(); i++ {
		r := &requests[i&(len(requests)-1)]
		if s.Host(r.host).Match(r.path) == nil {
			missing++
		}
	}
	reportCPU(b, start)
	if missing > 0 {
		b.Errorf("%d requests led nowhere", missing)
	}
}

// BenchmarkRouteRegex is BenchmarkRoute for hosts in regex mode, every path with captures.
func BenchmarkRouteRegex(b *testing.B) {
	c := manyConfig()
	for _, v := range c.Hosts {
		v.RegexMode = true
		for j := range v.Rules {
			if r := &v.Rules[j]; r.Path != "/" {
				r.Path += "(/|$)(.*)"
			}
		}
	}
	s := compiled(b, c, nil, newTestEnv())
	lookUpMany(b, s, manyRequests(1<<18))
}

// BenchmarkHost looks up hosts alone: exact ones, one in four by a wildcard.
func BenchmarkHost(b *testing.B) {
	c := &Config{Hosts: []*VirtualHost{host("*.wild.example")}}
	for i := range manyHosts {
		c.Hosts = append(c.Hosts, host(manyName(i)))
	}
	s := compiled(b, c, nil, newTestEnv())
	requests := manyRequests(1 << 16)
	for i := 0; i < len(requests); i += 4 {
		requests[i].host = []byte("a.wild.example")
	}
	b.ReportAllocs()
	start := cpuTime()
	for i := 0; b.Loop(); i++ {
		if s.Host(requests[i&(len(requests)-1)].host) == s.catchAll {
			b.Fatal("an unknown host")
		}
	}
	reportCPU(b, start)
}

// BenchmarkCompile compiles 100,000 routes of 10,000 hosts from nothing.
func BenchmarkCompile(b *testing.B) {
	c, e := manyConfig(), newTestEnv()
	b.ReportAllocs()
	start := cpuTime()
	for b.Loop() {
		if _, problems := Compile(c, nil, e.Env); len(problems) > 0 {
			b.Fatal(problems[0])
		}
	}
	reportCPU(b, start)
}

// BenchmarkCompileOne compiles and publishes the Config after one of 10,000 hosts changed.
func BenchmarkCompileOne(b *testing.B) {
	c, e, store := manyConfig(), newTestEnv(), NewStore()
	store.Swap(compiled(b, c, nil, e))
	b.ReportAllocs()
	start := cpuTime()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		c = changeOne(c, i%manyHosts)
		b.StartTimer()
		next, _ := Compile(c, store.Load(), e.Env)
		store.Swap(next)
	}
	reportCPU(b, start)
}

// BenchmarkCompileOneCluster is BenchmarkCompileOne when a Service of the Ingress comes or goes, too.
func BenchmarkCompileOneCluster(b *testing.B) {
	c, e, store := manyConfig(), newTestEnv(), NewStore()
	store.Swap(compiled(b, c, nil, e))
	b.ReportAllocs()
	start := cpuTime()
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		c = changeOne(c, i%manyHosts)
		c.Clusters = slices.Clone(c.Clusters)
		if i%2 == 0 {
			c.Clusters = append(c.Clusters, service("new"))
			c.Hosts[i%manyHosts].Rules[0].Cluster = "new"
		} else {
			c.Clusters = c.Clusters[:2*manyHosts]
			c.Hosts[(i-1)%manyHosts] = manyHost((i - 1) % manyHosts)
		}
		b.StartTimer()
		next, problems := Compile(c, store.Load(), e.Env)
		if len(problems) > 0 {
			b.Fatal(problems[0])
		}
		store.Swap(next)
	}
	reportCPU(b, start)
}

// TestGoals guards against gross regressions only: five times the goals, which the benchmarks measure, in processor time.
func TestGoals(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("a plain run is needed")
	}
	c, e := manyConfig(), newTestEnv()
	var s, after *Snapshot
	within(t, 600*time.Millisecond, "compile from nothing", 1, func() { s = compiled(t, c, nil, e) })
	next := changeOne(c, manyHosts/2)
	within(t, 8*time.Millisecond, "compile after one change", 1, func() { after = compiled(t, next, s, e) })
	if after.hosts[manyHosts/2] == s.hosts[manyHosts/2] || after.hosts[0] != s.hosts[0] {
		t.Error("it was not one host that was compiled")
	}
	requests := manyRequests(1 << 16)
	within(t, 150*time.Nanosecond, "a look-up", len(requests), func() {
		for i := range requests {
			if s.Host(requests[i].host).Match(requests[i].path) == nil {
				t.Fatalf("%s%s leads nowhere", requests[i].host, requests[i].path)
			}
		}
	})
}

// within takes the median of 5 runs of f, each of n operations.
func within(t *testing.T, goal time.Duration, what string, n int, f func()) {
	t.Helper()
	var runs []time.Duration
	for range 5 {
		start := cpuTime()
		f()
		runs = append(runs, (cpuTime()-start)/time.Duration(n))
	}
	slices.Sort(runs)
	took := runs[len(runs)/2]
	t.Logf("%s: %v (goal %v)", what, took, goal)
	if took > 5*goal {
		t.Errorf("%s took %v, more than five times its goal of %v", what, took, goal)
	}
}
