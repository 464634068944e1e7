package l7

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// TestFilterOrder: request filters run in their order until one answers, response filters in theirs, on every response.
func TestFilterOrder(t *testing.T) {
	var ran []string
	ask := func(name string, v Verdict) RequestFilter {
		return requestFilter(func(x *Exchange) Verdict {
			ran = append(ran, name)
			if v == Respond {
				x.Respond(418, []byte("tea"))
			}
			return v
		})
	}
	tell := func(name string) ResponseFilter {
		return responseFilter(func(x *Exchange) { ran = append(ran, fmt.Sprint(name, x.Resp.Status)) })
	}
	for _, c := range []struct {
		name    string
		request []RequestFilter
		backend bool
		status  int
		want    string
	}{
		{"forwarded", []RequestFilter{ask("a", Continue), ask("b", Continue)}, true, 200, "a b z200 y200"},
		{"answered", []RequestFilter{ask("a", Continue), ask("b", Respond), ask("c", Continue)}, true, 418, "a b z418 y418"},
		{"no endpoint", []RequestFilter{ask("a", Continue)}, false, 503, "a z503 y503"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, func(r *rig) {
				r.route.Request, r.route.Response = c.request, []ResponseFilter{tell("z"), tell("y")}
			})
			if r.probeless = !c.backend; c.backend {
				r.backend(mirror)
			}
			cl := r.dial()
			for range 2 {
				cl.get("/")
				cl.status("GET", c.status)
				r.on(func() {
					if got := strings.Join(ran, " "); got != c.want {
						t.Errorf("ran %s, want %s", got, c.want)
					}
					ran = nil
				})
			}
		})
	}
}

// TestFilterAnswers: what filters answer is framed as HTTP asks for, for every method and status.
func TestFilterAnswers(t *testing.T) {
	var location = []byte("https://shop.example/a")
	for name, c := range map[string]struct {
		method string
		do     func(x *Exchange)
		status int
		body   string
		fields map[string]string
	}{
		"text":                  {"GET", func(x *Exchange) { x.Respond(200, []byte("ok")) }, 200, "ok", map[string]string{"Content-Length": "2", "Content-Type": "text/plain; charset=utf-8"}},
		"text, HEAD":            {"HEAD", func(x *Exchange) { x.Respond(200, []byte("ok")) }, 200, "", map[string]string{"Content-Length": "2"}},
		"page":                  {"GET", func(x *Exchange) { x.Respond(403, nil) }, 403, "403 Forbidden\n", map[string]string{"Content-Length": "14"}},
		"no page":               {"GET", func(x *Exchange) { x.Respond(200, nil) }, 200, "", map[string]string{"Content-Length": "0", "Content-Type": ""}},
		"204":                   {"OPTIONS", func(x *Exchange) { x.Respond(204, nil) }, 204, "", map[string]string{"Content-Length": ""}},
		"204 with a body":       {"GET", func(x *Exchange) { x.Respond(204, []byte("none")) }, 204, "", map[string]string{"Content-Length": ""}},
		"304":                   {"GET", func(x *Exchange) { x.Respond(304, nil) }, 304, "", map[string]string{"Content-Length": ""}},
		"redirect":              {"GET", func(x *Exchange) { x.Redirect(308, location) }, 308, "", map[string]string{"Location": "https://shop.example/a", "Content-Length": "0"}},
		"redirect of POST":      {"POST", func(x *Exchange) { x.Redirect(308, location) }, 308, "", map[string]string{"Location": "https://shop.example/a"}},
		"own type":              {"GET", func(x *Exchange) { x.Respond(200, []byte("{}")); setType(x, "application/json") }, 200, "{}", map[string]string{"Content-Type": "application/json"}},
		"status without a name": {"GET", func(x *Exchange) { x.Respond(599, nil) }, 599, "", map[string]string{"Content-Length": "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) {
				r.route.Request = []RequestFilter{requestFilter(func(x *Exchange) Verdict { c.do(x); return Respond })}
			})
			r.backend(mirror)
			cl := r.dial()
			for range 3 {
				cl.send(c.method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
				a := cl.expect(c.method, c.status, c.body)
				for field, want := range c.fields {
					if got := strings.Join(a.Header.Values(field), "|"); got != want {
						t.Errorf("%s: %q, want %q", field, got, want)
					}
				}
				if a.Close || a.Header.Get("Date") == "" {
					t.Errorf("close %v, Date %q", a.Close, a.Header.Get("Date"))
				}
			}
			if n := r.cluster.Stats().Requests; n != 0 {
				t.Errorf("the backend was asked %d times", n)
			}
		})
	}
}

func setType(x *Exchange, v string) {
	x.SetResponse(wire.FieldContentType, []byte("Content-Type"), []byte(v))
}

// TestServerTokens: the proxy names itself only if asked to.
func TestServerTokens(t *testing.T) {
	for _, on := range []bool{true, false} {
		r := newRig(t, func(r *rig) { r.settings.ServerTokens = on })
		r.backend(mirror)
		r.pick = func(*Exchange) *Route { return nil }
		c := r.dial()
		c.get("/")
		if got := c.status("GET", 404).Header.Get("Server"); got == "sluice" != on {
			t.Errorf("Server: %q", got)
		}
	}
}

