package l7

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// TestChaos: clients and backends that behave in every bad way at random share a loop and its pools. Whatever happens,
// an answer that a client takes for whole is the answer to its own request.
func TestChaos(t *testing.T) {
	r := newRig(t, func(r *rig) {
		r.settings.BodyTimeout, r.settings.HeaderTimeout, r.settings.SendTimeout = short, short, 2*short
		r.route.Policy = Policy{Tries: 3, NextUpstream: NextDefault | Next503, ReadTimeout: short, SendTimeout: short, BodyMax: 3 << 20}
	})
	buffered := false
	r.pick = func(*Exchange) *Route {
		route := *r.route
		buffered = !buffered
		route.Policy.BufferRequest = buffered
		return &route
	}
	for range 3 {
		r.backend(chaoticBackend)
	}
	sums := map[int]string{}
	for _, n := range chaosSizes {
		sums[n] = fmt.Sprint(noiseSum(int64(n)), n)
	}
	var running sync.WaitGroup
	var whole, other atomic.Int64
	const enough, most = 1000, 20_000 // whole answers; connections
	for i := range 12 {
		running.Add(1)
		go func() {
			defer running.Done()
			for n := 0; whole.Load() < enough && n < most/12 && !t.Failed(); n++ {
				c := &chaoticClient{client: r.dial(), name: fmt.Sprint(i, ".", n), sums: sums, whole: &whole, other: &other}
				c.run()
				c.Close()
			}
		}()
	}
	running.Wait()
	time.Sleep(short) // a backend that answers before it closes has closed by now: what follows a scenario must not meet it
	t.Logf("%d answers were whole, %d were errors or cut", whole.Load(), other.Load())
	if whole.Load() < enough {
		t.Errorf("only %d whole answers: the test shows nothing", whole.Load())
	}
}

var chaosSizes = []int{0, 10, 3000, 70_000, 700_000}

// chaoticBackend answers with the name that the request bears and the checksum of its body, unless it errs.
func chaoticBackend(p *peer) {
	for {
		q := p.head()
		if q == nil {
			return
		}
		err := rand.N(24)
		if err == 0 {
			p.answer("413 too large", "early") // and the body is not read
			time.Sleep(short / 10)
			return
		}
		sum, n, failed := digest(q.Body)
		if failed != nil {
			return
		}
		name := q.Header.Get("X-Name")
		body := strings.Repeat(name+" ", 1+rand.N(3)*rand.N(30_000))
		head := "HTTP/1.1 200 OK\r\nX-Name: " + name + "\r\nX-Sum: " + fmt.Sprint(sum, n) + "\r\n"
		switch err {
		case 1:
			return
		case 2:
			p.reset()
			return
		case 3:
			p.send("garbage\r\n\r\n")
		case 4:
			p.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body[:len(body)/2]))
			return
		case 5:
			p.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s%s", len(body), body, "HTTP/1.1 200 OK\r\nX-Name: poison\r\nContent-Length: 6\r\n\r\npoison"))
		case 6:
			p.gone(2 * short)
			return
		case 7:
			p.answer("503 busy", "")
		case 8:
			p.send(head + "Connection: close\r\n\r\n" + body)
			return
		case 9:
			p.send(head + fmt.Sprintf("Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body))
			return
		case 10:
			p.send(head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello")
			p.reset()
			return
		case 11, 12, 13:
			p.send("HTTP/1.1 103 Early Hints\r\nX-Name: " + name + "\r\n\r\n")
			fallthrough
		case 14, 15, 16, 17, 18:
			w := bufio.NewWriter(p)
			_, _ = io.WriteString(w, head+"Transfer-Encoding: chunked\r\n\r\n")
			_, _ = chunks{w}.Write([]byte(body))
			_, _ = io.WriteString(w, "0\r\nX-Last: "+name+"\r\n\r\n")
			_ = w.Flush()
		default:
			p.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body))
		}
	}
}

// chaoticClient sends requests over one connection until something ends it.
type chaoticClient struct {
	*client
	name         string
	sums         map[int]string // what a backend says of a body, by its size
	whole, other *atomic.Int64
}

func (c *chaoticClient) run() {
	for i := range 20 {
		name := fmt.Sprint(c.name, ".", i)
		size := chaosSizes[rand.N(len(chaosSizes))]
		framing := wire.Framing(1 + rand.N(2))
		method := []string{"PUT", "POST", "GET"}[rand.N(3)]
		head := method + " /" + name + " HTTP/1.1\r\nHost: a\r\nX-Name: " + name + "\r\n"
		if rand.N(10) == 0 {
			head += "Expect: 100-continue\r\n"
		}
		whim := rand.N(20)
		body := newNoise(int64(size))
		go func() {
			_, _ = io.WriteString(c, head+framingField(framing, int64(size))+"\r\n")
			switch whim {
			case 0:
				_ = write(c, wire.FramingLength, io.LimitReader(body, int64(size/2)))
				c.reset()
			case 1:
				_ = write(c, wire.FramingLength, io.LimitReader(body, int64(size/2)))
				_ = c.CloseWrite()
			case 2: // the rest never comes
			case 3:
				_ = write(c, framing, slowly{body, 50_000})
			default:
				_ = write(c, framing, body)
			}
		}()
		if !c.answered(method, name, size, whim) {
			return
		}
	}
}

// answered reads one answer and judges it; false: the connection is over.
func (c *chaoticClient) answered(method, name string, size, whim int) bool {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		res, err := http.ReadResponse(c.r, &http.Request{Method: method})
		if err != nil {
			c.other.Add(1)
			if strings.Contains(err.Error(), "timeout") {
				c.t.Errorf("%s: no answer and no end", name)
			}
			return false
		}
		if res.StatusCode < 200 {
			if n := res.Header.Get("X-Name"); n != "" && n != name {
				c.t.Errorf("%s got an interim head for %s", name, n)
			}
			continue
		}
		b, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 {
			c.other.Add(1)
			return err == nil && !res.Close
		}
		c.whole.Add(1)
		want := name + " "
		if got := res.Header.Get("X-Name"); got != name || len(b)%len(want) != 0 || strings.Count(string(b), want) != len(b)/len(want) {
			c.t.Errorf("%s got an answer for %s: %.60q", name, got, b)
		}
		if res.Header.Get("X-Sum") != c.sums[size] && whim > 2 {
			c.t.Errorf("%s: the backend got another body", name)
		}
		if last := res.Trailer.Get("X-Last"); last != "" {
			c.t.Errorf("%s: a trailer that nobody asked for", name)
		}
		return !res.Close
	}
}
