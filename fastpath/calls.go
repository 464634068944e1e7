package fastpath

import "syscall"

// calls are receives or sends of as many connections, made in a row: by one system call where the kernel and the rights
// allow it (ring.go), else by one each. None of them waits.
type calls struct {
	list [flushBatch]call
	n    int
	ring *ring // nil: one by one
}

// call is a receive or a send, and what came of it.
type call struct {
	c     *Conn
	b     []byte
	n     int
	errno syscall.Errno
}

// add notes a call. The list must not be full.
func (s *calls) add(c *Conn, b []byte) {
	s.list[s.n] = call{c: c, b: b}
	s.n++
}

func (s *calls) full() bool { return s.n == len(s.list) }

// receive makes the calls noted, as receives, and answers them; they are forgotten with the next add.
func (s *calls) receive() []call {
	list := s.take()
	if s.ring != nil && len(list) >= ringCallsMin {
		s.ring.run(ringOpRecv, list)
		return list
	}
	for i := range list {
		list[i].n, list[i].errno = recv(list[i].c.fd, list[i].b, 0)
	}
	return list
}

// send is receive, for sends.
func (s *calls) send() []call {
	list := s.take()
	if s.ring != nil && len(list) >= ringCallsMin {
		s.ring.run(ringOpSend, list)
		return list
	}
	for i := range list {
		list[i].n, list[i].errno = send(list[i].c.fd, list[i].b, 0)
	}
	return list
}

func (s *calls) take() []call {
	list := s.list[:s.n]
	s.n = 0
	return list
}

func (s *calls) close() {
	if s.ring != nil {
		s.ring.close()
		s.ring = nil
	}
}
