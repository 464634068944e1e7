package fastpath

import "syscall"

// calls are receives, or sends, of as many connections, made in a row: by one system call where there is a ring, else by one
// each. None of them waits.
type calls struct {
	list [flushBatch]call
	n    int
	ring *ring // nil: one by one
}

// call is a receive or a send, and what came of it.
type call struct {
	c     *Conn
	b     []byte
	n     int // bytes; 0 and no errno: the end, of a receive
	errno syscall.Errno
}

// UseRing has the loop make its calls in a row by one system call; before Run. The error tells why that cannot be had here:
// then the loop makes them one by one, as without UseRing.
func (l *Loop) UseRing() (err error) {
	l.calls.ring, err = newRing()
	return err
}

// add notes a call; b must be of the heap. The list must not be full.
func (s *calls) add(c *Conn, b []byte) {
	s.list[s.n] = call{c: c, b: b}
	s.n++
}

func (s *calls) full() bool { return s.n == len(s.list) }

// inARow makes the calls that were noted, as receives (ringOpRecv) or sends (ringOpSend). What it answers lives until the
// next add.
func (l *Loop) inARow(op uint8) []call {
	s := &l.calls
	list := s.list[:s.n]
	s.n = 0
	if s.ring == nil || len(list) < ringCallsMin {
		oneByOne(op, list)
		return list
	}
	s.ring.run(op, list)
	l.Stats.Batches.Store(l.Stats.Batches.Load() + 1)
	l.Stats.Batched.Store(l.Stats.Batched.Load() + uint64(len(list)))
	return list
}

func oneByOne(op uint8, list []call) {
	for i := range list {
		switch k := &list[i]; op {
		case ringOpRecv:
			k.n, k.errno = recv(k.c.fd, k.b, 0)
		case ringOpSend:
			k.n, k.errno = send(k.c.fd, k.b, 0)
		}
	}
}

func (s *calls) close() {
	if s.ring != nil {
		s.ring.close()
		s.ring = nil
	}
}