// TestFilterPanics: a filter's panic is its own exchange's end; the connection and all else go on.
func TestFilterPanics(t *testing.T) {
	boom := requestFilter(func(*Exchange) Verdict { panic("boom") })
	bang := responseFilter(func(*Exchange) { panic("bang") })
	for name, c := range map[string]struct {
		request  []RequestFilter
		response []ResponseFilter
		none     bool // no endpoint
		send     string
	}{
		"request":            {request: []RequestFilter{boom}},
		"request, with body": {request: []RequestFilter{boom}, send: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"},
		"after parking": {request: []RequestFilter{requestFilter(func(x *Exchange) Verdict {
			x.Park(x.Loop().Now() + int64(patience))
			panic("boom")
		})}},
		"resumed": {request: []RequestFilter{requestFilter(func(x *Exchange) Verdict {
			x.Park(x.Loop().Now() + int64(patience)).Resume(Resumed(func(*Exchange) Verdict { panic("boom") }))
			return Park
		})}},
		"response":                {response: []ResponseFilter{bang}},
		"response of our own":     {response: []ResponseFilter{bang}, none: true},
		"request, then response":  {request: []RequestFilter{boom}, response: []ResponseFilter{bang}},
		"response of an upgrade":  {response: []ResponseFilter{bang}, send: webSocket},
		"nil pointer in response": {response: []ResponseFilter{responseFilter(func(x *Exchange) { x.Route.Fallback.ID() })}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(r *rig) { r.route.Request, r.route.Response = c.request, c.response })
			rounds := uint64(3)
			panics := rounds
			if name == "request, then response" {
				panics *= 2
			}
			r.quietly(panics)
			if c.none {
				r.route.Cluster = nil
			}
			r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					if q.Header.Get("Upgrade") != "" {
						p.send(switching)
						continue
					}
					p.answer("200 OK", "secret")
				}
			})
			cl := r.dial()
			for range rounds {
				if c.send == "" {
					cl.get("/")
				} else {
					cl.send(c.send)
				}
				if a := cl.expect("GET", 500, "500 Internal Server Error\n"); a.Close {
					t.Error("the connection ends")
				}
			}
		})
	}
}

// TestWhatMustNotBeSent: a filter that makes a head which may not be sent costs its exchange a 500, and the connection.
func TestWhatMustNotBeSent(t *testing.T) {
	bad := []byte("a\r\nX-Smuggled: 1")
	for name, set := range map[string]func(r *rig){
		"request": func(r *rig) {
			r.route.Request = []RequestFilter{requestFilter(func(x *Exchange) Verdict {
				x.SetRequest(wire.FieldOther, []byte("X-A"), bad)
				return Continue
			})}
		},
		"target": func(r *rig) {
			r.route.Request = []RequestFilter{requestFilter(func(x *Exchange) Verdict {
				x.RewriteTarget = []byte("/a HTTP/1.1\r\nX: y")
				return Continue
			})}
		},
		"response": func(r *rig) {
			r.route.Response = []ResponseFilter{responseFilter(func(x *Exchange) { x.SetResponse(wire.FieldOther, []byte("X-A"), bad) })}
		},
		"answer": func(r *rig) {
			r.route.Request = []RequestFilter{requestFilter(func(x *Exchange) Verdict { x.Redirect(302, bad); return Respond })}
		},
		"status": func(r *rig) {
			r.route.Response = []ResponseFilter{responseFilter(func(x *Exchange) { x.Resp.Status = 999 })}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, set)
			heard := make(chan string, 10)
			r.backend(func(p *peer) {
				for q := p.request(); q != nil; q = p.request() {
					heard <- q.RequestURI
					p.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
				}
			})
			c := r.dial()
			c.get("/")
			if a := c.expect("GET", 500, "500 Internal Server Error\n"); !a.Close {
				t.Error("no Connection: close")
			}
			c.ends()
			if (name == "request" || name == "target") && len(heard) > 0 {
				t.Errorf("the backend heard %q", <-heard)
			}
		})
	}
}

// TestEnginePanics: a defect in an engine ends the connection it was met on; nothing stays behind, and others go on.
func TestEnginePanics(t *testing.T) {
	r := newRig(t)
	r.quietly(3)
	var other *client
	r.pick = func(x *Exchange) *Route {
		if string(x.Req.Path) == "/boom" {
			panic("boom")
		}
		return r.route
	}
	r.backend(mirror)
	other = r.dial()
	other.get("/a")
	other.expect("GET", 200, "GET /a ")
	for _, send := range []string{
		"GET /boom HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /boom HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
		"GET /first HTTP/1.1\r\nHost: a\r\n\r\nGET /boom HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		c := r.dial()
		c.send(send)
		c.cut()
		r.eventually("nothing is under way", func() bool { return r.srv.Stats.Active() == 0 })
	}
	other.get("/b")
	other.expect("GET", 200, "GET /b ")
}
