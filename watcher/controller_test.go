package watcher

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// fakeSource tells the states that a test gives it.
type fakeSource struct{ states chan *State }

func (f fakeSource) Run(ctx context.Context, apply func(*State)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-f.states:
			apply(s)
		}
	}
}
func (fakeSource) Load() (*State, error) { return &State{}, nil }
func (fakeSource) Rescan()               {}

// fakeTranslator answers by the number of Ingresses: each state of a test has another one.
type fakeTranslator struct {
	answers map[int]answer
	process *translate.Process
}

type answer struct {
	config   *route.Config
	problems []route.Problem
	panics   bool
}

func (f *fakeTranslator) Translate(o *translate.Objects) (*route.Config, []route.Problem) {
	a := f.answers[len(o.Ingresses)]
	if a.panics {
		panic("as asked")
	}
	f.process = &translate.Process{HelloBytesMax: len(o.Ingresses)}
	return a.config, a.problems
}
func (f *fakeTranslator) Process() *translate.Process    { return f.process }
func (f *fakeTranslator) Taken() []*networkingv1.Ingress { return nil }

// gate is a permit that a test holds back.
type gate struct{ entered, pass chan struct{} }

func (g gate) Do(f func()) {
	g.entered <- struct{}{}
	<-g.pass
	f()
}

func (g gate) Rest(time.Duration) {}

// journal keeps what a Controller reports.
type journal struct {
	mu              sync.Mutex
	applied, failed int
	ids             []uint64
	change          chan struct{}
}

func (j *journal) Applied(_ time.Time, took time.Duration, id uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.applied++
	j.ids = append(j.ids, id)
	if took <= 0 {
		panic("no time was taken")
	}
	j.change <- struct{}{}
}

func (j *journal) Followed(time.Duration, bool) {}

func (j *journal) Failed() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.failed++
	j.change <- struct{}{}
}

// desk is a Controller among fakes.
type desk struct {
	*testing.T
	*Controller
	states chan *State
	gate
	journal     *journal
	log         *lockedBuffer
	translators int
}

