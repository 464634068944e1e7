package l7

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// TestStreamLog holds both forms of a service's line.
func TestStreamLog(t *testing.T) {
	var out bytes.Buffer
	a := NewAccessLog(&out, 1)
	r := StreamRecord{Now: time.Date(2026, 11, 28, 3, 4, 5, 6_000_000, time.UTC), Remote: netip.MustParseAddrPort("[::ffff:192.0.2.7]:5555"),
		Protocol: "TCP", Port: 9000, Status: StreamStatus(true, nil), Sent: 10, Received: 20, Duration: 1_234_567_890,
		Namespace: "shop", Service: "db", To: "postgres", Upstream: netip.MustParseAddrPort("10.0.0.1:5432")}
	a.WriteStream(0, &r)
	r.Status, r.Err, r.Format, r.Upstream = StreamStatus(false, fastpath.ErrRefused), fastpath.ErrRefused, LogJSON, netip.AddrPort{}
	a.WriteStream(0, &r)
	if n := testing.AllocsPerRun(100, func() { a.loops[0].filling[logHTTP].reset(); a.WriteStream(0, &r) }); n > 0 {
		t.Errorf("a line costs %v allocations", n)
	}
	_ = a.Close()
	text, rest, _ := bytes.Cut(out.Bytes(), []byte("\n"))
	_ = rest
	b := appendStreamText(nil, &r, &a.loops[0].stamp)
	if want := "[192.0.2.7] [28/Nov/2026:03:04:05 +0000] TCP 502 10 20 1.234\n"; string(b) != want {
		t.Errorf("the line is %q, want %q", b, want)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	for name, want := range map[string]any{"remote_addr": "192.0.2.7", "protocol": "TCP", "server_port": 9000.0, "status": 502.0, "bytes_sent": 10.0,
		"bytes_received": 20.0, "session_time": 1.234567, "service": "db", "port": "postgres", "upstream_addr": "-", "kind": "refused"} {
		if fields[name] != want {
			t.Errorf("%s is %v, want %v", name, fields[name], want)
		}
	}
}
