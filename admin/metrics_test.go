package admin

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
)

var update = flag.Bool("update", false, "rewrite the golden file")

// scrapeOf reads /metrics as a scraper does: it must be valid, and of a page that is complete.
func scrapeOf(t *testing.T, o Options, s Sources) map[string]*dto.MetricFamily {
	t.Helper()
	o.Now = func() time.Time { return started }
	status, body := get(t, open(t, o, s)+"/metrics")
	if status != 200 {
		t.Fatalf("status is %d: %s", status, body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(body))
	if err != nil {
		t.Fatalf("%v in\n%s", err, body)
	}
	return families
}

// series shows a family's values by their labels: `{a="b"} 1`; of a histogram count and sum.
func series(f *dto.MetricFamily) []string {
	var list []string
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.GetLabel() {
			if l.GetValue() != "" {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
		}
		value := ""
		switch {
		case m.Histogram != nil:
			value = fmt.Sprintf("%d %v", m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum())
		case m.Counter != nil:
			value = fmt.Sprint(m.Counter.GetValue())
		default:
			value = fmt.Sprint(m.Gauge.GetValue())
		}
		list = append(list, "{"+strings.Join(labels, ",")+"} "+value)
	}
	slices.Sort(list)
	return list
}

// TestMetricNames holds the contract with operators: a name or a help text changes only together with the golden file,
// and every name that is made has a value in sources that have everything.
func TestMetricNames(t *testing.T) {
	var lines []string
	for _, own := range []bool{false, true} {
		for name, f := range scrapeOf(t, Options{OwnNames: own}, full(t)) {
			if strings.HasPrefix(name, ownPrefix) || strings.HasPrefix(name, nginxPrefix) {
				lines = append(lines, fmt.Sprintf("%s %s %s", name, strings.ToLower(f.GetType().String()), f.GetHelp()))
			}
		}
		for _, d := range newMetrics(own, nil).all {
			name, _, _ := strings.Cut(strings.TrimPrefix(d.String(), `Desc{fqName: "`), `"`)
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+" ") }) {
				t.Errorf("%s never has a value", name)
			}
		}
	}
	slices.Sort(lines)
	got := strings.Join(slices.Compact(lines), "\n") + "\n"
	const golden = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("names, types or help texts changed. Dashboards and alerts depend on them; if that is meant, go test ./admin -update rewrites %s:\n%s", golden, got)
	}
}

