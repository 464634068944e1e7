package l7

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/upstream"
)

// named is a serve that answers with a name.
func named(name string) func(*peer) {
	return func(p *peer) {
		for p.request() != nil {
			p.answer("200 OK", name)
		}
	}
}

// sticky is a rig with so many backends and an affinity.
func sticky(t *testing.T, backends int, a upstream.Affinity) *rig {
	r := newRig(t, func(r *rig) { r.route.Policy.SetsAffinity, r.route.ID.Path = true, "/shop" })
	r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Name: "shop-web-80", Affinity: &a})
	for i := range backends {
		r.backend(named(fmt.Sprint(i)))
	}
	return r
}

// visit sends a GET with further fields on a connection of its own, and answers the body and the cookie that was set.
func (r *rig) visit(fields string) (body string, set *http.Cookie) {
	r.Helper()
	c := r.dial()
	defer c.Close()
	c.send("GET / HTTP/1.1\r\nHost: shop.example\r\n" + fields + "\r\n")
	a := c.response("GET")
	if cookies := a.Cookies(); len(cookies) > 0 {
		set = cookies[0]
	}
	return a.body, set
}

func TestAffinity(t *testing.T) {
	for _, persistent := range []bool{false, true} {
		t.Run(fmt.Sprintf("persistent=%v", persistent), func(t *testing.T) {
			r := sticky(t, 5, upstream.Affinity{Cookie: "route", Persistent: persistent})
			seen := map[string]bool{}
			for range 40 {
				body, set := r.visit("Cookie: other=1\r\n")
				if set == nil || !strings.HasSuffix(set.Value, "|"+r.cluster.BackendKey()) || set.Path != "/shop" || !set.HttpOnly || set.Secure {
					t.Fatalf("cookie %v", set)
				}
				seen[body] = true
				for range 5 {
					again, second := r.visit("Cookie: a=b; route=" + set.Value + "\r\n")
					if again != body || second != nil {
						t.Fatalf("backend %s then %s, cookie %v", body, again, second)
					}
				}
			}
			if len(seen) < 4 {
				t.Errorf("40 sessions on backends %v of 5", seen)
			}
			_, set := r.visit("Cookie: route=\r\n")
			if set == nil {
				t.Error("an empty cookie is replaced by none")
			}
			// A balanced key may be anything; a persistent one has to name an endpoint.
			if _, set = r.visit("Cookie: route=nonsense\r\n"); (set != nil) != persistent {
				t.Errorf("nonsense is answered by %v", set)
			}
		})
	}
}

// Sessions that ingress-nginx began go on: its persistent key names the same endpoint.
func TestAffinityTakesIngressNginxCookies(t *testing.T) {
	r := sticky(t, 4, upstream.Affinity{Cookie: "route", Persistent: true})
	for i, s := range r.cluster.Endpoints() {
		key := s.Endpoint.AppendStickyKey(nil)
		want := fmt.Sprint(i)
		for j, a := range r.addresses {
			if a.Addr == s.Endpoint.Addr() {
				want = fmt.Sprint(j)
			}
		}
		if body, set := r.visit(fmt.Sprintf("Cookie: route=%s|anything\r\n", key)); body != want || set != nil {
			t.Errorf("endpoint %v: %q, cookie %v", s.Endpoint.Addr(), body, set)
		}
	}
}

func TestAffinityCookieText(t *testing.T) {
	r := sticky(t, 1, upstream.Affinity{Cookie: "c", Path: "/p", Domain: "shop.example", Expires: 60, HasExpires: true, MaxAge: -1,
		HasMaxAge: true, SameSite: "None", UnlessOld: true, Secure: true})
	for agent, none := range map[string]bool{"": true, "Chrome/99": true, "Chrome/51.0": false, "CPU iPhone OS 12_1": false,
		"Macintosh; Intel Mac OS X 10_14 Version/12 Safari/605": false, "Macintosh; Intel Mac OS X 10_14 Chrome/99 Safari/605": true} {
		c := r.dial()
		c.send("GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: " + agent + "\r\n\r\n")
		text := c.response("GET").Header.Get("Set-Cookie")
		if _, rest, ok := strings.Cut(text, "|"+r.cluster.BackendKey()+"; Expires="); !ok || !strings.HasPrefix(rest[len("Mon, 02 Jan 2006 15:04:05 GMT"):],
			"; Max-Age=-1; Domain=shop.example; Path=/p; Secure; HttpOnly") || strings.HasSuffix(rest, "; SameSite=None") != none {
			t.Errorf("agent %q: %s", agent, text)
		}
	}
}

func TestAffinityOfOthersSetsNoCookie(t *testing.T) {
	r := sticky(t, 3, upstream.Affinity{Cookie: "route"})
	_, set := r.visit("")
	r.on(func() { r.route.Policy.SetsAffinity = false })
	first, _ := r.visit("Cookie: route=" + set.Value + "\r\n")
	for range 10 {
		if body, _ := r.visit("Cookie: route=" + set.Value + "\r\n"); body != first {
			t.Fatal("the cookie is not followed")
		}
	}
	if _, set := r.visit(""); set != nil {
		t.Errorf("cookie %v on a path that asks for none", set)
	}
}

