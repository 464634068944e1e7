package l7

import (
	"strings"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// TestGRPCIsRecorded: what the proxy answers a call is 200 to the client, and to log and metrics what others would have got; what
// a backend answers is what it is.
func TestGRPCIsRecorded(t *testing.T) {
	r := newRig(t)
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			if q.URL.Path == "/cut" {
				return
			}
			p.send("HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nGrpc-Status: 5\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c := r.dialH2()
	call := strings.Replace(h2Head, "GET", "POST", 1) + "content-type: application/grpc\nte: trailers\n"
	c.open(1, call, true)
	if a := c.want(1, "200", ""); a.heads[0]["grpc-status"] != "5" {
		t.Errorf("heads %v", a.heads)
	}
	r.recorded(wire.MethodPost, 200, 1)
	c.open(3, strings.Replace(call, ":path: /", ":path: /cut", 1), true)
	if a := c.want(3, "200", ""); a.heads[0]["grpc-status"] != "14" {
		t.Errorf("heads %v", a.heads)
	}
	r.recorded(wire.MethodPost, 502, 1)
	r.recorded(wire.MethodPost, 200, 1)
}

func TestGRPCTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond,
		"6n": 6, "99999999n": 99_999_999, "99999999H": callTimeoutMax,
		"": 0, "S": 0, "1": 0, "1s": 0, "-1S": 0, "1.5S": 0, "100000000S": 0, " 1S": 0, "0S": 0,
	} {
		if got := grpcTimeout([]byte(text)); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "Application/GRPC; charset=x": true,
		"application/grpc-web": false, "application/grpcx": false, "application/json": false, "": false,
	} {
		if isGRPC([]byte(text)) != want {
			t.Errorf("%q is gRPC: %v", text, !want)
		}
	}
}
