package upstream

import (
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestConsistentHash(t *testing.T) {
	const n, hashes = 10, 20_000
	before, shuffled := still(t, 1, ConsistentHash, n), still(t, 1, ConsistentHash, 0)
	var list []Address
	for _, i := range rand.Perm(n) {
		list = append(list, Address{Addr: place(i)})
	}
	shuffled.Apply(list)
	less := still(t, 1, ConsistentHash, 0)
	less.Apply(slices.DeleteFunc(slices.Clone(list), func(a Address) bool { return a.Addr == place(3) }))
	out := still(t, 1, ConsistentHash, n)
	eject(out, 3)

	share := make([]int, n)
	for i := range uint32(hashes) {
		h := i * 2654435761
		e := before.Pick(Wish{Hash: h})
		share[index(e)]++
		if o := shuffled.Pick(Wish{Hash: h}); o.addr != e.addr {
			t.Fatalf("hash %d leads to %v or %v, by the order of endpoints", h, e.addr, o.addr)
		}
		a, b := less.Pick(Wish{Hash: h}), out.Pick(Wish{Hash: h})
		if index(e) != 3 && (a.addr != e.addr || b.addr != e.addr) {
			t.Fatalf("hash %d moved from %v to %v and %v, although its endpoint is there", h, e.addr, a.addr, b.addr)
		}
		if index(e) == 3 && a.addr != b.addr {
			t.Fatalf("hash %d goes to %v without its endpoint, to %v when that is ejected", h, a.addr, b.addr)
		}
	}
	for i, s := range share {
		if s < hashes/n*7/10 || s > hashes/n*13/10 {
			t.Errorf("endpoint %d has %d of %d hashes", i, s, hashes)
		}
	}
}

// With almost all of a large cluster ejected the walk ends, and an endpoint is found all the same.
func TestConsistentHashWalkIsBounded(t *testing.T) {
	c := still(t, 1, ConsistentHash, 200)
	for i := range 199 {
		eject(c, i)
	}
	for i := range uint32(1000) {
		h := i * 2654435761
		if e := c.Pick(Wish{Hash: h}); index(e) != 199 {
			t.Fatalf("hash %d leads to %v, which is ejected", h, e.addr)
		}
	}
}

func TestRingIsBounded(t *testing.T) {
	c := still(t, 1, ConsistentHash, 5000)
	if n := len(c.current.Load().ring); n > ringPointsMax {
		t.Errorf("%d points, at most %d are wanted", n, ringPointsMax)
	}
}

func TestIdentity(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range 5000 {
		id := identityOf(place(i))
		if id == 0 || seen[id] {
			t.Fatalf("identity %d of %v is 0 or another's", id, place(i))
		}
		seen[id] = true
	}
	if id := identityOf(place(1)); id != 0xd75d669b1ece1488 {
		t.Errorf("identity %#x of %v: cookies that clients hold would lead elsewhere", id, place(1))
	}
}

// slowRing is what a ring has to be: the definition, without any care for time.
func slowRing(names []string, key string) string {
	best, lowest := "", ""
	var bestHash, lowestHash uint32
	for _, name := range names {
		last := []byte{0, 0, 0, 0}
		for range ringPoints {
			h := crc32.ChecksumIEEE(append([]byte(name), last...))
			last = []byte{byte(h), byte(h >> 8), byte(h >> 16), byte(h >> 24)}
			if h >= crc32.ChecksumIEEE([]byte(key)) && (best == "" || h < bestHash) {
				best, bestHash = name, h
			}
			if lowest == "" || h < lowestHash {
				lowest, lowestHash = name, h
			}
		}
	}
	if best == "" {
		return lowest
	}
	return best
}

func TestRingIsWhatItsDefinitionSays(t *testing.T) {
	names := []string{"10.0.0.1:80", "10.0.0.2:80", "[fd00::1]:8080", "10.0.0.3:80"}
	v := &view{ring: newRing(names)}
	for _, name := range names {
		v.ready = append(v.ready, &Endpoint{addr: netip.MustParseAddrPort(name)})
	}
	l := newClusterLoop(nil, 0, 1)
	v.compiled = &compiled{}
	for i := range 2000 {
		key := fmt.Sprintf("/path/%d", i)
		if got, want := consistentHash(v, &l, Wish{Hash: Hash([]byte(key))}).addr.String(), slowRing(names, key); got != want {
			t.Fatalf("key %q leads to %s, want %s", key, got, want)
		}
	}
}

// TestRingIsNginx: nginx's own ketama, of which ingress-nginx's differs only in what a node is called ("host\0port" instead
// of "host:port"), leads the same keys to the same backends.
func TestRingIsNginx(t *testing.T) {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed: apt-get install nginx-light")
	}
	const n, keys = 5, 300
	names := make([]string, n)
	servers := ""
	for i := range n {
		b := newServer(t, answering(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", i)))
		port := b.addr().Port()
		names[i] = fmt.Sprintf("127.0.0.1\x00%d", port)
		servers += fmt.Sprintf("server 127.0.0.1:%d; ", port)
	}
	at := startNginx(t, binary, "upstream u { hash $request_uri consistent; "+servers+"}", "location / { proxy_pass http://u; }")
	ring := newRing(names)
	for i := range keys {
		key := fmt.Sprintf("/k/%d", i*7919)
		res, err := http.Get("http://" + at + key)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		hash := Hash([]byte(key))
		j := slices.IndexFunc(ring, func(p ringPoint) bool { return p.hash >= hash })
		if got, want := fmt.Sprint(ring[max(j, 0)].node), string(body); got != want {
			t.Fatalf("key %s leads to backend %s, nginx's to %s", key, got, want)
		}
	}
}

// startNginx runs nginx with one server on a port of loopback, whose address it answers.
func startNginx(t *testing.T, binary, http, server string) string {
	t.Helper()
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	ln.Close()
	text := fmt.Sprintf(`daemon off; user root; pid %[1]s/pid; error_log %[1]s/error.log; worker_processes 1; events {}
http { access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
%[2]s
server { listen %[3]s; %[4]s } }`, dir, http, at, server)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(binary, "-e", filepath.Join(dir, "error.log"), "-c", file)
	var out strings.Builder
	c.Stderr = &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	eventually(t, "nginx listens; "+out.String(), func() bool {
		conn, err := net.Dial("tcp", at)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return at
}

func TestSubset(t *testing.T) {
	c := NewCluster("shop/web:80", &Env{}, Settings{Algorithm: ConsistentHash, Subset: 3})
	var list []Address
	for i := range 7 {
		list = append(list, Address{Addr: place(i)})
	}
	c.Apply(list)
	sets := c.current.Load().subsets
	if len(sets) != 3 || len(sets[2]) != 3 || index(sets[2][0]) != 6 || index(sets[2][1]) != 0 || index(sets[2][2]) != 1 {
		t.Fatalf("%d subsets", len(sets))
	}
	for i := range uint32(50) {
		w := Wish{Hash: i * 2654435761}
		seen := map[int]bool{}
		for range 60 {
			seen[index(c.Pick(w))] = true
		}
		if len(seen) != 3 {
			t.Errorf("hash %d leads to %v, want a subset of 3", w.Hash, seen)
		}
	}
}

// An endpoint that has more than its share is walked past, and is its hashes' again when it has not.
func TestBoundedLoad(t *testing.T) {
	c := NewCluster("shop/web:80", &Env{}, Settings{Algorithm: ConsistentHash, HashBalance: 125})
	var list []Address
	for i := range 4 {
		list = append(list, Address{Addr: place(i)})
	}
	c.Apply(list)
	w := Wish{Hash: 12345}
	home := c.Pick(w)
	for range 100 {
		e := c.Pick(w)
		e.active.Add(1)
	}
	for _, e := range c.current.Load().ready {
		if n := e.active.Load(); n > 32 { // 125 % of 25, rounded up
			t.Errorf("%v has %d of 100 streams", e.addr, n)
		}
	}
	home.active.Store(0)
	if e := c.Pick(w); e != home {
		t.Errorf("picked %v with room at %v", e.addr, home.addr)
	}
}

// Endpoints that are down have no part in the mean: where they leave the others more than their bound of it, hashes would
// lead nowhere.
func TestBoundedLoadWithoutOne(t *testing.T) {
	c := NewCluster("shop/web:80", &Env{}, Settings{Algorithm: ConsistentHash, HashBalance: 125})
	c.Apply(addresses(place(0), place(1), place(2), place(3)))
	eject(c, 3)
	for _, e := range c.current.Load().ready[:3] {
		e.active.Store(100)
	}
	for i := range uint32(100) {
		w := Wish{Hash: i * 2654435761}
		home := c.Pick(Wish{Hash: w.Hash, Hashed: true})
		for range 5 {
			if e := c.Pick(w); e != home {
				t.Fatalf("hash %d leads to %v, want %v", w.Hash, e.addr, home.addr)
			}
		}
	}
	eject(c, 0, 1, 2)
	if c.Pick(Wish{Hash: 7}) == nil {
		t.Error("all ejected: picked none")
	}
}

// A client that a cookie holds is neither spread over a subset nor moved by load.
func TestAffinityGoesBeforeSubsetAndLoad(t *testing.T) {
	c := NewCluster("shop/web:80", &Env{}, Settings{Algorithm: ConsistentHash, Subset: 3, HashBalance: 110, Affinity: &Affinity{}})
	c.Apply(addresses(place(0), place(1), place(2), place(3), place(4)))
	w := Wish{Hash: 99, Hashed: true, Stay: true}
	home := c.Pick(w)
	home.active.Store(1000)
	for range 50 {
		if e := c.Pick(w); e != home {
			t.Fatalf("picked %v, then %v", home.addr, e.addr)
		}
	}
}

func TestParseKey(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "[]",
		"$request_uri":              "[{ 1}]",
		"${request_uri}-text":       "[{ 1} {-text 0}]",
		"$host$http_x_user":         "[{ 4} {x-user 13}]",
		"a$":                        "[{a 0} {$ 0}]",
		"$cookie_SID$arg_q":         "[{sid 14} {q 15}]",
		"$remote_addr":              "[{ 7}]",
		"$binary_remote_addr{x":     "[{ 7} {{x 0}]",
		"$nothing":                  "error",
		"$http_":                    "error",
		"${request_uri":             "[{$ 0} {{request_uri 0}]",
		strings.Repeat("$host", 33): "error",
	} {
		parts, err := ParseKey(text)
		got := fmt.Sprint(parts)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q is %s, want %s (%v)", text, got, want, err)
		}
	}
}

// Cookies that ingress-nginx has set are understood: its numbers, computed by its own definition with md5sum.
func TestAffinityKeysAreIngressNginx(t *testing.T) {
	const name = "shop-web-80"
	if got := BackendKey(name); got != wantBackendKey {
		t.Errorf("backend key %s, want %s", got, wantBackendKey)
	}
	c := NewCluster("shop/web:80", &Env{}, Settings{Name: name, Affinity: &Affinity{}})
	c.Apply(addresses(place(1)))
	e := c.current.Load().ready[0]
	if got := string(e.AppendStickyKey(nil)); got != wantStickyKey {
		t.Errorf("sticky key %s, want %s", got, wantStickyKey)
	}
	if id := ParseStickyKey([]byte(wantStickyKey)); c.Pick(Wish{Sticky: id}) != e || !c.HasSticky(id) {
		t.Error("the key does not lead to its endpoint")
	}
	for _, bad := range []string{"", "x", wantStickyKey[1:], wantStickyKey[:31] + "z", wantStickyKey + "0"} {
		if id := ParseStickyKey([]byte(bad)); id != 0 {
			t.Errorf("%q is %d", bad, id)
		}
	}
}

const (
	wantBackendKey = "ad0f3520c2b4ae4ad7cae6da8d3345ed"
	wantStickyKey  = "a03a504549ed8d5e54e10c00df97785b"
)
