package filter

import (
	"io"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/sluiceproxy/sluice/l7"
)

// TestEncodersHold measures what encoders of every level hold after a long body: not more than they count for.
func TestEncodersHold(t *testing.T) {
	body := make([]byte, 256<<10)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range body {
		body[i] = "abcdefghijklmnop \n"[random.IntN(18)]
	}
	for _, kind := range []*codingKind{&gzipKind, &brotliKind, &zstdKind} {
		for level := kind.low; level <= kind.high; level++ {
			codec := codecOf(kind, level)
			var some [1]l7.Encoder
			before := heap()
			for i := range some {
				some[i] = codec.New()
				some[i].Reset(io.Discard)
				for at := 0; at < len(body); at += 32 << 10 {
					_, _ = some[i].Write(body[at : at+32<<10])
				}
				if err := some[i].Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if held := int(heap()-before) / len(some); held > codec.Bytes {
				t.Errorf("%s %d holds %d KiB and counts for %d", kind.name, level, held>>10, codec.Bytes>>10)
			}
			runtime.KeepAlive(some)
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestCompressRefuses(t *testing.T) {
	for _, c := range []Compress{{Gzip: Coding{On: true}}, {Gzip: Coding{On: true, Level: 10}}, {Brotli: Coding{On: true, Level: 12}},
		{Zstd: Coding{On: true, Level: 23}}, {Gzip: Coding{On: true, Level: 1}, NoGzip: "(?=x)"}} {
		if _, err := c.Compile(&State{}); err == nil {
			t.Errorf("%+v compiles", c)
		}
	}
}