func newDesk(t *testing.T, answers map[int]answer) *desk {
	d := &desk{T: t, states: make(chan *State), gate: gate{make(chan struct{}, 100), make(chan struct{}, 100)}, log: &lockedBuffer{},
		journal: &journal{change: make(chan struct{}, 100)}}
	d.Controller = NewController(ControllerConfig{
		Source: fakeSource{d.states},
		Translator: func(func()) Translator {
			d.translators++
			return &fakeTranslator{answers: answers}
		},
		Store: route.NewStore(),
		Env: route.Env{Loops: 1, NewCluster: func(id string, s upstream.Settings) *upstream.Cluster {
			return upstream.NewCluster(id, &upstream.Env{}, s)
		}},
		Work:    d.gate,
		Journal: d.journal,
		Log:     slog.New(slog.NewTextHandler(d.log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Controller.Run(ctx) }()
	t.Cleanup(func() {
		close(d.pass)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

// stateOf is a state of n Ingresses.
func stateOf(n int) *State {
	s := &State{Where: func(o route.Object) string {
		if o.Name == "" {
			return ""
		}
		return o.Name + ".yaml, document 1"
	}}
	s.Objects.Ingresses = make([]*networkingv1.Ingress, n)
	return s
}

// give lets the controller put a state in place and waits until it has reported.
func (d *desk) give(s *State) {
	d.Helper()
	d.states <- s
	d.pass <- struct{}{}
	d.reported()
}

func (d *desk) reported() {
	d.Helper()
	select {
	case <-d.journal.change:
	case <-time.After(patience):
		d.Fatal("nothing was reported")
	}
}

// waitPending waits until the state of n Ingresses is the one that is pending.
func (d *desk) waitPending(n int) {
	d.Helper()
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		if s := d.pending.Load(); s != nil && len(s.Objects.Ingresses) == n {
			return
		}
		if time.Now().After(deadline) {
			d.Fatalf("state %d is not pending", n)
		}
	}
}

func (d *desk) generation() uint64 { return d.Store.Load().Generation }

// endpoints are those that the store serves now.
func (d *desk) endpoints() string {
	var list []string
	for _, c := range d.Store.Load().Describe().Clusters {
		list = append(list, c.ID+fmt.Sprint(c.Endpoints))
	}
	return strings.Join(list, " ")
}

func clusterOf(id string, endpoints ...string) *route.Cluster {
	c := &route.Cluster{ID: id, Settings: upstream.Settings{AllowLoopback: true}}
	for _, e := range endpoints {
		c.Endpoints = append(c.Endpoints, upstream.Address{Addr: netip.MustParseAddrPort(e)})
	}
	return c
}

func TestControllerReady(t *testing.T) {
	d := newDesk(t, map[int]answer{1: {config: &route.Config{}}})
	d.states <- stateOf(1)
	select {
	case <-d.Ready():
		t.Fatal("ready before a state was put in place")
	case <-time.After(20 * time.Millisecond):
	}
	d.pass <- struct{}{}
	select {
	case <-d.Ready():
	case <-time.After(patience):
		t.Fatal("not ready after a state was put in place")
	}
	if n := d.Process().HelloBytesMax; n != 1 {
		t.Errorf("the process's settings are those of state %d", n)
	}
}

func TestControllerSkipsAllButTheNewest(t *testing.T) {
	answers := map[int]answer{}
	for n := range 10 {
		answers[n] = answer{config: &route.Config{Clusters: []*route.Cluster{clusterOf(fmt.Sprint(n))}}}
	}
	d := newDesk(t, answers)
	d.states <- stateOf(0)
	<-d.entered
	for n := 1; n < 10; n++ {
		d.states <- stateOf(n)
	}
	d.waitPending(9)
	d.pass <- struct{}{}
	d.reported()
	d.pass <- struct{}{}
	d.reported()
	select {
	case <-d.journal.change:
		t.Error("a state that was not the newest was put in place")
	case <-time.After(20 * time.Millisecond):
	}
	if got := d.endpoints(); got != "9[]" {
		t.Errorf("in place is %s, want the newest", got)
	}
	if n := d.generation(); n != 2 {
		t.Errorf("generation %d, want 2", n)
	}
}

func TestControllerEndpointsAlone(t *testing.T) {
	host := &route.VirtualHost{Name: "a.example"}
	other := clusterOf("b", "127.0.0.1:9")
	config := func(h *route.VirtualHost, endpoints ...string) *route.Config {
		return &route.Config{Hosts: []*route.VirtualHost{h}, Clusters: []*route.Cluster{clusterOf("a", endpoints...), other}}
	}
	settings := config(host, "127.0.0.1:4")
	settings.Settings = l7.DefaultSettings()
	d := newDesk(t, map[int]answer{
		1: {config: config(host, "127.0.0.1:1")},
		2: {config: config(host, "127.0.0.1:2", "127.0.0.1:3")},
		3: {config: config(&route.VirtualHost{Name: "a.example"}, "127.0.0.1:3")},
		4: {config: settings},
		5: {config: &route.Config{Hosts: []*route.VirtualHost{host}, Clusters: []*route.Cluster{clusterOf("a", "127.0.0.1:4")}}},
	})
	for _, step := range []struct {
		state      int
		generation uint64
		endpoints  string
	}{
		{1, 1, "a[127.0.0.1:1] b[127.0.0.1:9]"},
		{2, 1, "a[127.0.0.1:2 127.0.0.1:3] b[127.0.0.1:9]"},
		{1, 1, "a[127.0.0.1:1] b[127.0.0.1:9]"},
		{3, 2, "a[127.0.0.1:3] b[127.0.0.1:9]"}, // what ApplyEndpoints was told before is older
		{4, 3, "a[127.0.0.1:4] b[127.0.0.1:9]"},
		{5, 4, "a[127.0.0.1:4]"},
	} {
		d.give(stateOf(step.state))
		if g, e := d.generation(), d.endpoints(); g != step.generation || e != step.endpoints {
			t.Errorf("state %d: generation %d with %s, want %d with %s", step.state, g, e, step.generation, step.endpoints)
		}
	}
	if !slices.IsSorted(d.journal.ids) || d.journal.applied != 6 || d.journal.failed != 0 {
		t.Errorf("the journal has %d applied, %d failed, ids %v", d.journal.applied, d.journal.failed, d.journal.ids)
	}
}

func TestControllerSurvivesPanic(t *testing.T) {
	d := newDesk(t, map[int]answer{
		1: {config: &route.Config{Clusters: []*route.Cluster{clusterOf("good")}}},
		2: {panics: true},
		3: {config: &route.Config{Clusters: []*route.Cluster{clusterOf("better")}}},
	})
	d.give(stateOf(1))
	d.give(stateOf(2))
	if got := d.endpoints(); got != "good[]" {
		t.Errorf("after a panic %s is served", got)
	}
	d.give(stateOf(3))
	if got := d.endpoints(); got != "better[]" {
		t.Errorf("the state after a panic: %s is served", got)
	}
	if d.journal.failed != 1 || d.translators != 2 {
		t.Errorf("%d failed, %d translators", d.journal.failed, d.translators)
	}
	if log := d.log.String(); !strings.Contains(log, "as asked") || !strings.Contains(log, "served on") {
		t.Errorf("the log does not tell of the panic:\n%s", log)
	}
}

func TestControllerProblems(t *testing.T) {
	problem := func(name, reason string) route.Problem {
		return route.Problem{Object: route.Object{Kind: "Ingress", Namespace: "shop", Name: name}, Field: "spec", Reason: reason}
	}
	d := newDesk(t, map[int]answer{
		1: {config: &route.Config{}, problems: []route.Problem{problem("a", "stays"), problem("b", "goes")}},
		2: {config: &route.Config{}, problems: []route.Problem{problem("a", "stays"), problem("c", "comes")}},
		3: {config: &route.Config{}},
	})
	own := stateOf(1)
	own.Problems = []route.Problem{{Object: route.Object{Kind: "File", Name: "x.yaml"}, Reason: "broken", File: "x.yaml"}}
	d.give(own)
	if list := d.Problems(); len(list) != 3 || list[0].Reason != "broken" || list[1].File != "a.yaml, document 1" {
		t.Errorf("Problems: %v", list)
	}
	d.give(stateOf(2))
	d.give(stateOf(2))
	d.give(stateOf(3))
	d.give(stateOf(3)) // the lines are written after the report
	for line, times := range map[string]int{
		`level=ERROR msg=problem object="File x.yaml" reason=broken file=x.yaml`:                           1,
		`level=INFO msg="problem has gone" object="File x.yaml"`:                                           1,
		`level=WARN msg=problem object="Ingress shop/a" field=spec reason=stays file="a.yaml, document 1"`: 1,
		`level=INFO msg="problem has gone" object="Ingress shop/a" field=spec reason=stays`:                1,
		`level=WARN msg=problem object="Ingress shop/b" field=spec reason=goes`:                            1,
		`level=INFO msg="problem has gone" object="Ingress shop/b" field=spec reason=goes`:                 1,
		`level=WARN msg=problem object="Ingress shop/c" field=spec reason=comes`:                           1,
		`msg="problem has gone"`: 4,
	} {
		if n := strings.Count(d.log.String(), line); n != times {
			t.Errorf("%d lines with %s, want %d", n, line, times)
		}
	}
}

func TestControllerProblemLinesAreBounded(t *testing.T) {
	var many []route.Problem
	for i := range 3 * problemsLoggedMax {
		many = append(many, route.Problem{Object: route.Object{Kind: "Ingress", Name: fmt.Sprint(i)}, Reason: "wrong"})
	}
	d := newDesk(t, map[int]answer{1: {config: &route.Config{}, problems: many}})
	d.give(stateOf(1))
	d.give(stateOf(1))
	log := d.log.String()
	if n := strings.Count(log, "msg=problem"); n != problemsLoggedMax || !strings.Contains(log, fmt.Sprint("more=", 2*problemsLoggedMax)) {
		t.Errorf("%d lines", n)
	}
}