func TestMetricValues(t *testing.T) {
	controller := Controller{Class: "k8s.io/ingress-nginx", Namespace: "ingress", Pod: "sluice-1"}
	const who = `controller_class="k8s.io/ingress-nginx",controller_namespace="ingress",controller_pod="sluice-1"`
	const web, webRoute = who + `,ingress="web",namespace="shop",service="front"`, who + `,ingress="web",`
	nginx := scrapeOf(t, Options{Controller: controller, Version: "v1"}, full(t))
	own := scrapeOf(t, Options{Controller: controller, OwnNames: true}, full(t))
	for _, c := range []struct {
		from map[string]*dto.MetricFamily
		name string
		want []string
	}{
		// both ports of the Service in one series: ingress-nginx's labels cannot tell them apart
		{nginx, "nginx_ingress_controller_requests", []string{`{` + webRoute + `method="GET",namespace="shop",service="front",status="200"} 2`,
			`{` + webRoute + `method="OTHER",namespace="shop",service="front",status="502"} 1`, `{` + who + `,method="OTHER",status="400"} 1`}},
		{nginx, "nginx_ingress_controller_request_duration_seconds", []string{`{` + web + `} 3 62.007`, `{` + who + `} 1 0`}},
		{nginx, "nginx_ingress_controller_response_duration_seconds", []string{`{` + web + `} 1 1`, `{` + who + `} 0 0`}},
		{nginx, "nginx_ingress_controller_request_size", []string{`{` + web + `} 3 110`, `{` + who + `} 1 0`}},
		{nginx, "nginx_ingress_controller_bytes_sent", []string{`{` + web + `} 3 1050`, `{` + who + `} 1 0`}},
		{nginx, "nginx_ingress_controller_config_last_reload_successful", []string{`{` + who + `} 1`}},
		{nginx, "nginx_ingress_controller_config_hash", []string{`{` + who + `} 8`}},
		{nginx, "nginx_ingress_controller_success", []string{`{` + who + `} 2`}},
		{nginx, "nginx_ingress_controller_ssl_expire_time_seconds", []string{
			`{class="k8s.io/ingress-nginx",host="shop.example",namespace="ingress",secret_name="tls"} 1.8033612e+09`,
			`{class="k8s.io/ingress-nginx",namespace="ingress"} 1.8269484e+09`}},
		{nginx, "nginx_ingress_controller_nginx_process_connections", []string{`{` + who + `,state="active"} 5`,
			`{` + who + `,state="waiting"} 1`, `{` + who + `,state="writing"} 2`}},
		{nginx, "nginx_ingress_controller_nginx_process_connections_total", []string{`{` + who + `,state="accepted"} 12`,
			`{` + who + `,state="handled"} 5`}},

		{own, "sluice_requests_total", []string{`{ingress="web",method="GET",namespace="shop",port="80",service="front",status="200"} 1`,
			`{ingress="web",method="GET",namespace="shop",port="8080",service="front",status="200"} 1`,
			`{ingress="web",method="OTHER",namespace="shop",port="80",service="front",status="502"} 1`, `{method="OTHER",status="400"} 1`}},
		{own, "sluice_backend_errors_total", []string{`{ingress="web",kind="refused",namespace="shop",port="80",service="front"} 1`,
			`{ingress="web",kind="reset",namespace="shop",port="80",service="front"} 1`}},
		{own, "sluice_retries_total", []string{`{ingress="web",namespace="shop",port="80",service="front"} 1`,
			`{ingress="web",namespace="shop",port="8080",service="front"} 0`, `{} 0`}},
		{own, "sluice_certificate_expiry_timestamp_seconds", []string{
			`{host="shop.example",namespace="shop",secret="tls"} 1.8033612e+09`, `{} 1.8269484e+09`}},
		{own, "sluice_sockmap_available", []string{`{reason="capability"} 0`}},
		{own, "sluice_sockmap_released_total", []string{`{reason="gone"} 0`, `{reason="limit"} 0`, `{reason="lost"} 0`, `{reason="refused"} 0`}},
		{own, "sluice_sockmap_repeated_bytes_total", []string{`{} 7`}},
		{own, "sluice_door_source_full_total", []string{`{door="http"} 0`, `{door="https"} 4`}},
		{own, "sluice_door_pauses_total", []string{`{door="http"} 0`, `{door="https"} 3`}},
		{own, "sluice_refused_requests_total", []string{`{kind="malformed"} 1`}},
		{own, "sluice_request_errors_total", []string{`{fault="client",kind="malformed"} 1`, `{fault="client",kind="reset"} 1`}},
		{own, "sluice_exchanges_active", []string{`{} 2`}},
		{own, "sluice_client_connections", []string{`{} 2`}},
		{own, "sluice_tunnels_active", []string{`{} 1`}},
		{own, "sluice_snapshot_age_seconds", []string{`{} 60`}},
		{own, "sluice_apply_duration_seconds", []string{`{} 2 3600.03`}},
		{own, "sluice_problems", []string{`{kind="Ingress"} 2`, `{kind="Secret"} 1`}},
		{own, "sluice_endpoints", []string{`{cluster="shop/front:80",state="ejected"} 1`, `{cluster="shop/front:80",state="ready"} 3`,
			`{cluster="shop/front:80",state="refused"} 4`, `{cluster="shop/front:80",state="terminating"} 2`,
			`{cluster="shop/front:80",state="unhealthy"} 5`}},
		{own, "sluice_circuit_breaker_refusals_total", []string{`{cluster="shop/front:80",limit="requests"} 3`}},
		{own, "sluice_health_checks_total", []string{`{cluster="shop/front:80",result="bad"} 4`, `{cluster="shop/front:80",result="good"} 16`}},
		{own, "sluice_backend_connections", []string{`{cluster="shop/front:80",state="busy"} 4`, `{cluster="shop/front:80",state="idle"} 3`}},
	} {
		if got := series(c.from[c.name]); !slices.Equal(got, c.want) {
			t.Errorf("%s\ngot  %q\nwant %q", c.name, got, c.want)
		}
	}
	for name := range own {
		if strings.HasPrefix(name, nginxPrefix) {
			t.Errorf("%s is shown beside our own names", name)
		}
	}
}

