package fastpath

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// borderPeer is a TLS session on a loop that the test leads itself, with a client that writes records of any shape.
type borderPeer struct {
	l   *Loop
	c   *Conn
	r   *rawTLS
	got []byte
	max int // what Fill asks for
	err *Error
}

func newBorderPeer(t *testing.T) *borderPeer {
	p := &borderPeer{l: steppedLoop(t), max: 100}
	fd, peer := tcpPair(t)
	p.c = mustAdopt(t, p.l, fd, p)
	if err := p.c.StartTLS(serverConfig(tls.VersionTLS13), true, NewWork(1)); err != nil {
		t.Fatal(err)
	}
	shaken := make(chan struct{})
	go func() {
		defer close(shaken)
		p.r = newRawTLS(t, peer)
	}()
	rounds(t, p.l, "our handshake", func() bool { return established(p.c) })
	receive(t, "the peer's handshake", shaken)
	if p.r == nil { // newRawTLS has said why
		t.FailNow()
	}
	return p
}

func (p *borderPeer) OnReadable(c *Conn) {
	for {
		err := c.Fill(p.max)
		p.got = append(p.got, c.Buffered()...)
		c.Discard(len(c.Buffered()))
		if err == ErrWouldBlock {
			return
		}
		if err != nil {
			p.err = err
			return
		}
	}
}

func (p *borderPeer) OnWritable(*Conn)          {}
func (p *borderPeer) OnDeadline(*Conn)          {}
func (p *borderPeer) OnHandshake(*Conn, *Error) {}

// give sends b and lets the loop do all that it does without another event.
func (p *borderPeer) give(t *testing.T, b []byte) {
	t.Helper()
	want := p.c.Received() + uint64(len(b))
	if _, err := p.r.Write(b); err != nil {
		t.Fatal(err)
	}
	rounds(t, p.l, "the bytes", func() bool { return p.c.Received() == want && len(p.l.ready) == 0 })
}

// sequence is some records, what they contain, and where in it each begins.
func (p *borderPeer) sequence(sizes []int) (wire, content []byte) {
	for _, n := range sizes {
		if n < 0 { // changes the key, carries nothing
			wire = append(wire, p.r.keyUpdate(false)...)
			continue
		}
		b := payload(len(content)+n, n)
		wire, content = append(wire, p.r.record(recordData, b)...), append(content, b...)
	}
	return wire, content
}

// TestTLSRecordBorders: whatever records there are, however they are cut and in pieces of whatever size they are asked for:
// when the socket has been read, all plain text of the records that are complete has been given. Nothing stays in the
// record layer, where no event would tell of it.
func TestTLSRecordBorders(t *testing.T) {
	sequences := [][]int{{100}, {1, 1}, {100, 100, 100}, {99, 101}, {0, 5}, {5, 0}, {50, -1, 50}, {-1, 100}, {100, -1}, {0, 0, 7, -1, 0, 100, 200}}
	cuts := 25
	if raceDetector {
		cuts = 5 // the peer's own cryptography is what takes long
	}
	p := newBorderPeer(t)
	for _, sizes := range sequences {
		for _, max := range []int{1, 100, 20_000} {
			p.max = max
			whole, _ := p.sequence(sizes)
			p.give(t, whole) // as one
			p.got = p.got[:0]
			for cut := 1; cut < len(whole); cut += 1 + len(whole)/cuts {
				wire, content := p.sequence(sizes)
				p.give(t, wire[:cut])
				p.give(t, wire[cut:])
				same(t, fmt.Sprintf("records of %v, cut at %d, asked for by %d", sizes, cut, max), p.got, content)
				p.got = p.got[:0]
				if p.err != nil {
					t.Fatal(p.err)
				}
			}
		}
	}
}

// TestTLSRecordsInRandomPieces is the same with full records and any number of cuts, and an end behind them.
func TestTLSRecordsInRandomPieces(t *testing.T) {
	p := newBorderPeer(t)
	rng := rand.New(rand.NewPCG(2, 3))
	var want []byte
	for range 60 {
		var sizes []int
		for range 1 + rng.IntN(6) {
			sizes = append(sizes, []int{-1, 0, 1, 100, 4096, 16_383, 16_384}[rng.IntN(7)])
		}
		p.max = []int{1000, 4096, 16_384, 65_536}[rng.IntN(4)]
		wire, content := p.sequence(append(sizes, 1)) // ends with data: too many empty records in a row are an attack
		want = append(want, content...)
		for len(wire) > 0 {
			n := min(len(wire), 1+rng.IntN(9000))
			p.give(t, wire[:n])
			wire = wire[n:]
		}
		same(t, "plain text", p.got, want)
	}
	if _, err := p.r.Write(append(p.r.record(recordData, []byte("last")), p.r.record(recordAlert, []byte{1, 0})...)); err != nil {
		t.Fatal(err)
	}
	rounds(t, p.l, "the end", func() bool { return p.err != nil })
	if p.err != ErrEOF || string(p.got[len(p.got)-4:]) != "last" {
		t.Errorf("ended with %v", p.err)
	}
}

// TestTLSKeyUpdatesLeaveOthersTheirTurn: a byte of plain text may come with sixteen KeyUpdates. However much of that waits on
// the socket, one round does only a share of it.
func TestTLSKeyUpdatesLeaveOthersTheirTurn(t *testing.T) {
	p := newBorderPeer(t)
	p.max = 16 << 10
	var sizes []int
	for range 150 {
		sizes = append(sizes, -1, -1, -1, -1, 1)
	}
	wire, content := p.sequence(sizes)
	if _, err := p.r.Write(wire); err != nil {
		t.Fatal(err)
	}
	most := 0
	for end := time.Now().Add(patience); len(p.got) < len(content) && time.Now().Before(end); {
		n := len(p.got)
		p.l.round(min(10, max(0, p.l.sleep())))
		most = max(most, len(p.got)-n)
	}
	same(t, "plain text", p.got, content)
	if most > fillsPerRound {
		t.Errorf("one round took %d records of plain text", most)
	}
}
