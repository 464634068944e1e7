package l7

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// requestFilter and responseFilter make filters of functions.
type requestFilter func(*Exchange) Verdict

func (f requestFilter) Request(x *Exchange) Verdict { return f(x) }

type responseFilter func(*Exchange)

func (f responseFilter) Response(x *Exchange) { f(x) }

// parking is a filter that parks every exchange for d at most and gives its ticket away.
func parking(d time.Duration, to func(fastpath.Ticket)) requestFilter {
	return func(x *Exchange) Verdict {
		to(x.Park(x.Loop().Now() + int64(d)))
		return Park
	}
}

var nameXParked = []byte("X-Parked")

// mark sets a request field, so that a backend's answer shows what a filter did.
func mark(value string) Resumed {
	return func(x *Exchange) Verdict {
		x.SetRequest(wire.FieldOther, nameXParked, []byte(value))
		return Continue
	}
}

// marked answers with what filters did to a request.
func marked(p *peer) {
	for q := p.request(); q != nil; q = p.request() {
		p.answer("200 OK", q.Header.Get("X-Parked")+q.body)
	}
}

// TestPark: a parked exchange goes on, on its loop, when another goroutine resumes it; the first call counts.
func TestPark(t *testing.T) {
	for name, c := range map[string]struct {
		resume func(fastpath.Ticket)
		status int
		body   string
	}{
		"nothing said":  {func(k fastpath.Ticket) { k.Resume(nil) }, 200, "after"},
		"changed":       {func(k fastpath.Ticket) { k.Resume(mark("a")) }, 200, "aafter"},
		"twice":         {func(k fastpath.Ticket) { k.Resume(mark("a")); k.Resume(mark("b")) }, 200, "aafter"},
		"answered":      {func(k fastpath.Ticket) { k.Resume(Resumed(deny)) }, 403, "no"},
		"at once, here": {nil, 200, "hereafter"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			tickets := make(chan fastpath.Ticket, 1)
			r.route.Request = []RequestFilter{
				parking(patience, func(k fastpath.Ticket) {
					if c.resume == nil {
						k.Resume(mark("here"))
						return
					}
					tickets <- k
				}),
				requestFilter(func(x *Exchange) Verdict {
					for _, f := range x.Req.Fields {
						if string(f.Name) == "X-Parked" {
							x.SetRequest(wire.FieldOther, nameXParked, []byte(string(f.Value)+"after"))
							return Continue
						}
					}
					return mark("after")(x)
				}),
			}
			r.backend(marked)
			cl := r.dial()
			for range 3 {
				cl.get("/")
				if c.resume != nil {
					c.resume(receive(t, "the ticket", tickets))
				}
				cl.expect("GET", c.status, c.body)
			}
		})
	}
}

func deny(x *Exchange) Verdict {
	x.Respond(403, []byte("no"))
	return Respond
}

// TestParkAgain: whoever resumes may park once more.
func TestParkAgain(t *testing.T) {
	r := newRig(t)
	tickets := make(chan fastpath.Ticket, 1)
	r.route.Request = []RequestFilter{parking(patience, func(k fastpath.Ticket) { tickets <- k })}
	r.backend(marked)
	c := r.dial()
	c.post("/", "body")
	for range 5 {
		receive(t, "the ticket", tickets).Resume(Resumed(func(x *Exchange) Verdict {
			tickets <- x.Park(x.Loop().Now() + int64(patience))
			return Park
		}))
	}
	receive(t, "the last ticket", tickets).Resume(mark("end-"))
	c.expect("POST", 200, "end-body")
}

