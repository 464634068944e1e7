package l7

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// noDescriptors takes the process's right to open files away until the function that it returns is called.
func noDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := was
	none.Cur = 0
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &none, nil); err != nil {
		t.Fatal(err)
	}
	restore = func() { _ = unix.Prlimit(0, unix.RLIMIT_NOFILE, &was, nil) }
	t.Cleanup(restore)
	return restore
}

// TestNoPipe: large bodies that cannot be spliced, because no descriptor is left for a pipe, are copied.
func TestNoPipe(t *testing.T) {
	r := newRig(t, func(r *rig) { r.route.Policy.BufferRequest, r.route.Policy.BodyMax = false, 0 })
	begun, up, down := make(chan bool, 1), make(chan string, 1), make(chan bool)
	r.backend(func(p *peer) {
		for q := p.head(); q != nil; q = p.head() {
			begun <- true
			sum, _, err := digest(q.Body)
			up <- fmt.Sprint(sum, err)
			body := newNoise(bigBytes)
			p.send("HTTP/1.1 200 OK\r\n" + framingField(wire.FramingLength, bigBytes) + "\r\n")
			_, _ = io.CopyN(p, body, 1)
			select {
			case <-down:
			case <-t.Context().Done(): // the test has failed: the rig waits for this backend
			}
			_, _ = io.Copy(p, body)
		}
	})
	c, body := r.dial(), newNoise(bigBytes)
	c.send("PUT / HTTP/1.1\r\nHost: a\r\n" + framingField(wire.FramingLength, bigBytes) + "\r\n")
	receive(t, "the request's head", begun) // the backend has accepted, which takes a descriptor
	restore := noDescriptors(t)
	_, err := io.Copy(c, body)
	r.must(err)
	if got, want := receive(t, "the request", up), fmt.Sprint(noiseSum(bigBytes), error(nil)); got != want {
		t.Errorf("the backend got %s, want %s", got, want)
	}
	res, err := http.ReadResponse(c.r, nil)
	r.must(err)
	close(down)
	if sum, n, err := digest(res.Body); sum != noiseSum(bigBytes) || err != nil {
		t.Errorf("the client got %d bytes of %d, %v", n, bigBytes, err)
	}
	if r.spliced() {
		t.Error("there was a pipe: the test shows nothing")
	}
	restore()
}

// TestNoConnection: without a descriptor for a backend's connection the answer is a 503, not a crash, and it passes.
func TestNoConnection(t *testing.T) {
	r := newRig(t)
	r.backend(mirror)
	c := r.dial()
	r.on(func() {})
	restore := noDescriptors(t)
	c.get("/")
	c.status("GET", 503)
	restore()
	c.get("/a")
	c.expect("GET", 200, "GET /a ")
}
