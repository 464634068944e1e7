package fastpath

import (
	"sync"
	"testing"
)

// parked keeps what it was resumed with.
type parked struct{ got []any }

func (p *parked) OnResume(v any) { p.got = append(p.got, v) }

func TestTicketResumesOnce(t *testing.T) {
	l := startLoop(t)
	p := &parked{}
	var ticket Ticket
	on(t, l, func() { ticket = l.Park(p) })
	ticket.Resume("first")
	ticket.Resume("second")
	on(t, l, func() {
		if len(p.got) != 1 || p.got[0] != "first" {
			t.Errorf("resumed with %v", p.got)
		}
	})
}

func TestTicketCancelled(t *testing.T) {
	l := startLoop(t)
	p := &parked{}
	on(t, l, func() {
		ticket := l.Park(p)
		ticket.Resume("on its way already")
		ticket.Cancel()
		ticket.Cancel()
		ticket.Resume("late")
	})
	on(t, l, func() {
		if len(p.got) != 0 {
			t.Errorf("a cancelled ticket resumed with %v", p.got)
		}
	})
	var none Ticket // an exchange that never parked
	none.Resume(1)
	none.Cancel()
}

// TestTicketGenerations: a slot is used again, and the tickets of its former owners lead nowhere.
func TestTicketGenerations(t *testing.T) {
	l := startLoop(t)
	var old []Ticket
	var last parked
	on(t, l, func() {
		for range 100 {
			ticket := l.Park(&last)
			old = append(old, ticket)
			ticket.Cancel()
		}
		if n := len(l.tickets.slots); n != 1 {
			t.Errorf("%d slots for one exchange at a time", n)
		}
	})
	var ticket Ticket
	on(t, l, func() { ticket = l.Park(&last) })
	for _, o := range old {
		o.Resume("stale")
	}
	on(t, l, func() {
		for _, o := range old {
			o.Cancel()
		}
	})
	ticket.Resume("right")
	on(t, l, func() {
		if len(last.got) != 1 || last.got[0] != "right" {
			t.Errorf("resumed with %v", last.got)
		}
	})
}

// TestTicketMayParkAgain: an exchange that is resumed parks for its next wait at once.
func TestTicketMayParkAgain(t *testing.T) {
	l := startLoop(t)
	done := make(chan int, 1)
	r := &relay{l: l, done: done}
	on(t, l, r.park)
	if n := receive(t, "the last wait", done); n != 50 {
		t.Errorf("%d waits", n)
	}
}

// relay waits fifty times in a row, each time for another goroutine.
type relay struct {
	l     *Loop
	waits int
	done  chan int
}

func (r *relay) park() {
	ticket := r.l.Park(r)
	go ticket.Resume(nil)
}

func (r *relay) OnResume(any) {
	if r.waits++; r.waits == 50 {
		r.done <- r.waits
		return
	}
	r.park()
}

// engine plays an authorisation service or the like on goroutines of its own: it gets copies of what it is asked and a
// ticket, and may answer twice or after the exchange has gone.
type engine struct{ questions chan question }

type question struct {
	ticket Ticket
	value  int
}

func (e *engine) run(wg *sync.WaitGroup) {
	for range 4 {
		wg.Go(func() {
			for q := range e.questions {
				q.ticket.Resume(q.value * 2)
				if q.value%5 == 0 {
					q.ticket.Resume(-1)
				}
			}
		})
	}
}

// asker is an exchange that waits for the engine, or gives up.
type asker struct {
	value    int
	answer   int
	gaveUp   bool
	resumed  int
	finished *int
}

func (a *asker) OnResume(v any) {
	a.resumed++
	a.answer = v.(int)
	*a.finished++
}

func TestTicketsWithAnEngineOnOtherGoroutines(t *testing.T) {
	loops := []*Loop{startLoop(t), startLoop(t)}
	e := &engine{questions: make(chan question, 16)}
	var wg sync.WaitGroup
	e.run(&wg)
	const n = 4000
	asked := make([][]*asker, len(loops))
	finished := make([]int, len(loops))
	for i := range n {
		which := i % len(loops)
		l := loops[which]
		a := &asker{value: i, finished: &finished[which]}
		asked[which] = append(asked[which], a)
		var ticket Ticket
		on(t, l, func() { ticket = l.Park(a) })
		e.questions <- question{ticket, i}
		if i%7 == 0 {
			l.Post(func() { // its deadline: either is first
				if a.resumed == 0 {
					a.gaveUp = true
					*a.finished++
				}
				ticket.Cancel()
			})
		}
	}
	close(e.questions)
	wg.Wait()
	for which, l := range loops {
		onEventually(t, l, "every exchange's end", func() bool { return finished[which] == len(asked[which]) })
		on(t, l, func() {
			for _, a := range asked[which] {
				if a.gaveUp == (a.resumed == 1) || a.resumed > 1 {
					t.Errorf("exchange %d: gave up %v, resumed %d times", a.value, a.gaveUp, a.resumed)
				}
				if a.resumed == 1 && a.answer != 2*a.value {
					t.Errorf("exchange %d was answered %d", a.value, a.answer)
				}
			}
			if free := len(l.tickets.free); free != len(l.tickets.slots) {
				t.Errorf("%d of %d slots are free", free, len(l.tickets.slots))
			}
		})
	}
}

// TestTicketResumedByMany: of many goroutines that resume one ticket, one counts.
func TestTicketResumedByMany(t *testing.T) {
	l := startLoop(t)
	for range 50 {
		p := &parked{}
		var ticket Ticket
		on(t, l, func() { ticket = l.Park(p) })
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() { ticket.Resume(g) })
		}
		wg.Wait()
		on(t, l, func() {
			if len(p.got) != 1 {
				t.Errorf("resumed %d times", len(p.got))
			}
		})
	}
}
