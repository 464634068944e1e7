package fastpath

// Buffers come in four classes; a connection holds one only while bytes wait in it.
var bufferClasses = [...]int{4 << 10, 16 << 10, 64 << 10, inputBytesMax}

// buffers is a loop's stock of empty buffers.
type buffers struct {
	free [len(bufferClasses)][][]byte
}

// get returns an empty buffer with room for at least n bytes; n is bounded by the callers' limits.
func (s *buffers) get(n int) []byte {
	for i, size := range bufferClasses {
		if n > size {
			continue
		}
		f := s.free[i]
		if len(f) == 0 {
			return make([]byte, 0, size)
		}
		b := f[len(f)-1]
		s.free[i] = f[:len(f)-1]
		return b
	}
	return make([]byte, 0, n) // larger than any class: an output queue behind a TLS flush; not kept
}

// put takes back a buffer that get gave.
func (s *buffers) put(b []byte) {
	for i, size := range bufferClasses {
		if cap(b) == size && len(s.free[i]) < buffersIdleMax>>(2*i) {
			s.free[i] = append(s.free[i], b[:0])
			return
		}
	}
}

// grow returns b with room for n more bytes, in a buffer of at least twice the size if need be: a queue beyond the largest
// class would be copied for every piece that it gets.
func (s *buffers) grow(b []byte, n int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	nb := append(s.get(max(len(b)+n, 2*cap(b))), b...)
	if cap(b) > 0 {
		s.put(b)
	}
	return nb
}
