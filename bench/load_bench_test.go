package main

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkLoad measures the harness itself, clients against the origin without a proxy: CPU per request of the
// generator and of the origin. Each has to be well below any proxy's, or the proxies would not be what is measured.
func BenchmarkLoad(b *testing.B) {
	c, err := newCertificate(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	o, err := startOrigin(c, loopback)
	if err != nil {
		b.Fatal(err)
	}
	defer o.stop()
	plain := at(loopback, o.plainPort)
	for _, test := range []struct {
		name string
		load load
	}{
		{"h1", load{path: pathSmall, conns: 64}},
		{"h2-10x10", load{path: pathSmall, conns: 10, streams: 10, speaks: speakHTTP2}},
		{"h2-64x1", load{path: pathSmall, conns: 64, speaks: speakHTTP2}},
		{"grpc", load{conns: 10, streams: 10, speaks: speakGRPC}},
		{"websocket", load{conns: 64, speaks: speakWebSocket}},
		{"bulk", load{path: pathBulk, conns: 8}},
		{"h2-bulk", load{path: pathBulk, conns: 8, speaks: speakHTTP2}},
	} {
		b.Run(test.name, func(b *testing.B) {
			test.load.address, test.load.host = plain, hostBench
			var requests int64
			ours := ownCPU()
			origin, err := readUsage(o.pid())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				got, err := loadKept(b.Context(), test.load, 200*time.Millisecond)
				if err != nil || got.errors+got.bad > 0 {
					b.Fatalf("%+v, %v", got, err)
				}
				requests += got.requests
			}
			after, err := readUsage(o.pid())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64((ownCPU()-ours).Nanoseconds())/1e3/float64(requests), "µs-load/req")
			b.ReportMetric(float64(after.since(origin).cpu.Nanoseconds())/1e3/float64(requests), "µs-origin/req")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