func TestTimeBucketsAreCumulative(t *testing.T) {
	f := scrapeOf(t, Options{}, full(t))["nginx_ingress_controller_request_duration_seconds"]
	for _, m := range f.GetMetric() {
		if len(m.GetLabel()) > 0 && m.Histogram.GetSampleCount() == 3 {
			var got []string
			for _, b := range m.Histogram.GetBucket() {
				got = append(got, fmt.Sprintf("%v:%d", b.GetUpperBound(), b.GetCumulativeCount()))
			}
			const want = "0.005:0 0.01:1 0.025:1 0.05:1 0.1:1 0.25:1 0.5:1 1:1 2.5:2 5:2 10:2 +Inf:3"
			if s := strings.Join(got, " "); s != want {
				t.Errorf("buckets are %s, want %s", s, want)
			}
			return
		}
	}
	t.Error("no histogram of three requests")
}

// TestBuckets shows each histogram by the bounds that were asked for.
func TestBuckets(t *testing.T) {
	r := l7.NewRouteStats(l7.Identity{Namespace: "shop", Ingress: "web", Service: "front", Port: "80"}, 1)
	r.SetBuckets(l7.NewBuckets([]float64{0.3, 1.1}, []float64{10, 100}, []float64{1000}))
	record := &l7.Record{Status: 200, Duration: int64(time.Second), RequestBytes: 11, BytesSent: 1001}
	record.AddTry(l7.Try{Time: int64(time.Minute)})
	r.Record(0, record)
	families := scrapeOf(t, Options{}, Sources{Routes: func() []*l7.RouteStats { return []*l7.RouteStats{r} }})
	for name, want := range map[string]string{
		"request_duration_seconds": "0.3:0 1.1:1 +Inf:1", "response_duration_seconds": "0.3:0 1.1:0 +Inf:1",
		"request_size": "10:0 100:1 +Inf:1", "response_size": "10:0 100:0 +Inf:1", "bytes_sent": "1000:0 +Inf:1",
	} {
		f := families[nginxPrefix+name]
		if len(f.GetMetric()) != 1 {
			t.Errorf("%s has %d series", name, len(f.GetMetric()))
			continue
		}
		var got []string
		for _, b := range f.GetMetric()[0].Histogram.GetBucket() {
			got = append(got, fmt.Sprintf("%v:%d", b.GetUpperBound(), b.GetCumulativeCount()))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s has the buckets %s, want %s", name, s, want)
		}
	}
}

// TestStatusClasses: requests whose statuses are of one class are one series.
func TestStatusClasses(t *testing.T) {
	s := full(t)
	exchange(s.HTTP, s.Routes()[0], &l7.Record{Method: wire.MethodGet, Status: 204})
	for own, want := range map[bool][]string{
		false: {`{ingress="web",method="GET",namespace="shop",service="front",status="2xx"} 3`,
			`{ingress="web",method="OTHER",namespace="shop",service="front",status="5xx"} 1`, `{method="OTHER",status="4xx"} 1`},
		true: {`{ingress="web",method="GET",namespace="shop",port="80",service="front",status="2xx"} 2`,
			`{ingress="web",method="GET",namespace="shop",port="8080",service="front",status="2xx"} 1`,
			`{ingress="web",method="OTHER",namespace="shop",port="80",service="front",status="5xx"} 1`, `{method="OTHER",status="4xx"} 1`},
	} {
		name := map[bool]string{false: nginxPrefix + "requests", true: ownPrefix + "requests_total"}[own]
		if got := series(scrapeOf(t, Options{StatusClasses: true, OwnNames: own}, s)[name]); !slices.Equal(got, want) {
			t.Errorf("%s\ngot  %q\nwant %q", name, got, want)
		}
	}
}

