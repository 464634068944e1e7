package fastpath

import (
	"testing"

	"golang.org/x/sys/unix"
)

// TestKnownEnd: behind a short read the end that epoll has told of is not asked for again, and nothing that came before it is
// lost, also where a read stops short because of an urgent byte.
func TestKnownEnd(t *testing.T) {
	for name, k := range map[string]struct {
		urgent bool
		want   string
		last   bool // after the first read the end is known
	}{
		"plain":  {want: "abcdef", last: true},
		"urgent": {urgent: true, want: "abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			l := steppedLoop(t)
			fd, peer := tcpPair(t)
			raw := rawPeer(t, peer)
			got, ended := "", false
			c := mustAdopt(t, l, fd, &hooks{readable: func(c *Conn) {
				for first := true; ; first = false {
					err := c.Fill(4 << 10)
					got += string(c.Buffered())
					c.Discard(len(c.Buffered()))
					if known := c.flags&flagLast != 0; first && len(got) > 0 && !ended && known != k.last {
						t.Errorf("after %q the end is known: %v", got, known)
					}
					if err != nil {
						ended = err == ErrEOF
						return
					}
				}
			}})
			sent := func(s string, flags int) {
				if n, e := send(raw, []byte(s), flags); n != len(s) || e != 0 {
					t.Fatal(n, e)
				}
			}
			sent("abc", 0)
			if k.urgent {
				sent("!", unix.MSG_OOB)
			}
			sent("def", 0)
			if err := peer.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			rounds(t, l, "the end", func() bool { return ended })
			if got != k.want || !c.EOF() {
				t.Errorf("%q, end %v; want %q", got, c.EOF(), k.want)
			}
		})
	}
}
