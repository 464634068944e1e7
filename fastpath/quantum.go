package fastpath

import (
	"math"

	"golang.org/x/sys/unix"
)

// A congestion control that paces (BBR) lets a socket send one quantum, 64 KiB cut into segments further down, and if it was
// given more at once the kernel starts a timer for each that follows. Towards a peer that is near, on this machine or a pod of
// its node, the next is due sooner than others have had their turn: who gives one quantum a turn finds the socket ready each
// time, and hardly a timer is ever started. Towards all other peers timers are what pacing takes, whatever is given, and all
// that there is goes at once (docs/decisions/0105-a-quantum-a-turn.md).

// A peer is near if BBR has seen both.
const (
	nearMicros = 50    // there and back, at most: it is 2 to 20 on one machine, and hardly ever so little over a network
	nearMin    = 500e6 // bytes a second, at least: a quantum in 131 µs
)

const (
	// quantumMax is what Linux sends at once on devices as they are: 64 KiB less the room for headers.
	quantumMax = 64<<10 - 321

	quantaMin   = 208 << 10 // worth it if so much is still to come; of less too few quanta have to wait
	quantaFirst = 256 << 10 // after so many bytes it is asked once more: the peer's window has grown, and with it the segments
	quantaAgain = 1 << 20   // and then each time after so many: paths change
)

// quantum is what c's socket is best given at once, in bytes; 0: all that there is. It costs a system call or two with BBR, and
// one a connection without.
func (c *Conn) quantum() int64 {
	if c.flags&flagNotBBR != 0 {
		return 0
	}
	path, ok := bbrInfo(c.fd)
	if !ok {
		c.flags |= flagNotBBR
		return 0
	}
	if !near(path) {
		return 0
	}
	return quantumOf(int64(segmentMax(c.fd)))
}

// near judges what BBR has seen. It knows no bandwidth at first, and no time but that of the handshake.
func near(path unix.TCPBBRInfo) bool {
	return path.Min_rtt <= nearMicros && (path.Bw_hi > 0 || path.Bw_lo >= nearMin)
}

// quantumOf is how much goes at once in segments of mss bytes: only whole ones. A loopback segment is larger than quantumMax and
// goes alone. Pieces of another size leave rests, for which timers are started again.
func quantumOf(mss int64) int64 { return max(quantumMax/max(mss, 1), 1) * mss }

// turn is how much s may move before others have their turn.
func (s *Splicer) turn() int64 {
	if s.moved >= s.ask {
		s.quantum = s.to.quantum()
		s.ask = s.moved + quantaAgain
		if s.moved == 0 {
			s.ask = quantaFirst
		}
	}
	if s.quantum > 0 {
		return s.quantum
	}
	return 4 * turnBytes
}

// firstAsk is the byte from which on a splice of n bytes asks for the quantum: none if it is short, or a tunnel, whose pieces are
// small anyway.
func firstAsk(n int64) int64 {
	if n < quantaMin {
		return math.MaxInt64
	}
	return 0
}
