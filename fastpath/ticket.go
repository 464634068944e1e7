package fastpath

// Ticket is the right to resume one parked exchange, once: a loop, a slot of it, and the slot's generation. It is a plain
// value; whoever holds it may outlive the exchange, the ticket then does nothing.
type Ticket struct {
	loop *Loop
	slot int32
	gen  uint32
}

// Parked is what waits behind a ticket.
type Parked interface {
	// OnResume comes on the loop. It recovers its own panics: what they have to end, an exchange, a stream or a connection,
	// it alone knows. One that gets out is counted and ends nothing; the ticket is spent all the same.
	OnResume(v any)
}

type tickets struct {
	slots []ticketSlot
	free  []int32
}

type ticketSlot struct {
	parked Parked
	gen    uint32
}

// Park makes a ticket for p. On the loop only.
func (l *Loop) Park(p Parked) Ticket {
	t := &l.tickets
	if len(t.free) == 0 {
		t.slots = append(t.slots, ticketSlot{gen: 1})
		t.free = append(t.free, int32(len(t.slots)-1))
	}
	i := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.slots[i].parked = p
	return Ticket{loop: l, slot: i, gen: t.slots[i].gen}
}

// Resume leads v to the parked exchange, on its loop. From any goroutine; the first call counts, and none does anything
// once the ticket was cancelled.
func (t Ticket) Resume(v any) {
	if t.loop != nil {
		t.loop.Post(func() {
			if p := t.take(); p != nil {
				p.OnResume(v)
			}
		})
	}
}

// Cancel makes the ticket worthless: the exchange ended or its deadline passed. On the loop only.
func (t Ticket) Cancel() {
	if t.loop != nil {
		t.take()
	}
}

// take frees the slot if it is still of the ticket's generation.
func (t Ticket) take() Parked {
	s := &t.loop.tickets.slots[t.slot]
	if s.gen != t.gen || s.parked == nil {
		return nil
	}
	p := s.parked
	s.parked, s.gen = nil, s.gen+1
	t.loop.tickets.free = append(t.loop.tickets.free, t.slot)
	return p
}
