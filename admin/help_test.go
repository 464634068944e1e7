package admin

import (
	"context"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

var started = time.Date(2026, 11, 23, 5, 40, 0, 0, time.UTC)

// open starts a server and answers where it is. It ends with the test.
func open(t *testing.T, o Options, s Sources) (base string) {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	a := New(o, s)
	addr, err := a.Listen(listen.Options{Address: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := a.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return "http://" + addr
}

// get answers status and body.
func get(t *testing.T, url string, header ...string) (int, string) {
	t.Helper()
	res, body := do(t, http.MethodGet, url, "", header...)
	return res.StatusCode, body
}

func do(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

func yes() (bool, string) { return true, "" }

// full are sources in which every series has a value.
func full(t *testing.T) Sources {
	t.Helper()
	loop, err := fastpath.NewLoop(0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { loop.Stop(); loop.Run() })
	log := l7.NewAccessLog(io.Discard, 1)
	t.Cleanup(func() { _ = log.Close() })

	stats := l7.NewStats(1)
	web := l7.NewRouteStats(l7.Identity{Namespace: "shop", Ingress: "web", Service: "front", Port: "80"}, 1)
	webAdmin := l7.NewRouteStats(l7.Identity{Namespace: "shop", Ingress: "web", Service: "front", Port: "8080"}, 1)
	unused := l7.NewRouteStats(l7.Identity{Namespace: "shop", Ingress: "unused", Service: "front", Port: "80"}, 1)
	exchange(stats, web, &l7.Record{Method: wire.MethodGet, Status: 200, Duration: int64(7 * time.Millisecond), RequestBytes: 100, BytesSent: 1000})
	exchange(stats, webAdmin, &l7.Record{Method: wire.MethodGet, Status: 200, Duration: int64(time.Minute), RequestBytes: 10, BytesSent: 50})
	failed := &l7.Record{Method: wire.MethodOther, Status: 502, Duration: int64(2 * time.Second), Err: fastpath.ErrReset}
	failed.AddTry(l7.Try{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Time: -1, Err: fastpath.ErrRefused})
	failed.AddTry(l7.Try{Addr: netip.MustParseAddrPort("10.0.0.2:80"), Time: int64(time.Second), Err: fastpath.ErrReset})
	exchange(stats, web, failed)
	stats.Refused(0, fastpath.KindMalformed)
	exchange(stats, nil, &l7.Record{Status: 400, Err: wire.ErrHost})
	stats.ConnOpened(0)
	stats.ConnOpened(0)
	stats.ExchangeBegan(0)
	stats.ConnOpened(0)
	stats.ExchangeBegan(0)
	stats.TunnelOpened(0)
	stats.ConnClosed(0)

	applies := &Applies{}
	applies.Applied(started.Add(-time.Hour), 30*time.Millisecond, 7)
	applies.Applied(started.Add(-time.Minute), time.Hour, 8)
	return Sources{
		Alive: yes, Ready: yes,
		Loops: []*fastpath.Loop{loop}, Work: fastpath.NewWork(1), HTTP: stats, Log: log, Applies: applies,
		Routes: func() []*l7.RouteStats { return []*l7.RouteStats{web, webAdmin, unused} },
		Problems: func() []route.Problem {
			return []route.Problem{{Object: route.Object{Kind: "Ingress", Namespace: "shop", Name: "web"}, Field: "spec", Reason: "is odd"},
				{Object: route.Object{Kind: "Ingress", Namespace: "shop", Name: "api"}, Reason: "is odd too"},
				{Object: route.Object{Kind: "Secret", Namespace: "shop", Name: "tls"}, Reason: "holds no certificate"}}
		},
		Snapshot: func() any { return map[string]any{"hosts": []string{"shop.example"}} },
		Doors: func() []Door {
			return []Door{{Name: "http", Accepted: 5, Refused: 1}, {Name: "https", Accepted: 7, Refused: 2, NoDescriptor: 1, SourceFull: 4, Full: 3,
				Handshakes: 6, HandshakeErrors: 2, Overload: 1, Passed: 3, PassErrors: 1, Tunnels: 2}}
		},
		Services: func() iter.Seq[*route.BoundService] {
			b := &route.BoundService{Service: &route.Service{Protocol: route.UDP, Port: 53, Namespace: "shop", Service: "dns"}, Stats: new(route.ServiceStats)}
			b.Stats.Begun.Store(9)
			b.Stats.Sent.Store(512)
			return slices.Values([]*route.BoundService{b})
		},
		Clusters: func() []Cluster {
			return []Cluster{{ID: "shop/front:80", Ready: 3, Ejected: 1, Unhealthy: 5, Terminating: 2, Refused: 4, Stats: upstream.Stats{Active: 5,
				Open: 7, Idle: 3, Requests: 100, Reused: 90, Connects: 10, ConnectFailures: 2, Ejections: 1,
				Checks: 20, ChecksFailed: 4}, Overflows: []Overflow{{"requests", 3}}}}
		},
		Sockmap: func() Sockmap { return Sockmap{Wanted: true, Reason: "capability", Repeated: 7} },
		Certificates: func() []Certificate {
			return []Certificate{{Host: "shop.example", Namespace: "shop", Secret: "tls", NotAfter: started.AddDate(0, 3, 0)}, {NotAfter: started.AddDate(1, 0, 0)}}
		},
	}
}

func exchange(s *l7.Stats, route *l7.RouteStats, r *l7.Record) {
	s.ExchangeBegan(0)
	s.Record(0, route, r)
}