// A client whose endpoint cannot be connected to: the same one is asked again (502), or, with change-on-failure, another
// one, and the client's cookie leads there from now on.
func TestAffinityChangeOnFailure(t *testing.T) {
	for _, persistent := range []bool{false, true} {
		for _, change := range []bool{false, true} {
			t.Run(fmt.Sprintf("persistent=%v change=%v", persistent, change), func(t *testing.T) {
				r := sticky(t, 0, upstream.Affinity{Cookie: "route", Persistent: persistent, ChangeOnFailure: change})
				r.refusing()
				r.backend(named("good"))
				r.on(func() { r.route.Policy.Tries = 2 })
				bad := r.cluster.Endpoints()[0].Endpoint
				key := string(bad.AppendStickyKey(nil))
				if !persistent {
					key = keyFor(r, bad)
				}
				c := r.dial()
				c.send("GET / HTTP/1.1\r\nHost: shop.example\r\nCookie: route=" + key + "|x\r\n\r\n")
				a := c.response("GET")
				switch {
				case !change && (a.StatusCode != 502 || len(a.Cookies()) > 0):
					t.Errorf("status %d, cookies %v; want 502 of the same endpoint", a.StatusCode, a.Cookies())
				case change && (a.StatusCode != 200 || len(a.Cookies()) != 1):
					t.Fatalf("status %d, cookies %v; want another endpoint and its cookie", a.StatusCode, a.Cookies())
				case change:
					if body, set := r.visit("Cookie: route=" + a.Cookies()[0].Value + "\r\n"); body != "good" || set != nil {
						t.Errorf("the new cookie leads to %q, %v", body, set)
					}
				}
				r.probeless = true
			})
		}
	}
}

// keyFor finds a key whose hash leads to an endpoint.
func keyFor(r *rig, e *upstream.Endpoint) (key string) {
	r.on(func() {
		for i := 0; ; i++ {
			key = fmt.Sprint(i)
			if r.cluster.Pick(upstream.Wish{Hash: upstream.Hash([]byte(key)), Hashed: true, Stay: true}) == e {
				return
			}
		}
	})
	return key
}

// upstream-hash-by: the same value, the same endpoint; every variable is filled in.
func TestHashBy(t *testing.T) {
	for text, request := range map[string]func(i int) string{
		"$request_uri": func(i int) string { return fmt.Sprintf("GET /a?%d HTTP/1.1\r\nHost: a.example\r\n\r\n", i) },
		"$uri":         func(i int) string { return fmt.Sprintf("GET /%d?x HTTP/1.1\r\nHost: a.example\r\n\r\n", i) },
		"$args":        func(i int) string { return fmt.Sprintf("GET /?%d HTTP/1.1\r\nHost: a.example\r\n\r\n", i) },
		"$host":        func(i int) string { return fmt.Sprintf("GET / HTTP/1.1\r\nHost: h%d.example:81\r\n\r\n", i) },
		"$http_host":   func(i int) string { return fmt.Sprintf("GET / HTTP/1.1\r\nHost: a.example:%d\r\n\r\n", 80+i) },
		"$http_x_user": func(i int) string { return fmt.Sprintf("GET / HTTP/1.1\r\nHost: a.example\r\nx-USER: %d\r\n\r\n", i) },
		"x${cookie_sid}y": func(i int) string {
			return fmt.Sprintf("GET / HTTP/1.1\r\nHost: a.example\r\nCookie: SID=%d\r\n\r\n", i)
		},
		"$arg_q$scheme": func(i int) string { return fmt.Sprintf("GET /?p=1&q=%d HTTP/1.1\r\nHost: a.example\r\n\r\n", i) },
		"$req_id": func(i int) string {
			return fmt.Sprintf("GET / HTTP/1.1\r\nHost: a.example\r\nX-Request-ID: %d\r\n\r\n", i)
		},
		"$remote_addr-text": nil,
	} {
		t.Run(text, func(t *testing.T) {
			r := newRig(t)
			r.cluster.SetSettings(upstream.Settings{AllowLoopback: true, Algorithm: upstream.ConsistentHash, HashBy: text})
			for i := range 4 {
				r.backend(named(fmt.Sprint(i)))
			}
			seen := map[string]int{}
			c := r.dial()
			for i := range 24 {
				one := "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"
				if request != nil {
					one = request(i)
				}
				c.send(one)
				first := c.response("GET").body
				c.send(one)
				if again := c.response("GET").body; again != first {
					t.Fatalf("%q goes to %s, then to %s", one, first, again)
				}
				seen[first]++
			}
			if request != nil && len(seen) < 2 || request == nil && len(seen) != 1 {
				t.Errorf("24 requests went to %v", seen)
			}
		})
	}
}