// TestExcludedMetrics leaves out each metric that can be left out, and no other one.
func TestExcludedMetrics(t *testing.T) {
	own := map[string]string{"requests": "requests_total", "request_duration_seconds": "request_duration_seconds",
		"response_duration_seconds": "response_duration_seconds", "request_size": "request_bytes_total", "bytes_sent": "response_bytes_total"}
	all, allOwn := scrapeOf(t, Options{}, full(t)), scrapeOf(t, Options{OwnNames: true}, full(t))
	for name, shown := range routeMetrics {
		if short, known := RouteMetric(nginxPrefix + name); short != name || !known {
			t.Errorf("%s is not known with its prefix", name)
		}
		gone := 0
		if shown != nil {
			gone = 1
		}
		left := scrapeOf(t, Options{Excluded: []string{name, name}}, full(t))
		if left[nginxPrefix+name] != nil || len(left) != len(all)-gone {
			t.Errorf("without %s there are %d metrics of %d", name, len(left), len(all))
		}
		gone = 0
		if own[name] != "" {
			gone = 1
		}
		left = scrapeOf(t, Options{Excluded: []string{name}, OwnNames: true}, full(t))
		if left[ownPrefix+own[name]] != nil || len(left) != len(allOwn)-gone {
			t.Errorf("without %s there are %d metrics of %d of our own names", name, len(left), len(allOwn))
		}
	}
	for _, name := range []string{"success", "", nginxPrefix} {
		if _, known := RouteMetric(name); known {
			t.Errorf("%q can be left out", name)
		}
	}
}

// TestMetricsOff: there is no such page, in the index neither; all others stay.
func TestMetricsOff(t *testing.T) {
	base := open(t, Options{NoMetrics: true}, full(t))
	for path, want := range map[string]int{"/metrics": 404, "/": 200, "/healthz": 200, "/readyz": 200, "/debug/problems": 200} {
		status, body := get(t, base+path)
		if status != want || strings.Contains(body, "/metrics") {
			t.Errorf("%s answers %d, want %d: %s", path, status, want, body)
		}
	}
}

// TestScrapeOfNothing: what a process shows that has just begun, or that was told nothing at all.
func TestScrapeOfNothing(t *testing.T) {
	for name, s := range map[string]Sources{"no sources": {}, "no loops": {HTTP: l7.NewStats(0), Applies: &Applies{}}} {
		t.Run(name, func(t *testing.T) {
			families := scrapeOf(t, Options{}, s)
			if families["sluice_build_info"] == nil || families["go_goroutines"] == nil || families["process_open_fds"] == nil {
				t.Error("no build info, or nothing of the runtime and the process")
			}
			if f := families["sluice_snapshot_age_seconds"]; f != nil {
				t.Errorf("a snapshot that is not there has an age: %v", series(f))
			}
			if f := families["nginx_ingress_controller_config_last_reload_successful"]; f != nil && series(f)[0] != "{} 0" {
				t.Errorf("a reload that was not is successful: %v", series(f))
			}
		})
	}
}

// TestBadLabelCostsItsSeries: a name that is not UTF-8 must not hide everything else.
func TestBadLabelCostsItsSeries(t *testing.T) {
	s := full(t)
	s.Problems = func() []route.Problem { return []route.Problem{{Object: route.Object{Kind: "\xff"}}} }
	families := scrapeOf(t, Options{}, s)
	if families["sluice_problems"] != nil || families["sluice_exchanges_active"] == nil {
		t.Errorf("%d families are shown", len(families))
	}
}