// TestParkedTooLong: past its deadline a parked exchange is a 504, and a late Resume meets nobody, whoever uses the
// exchange's memory by then.
func TestParkedTooLong(t *testing.T) {
	r := newRig(t)
	tickets := make(chan fastpath.Ticket, 1)
	parked := true
	r.pick = func(x *Exchange) *Route {
		route := *r.route
		if parked {
			route.Request = []RequestFilter{parking(short, func(k fastpath.Ticket) { tickets <- k })}
		}
		return &route
	}
	r.backend(func(p *peer) {
		for q := p.request(); q != nil; q = p.request() {
			time.Sleep(short)
			p.answer("200 OK", q.Header.Get("X-Parked"))
		}
	})
	c := r.dial()
	c.get("/")
	began := time.Now()
	c.status("GET", 504)
	if took := time.Since(began); took < short/2 || took > 20*short {
		t.Errorf("after %v", took)
	}
	r.on(func() { parked = false })
	c.get("/next")
	r.eventually("the next exchange is under way", func() bool { return r.srv.Stats.Active() == 1 })
	receive(t, "the ticket", tickets).Resume(Resumed(func(*Exchange) Verdict {
		t.Error("an exchange that had ended was resumed")
		return Continue
	}))
	c.expect("GET", 200, "")
}

// TestParkedClientLeaves: a client that is gone ends its parked exchange too.
func TestParkedClientLeaves(t *testing.T) {
	r := newRig(t)
	tickets := make(chan fastpath.Ticket, 1)
	r.route.Request = []RequestFilter{parking(patience, func(k fastpath.Ticket) { tickets <- k })}
	r.backend(marked)
	c := r.dial()
	c.get("/")
	k := receive(t, "the ticket", tickets)
	c.reset()
	r.recorded(wire.MethodGet, statusClientGone, 1)
	k.Resume(Resumed(func(*Exchange) Verdict {
		t.Error("an exchange that had ended was resumed")
		return Continue
	}))
	if n := r.cluster.Stats().Requests; n != 0 {
		t.Errorf("the backend was asked %d times", n)
	}
}

// TestParkWithoutPark: a filter that took a ticket and then gave another verdict has a ticket that does nothing.
func TestParkWithoutPark(t *testing.T) {
	for name, v := range map[string]Verdict{"continue": Continue, "respond": Respond} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			tickets := make(chan fastpath.Ticket, 4)
			r.route.Request = []RequestFilter{requestFilter(func(x *Exchange) Verdict {
				tickets <- x.Park(x.Loop().Now() + int64(patience))
				tickets <- x.Park(x.Loop().Now() + int64(patience))
				x.Respond(200, []byte("ok"))
				return v
			})}
			r.backend(answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
			c := r.dial()
			for range 2 {
				c.get("/")
				c.expect("GET", 200, "ok")
				for range 2 {
					receive(t, "the ticket", tickets).Resume(Resumed(func(*Exchange) Verdict {
						t.Error("resumed")
						return Continue
					}))
				}
			}
		})
	}
}

// TestParkMany: tickets resumed at any time, twice, late or never, while clients come and go; whoever is answered is
// answered rightly.
func TestParkMany(t *testing.T) {
	r := newRig(t)
	tickets := make(chan fastpath.Ticket, 64)
	r.route.Request = []RequestFilter{parking(short/3, func(k fastpath.Ticket) { tickets <- k })}
	r.backend(marked)
	var resuming sync.WaitGroup
	for range 4 {
		resuming.Add(1)
		go func() {
			defer resuming.Done()
			for k := range tickets {
				switch rand.N(4) {
				case 0:
					k.Resume(mark("r"))
					k.Resume(mark("no"))
				case 1:
					time.AfterFunc(rand.N(short), func() { k.Resume(mark("r")) })
				case 2:
					k.Resume(Resumed(deny))
				case 3: // forgotten
				}
			}
		}()
	}
	var asking sync.WaitGroup
	for range 8 {
		asking.Add(1)
		go func() {
			defer asking.Done()
			for range 4 {
				c := r.dial()
				for i := range 10 {
					body := fmt.Sprint(i)
					c.post("/", body)
					if rand.N(10) == 0 {
						break
					}
					a := c.response("POST")
					if ok := a.StatusCode == 200 && a.body == "r"+body || a.StatusCode == 403 && a.body == "no" || a.StatusCode == 504 && strings.HasPrefix(a.body, "504"); !ok {
						t.Errorf("answer %d %q to %q", a.StatusCode, a.body, body)
					}
				}
				c.reset()
			}
		}()
	}
	asking.Wait()
	r.settle()
	close(tickets)
	resuming.Wait()
}