// TestApplyFails and succeeds again: what failed does not replace what is in place.
func TestApplyFails(t *testing.T) {
	s := full(t)
	for _, c := range []struct {
		do   func()
		want map[string]string
	}{
		{s.Applies.Failed, map[string]string{"nginx_ingress_controller_config_last_reload_successful": "{} 0",
			"nginx_ingress_controller_errors": "{} 1", "nginx_ingress_controller_success": "{} 2",
			"nginx_ingress_controller_config_hash": "{} 8", "sluice_snapshot_age_seconds": "{} 60"}},
		{func() { s.Applies.Applied(started, time.Second, 9) }, map[string]string{
			"nginx_ingress_controller_config_last_reload_successful": "{} 1", "nginx_ingress_controller_errors": "{} 1",
			"nginx_ingress_controller_success": "{} 3", "nginx_ingress_controller_config_hash": "{} 9", "sluice_snapshot_age_seconds": "{} 0"}},
	} {
		c.do()
		families := scrapeOf(t, Options{}, s)
		for name, want := range c.want {
			if got := series(families[name]); len(got) != 1 || got[0] != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
}

func TestMethodNames(t *testing.T) {
	for m, want := range map[wire.Method]string{wire.MethodGet: "GET", wire.MethodConnect: "CONNECT", wire.MethodOther: "OTHER", 200: "OTHER"} {
		if got := methodName(m); got != want {
			t.Errorf("method %d is %s, want %s", m, got, want)
		}
	}
}

// TestScrapeBesideTraffic scrapes while a loop counts; it is for the race detector, and holds that counters never fall.
func TestScrapeBesideTraffic(t *testing.T) {
	s := full(t)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		r := s.Routes()[0]
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				s.HTTP.ExchangeBegan(0)
				s.HTTP.Record(0, r, &l7.Record{Method: wire.Method(i % 10), Status: 100 + i%500, Duration: int64(i), RequestBytes: 1, BytesSent: 1})
			}
		}
	}()
	base := open(t, Options{}, s)
	last := -1.0
	for range 5 {
		_, body := get(t, base+"/metrics")
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		n := families["sluice_exchanges_total"].GetMetric()[0].GetCounter().GetValue()
		if n < last {
			t.Errorf("exchanges fell from %v to %v", last, n)
		}
		last = n
	}
	close(stop)
	<-done
}

// BenchmarkScrape is a scrape of 10,000 Ingresses that all have traffic.
func BenchmarkScrape(b *testing.B) {
	stats := l7.NewStats(2)
	var routes []*l7.RouteStats
	for i := range 10_000 {
		r := l7.NewRouteStats(l7.Identity{Namespace: fmt.Sprint("team-", i%100), Ingress: fmt.Sprint("web-", i), Service: "front", Port: "80"}, 2)
		for loop := range 2 {
			r.Record(loop, &l7.Record{Method: wire.MethodGet, Status: 200, Duration: 1e6})
			r.Record(loop, &l7.Record{Method: wire.MethodPost, Status: 404, Duration: 1e7})
		}
		routes = append(routes, r)
	}
	a := New(Options{}, Sources{HTTP: stats, Routes: func() []*l7.RouteStats { return routes }})
	addr, err := a.Listen(listen.Options{Address: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Shutdown(b.Context())
	for b.Loop() {
		b.SetBytes(int64(scrapeBytes(b, "http://"+addr+"/metrics")))
	}
}

// TestHighest: a counter does not fall when what it is the difference of does.
func TestHighest(t *testing.T) {
	var h highest
	for _, c := range [][2]uint64{{3, 3}, {2, 3}, {5, 5}, {0, 5}, {6, 6}} {
		if got := h.least(c[0]); got != c[1] {
			t.Errorf("after %d it is %d, want %d", c[0], got, c[1])
		}
	}
}
