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
//
// BBR goes on taking a path for as fast as it ever was, so long as it sees that the application limits what flows: no segment is
// unsent when more is given, and the congestion window is not full. Where a quantum is one segment, on loopback, the kernel
// keeps both for us (docs/decisions/0112-less-than-the-window.md).

// A peer is near if BBR has seen both.
const (
	nearMicros = 50    // there and back, at most: it is 2 to 20 on one machine, and hardly ever so little over a network
	nearMin    = 500e6 // bytes a second, at least: a quantum in 131 µs
)

const (
	// quantumMax is what Linux sends at once on devices as they are: 64 KiB less the room for headers.
	quantumMax = 64<<10 - 321

	// tightBuffer is SO_SNDBUF on loopback, of which Linux makes twice as much: ten quanta, the window that TCP begins with. Less
	// is granted where net.core.wmem_max says so.
	tightBuffer = 320 << 10

	quantaMin   = 208 << 10 // worth it if so much is still to come; of less too few quanta have to wait
	quantaFirst = 256 << 10 // after so many bytes it is asked once more: the peer's window has grown, and with it the segments
	quantaAgain = 1 << 20   // and then each time after so many
)

// quantum is what c's socket is best given at once, in bytes; 0: all that there is. It costs a system call or two with BBR, and
// one a connection without.
func (c *Conn) quantum() int64 {
	if c.flags&flagTight == 0 && !c.near() {
		return 0
	}
	mss := int64(segmentMax(c.fd))
	n := quantumOf(mss)
	if n == mss {
		c.tighten()
	}
	return n
}

// near tells whether BBR paces c's socket towards a peer that is near.
func (c *Conn) near() bool {
	if c.flags&flagNotBBR != 0 {
		return false
	}
	path, ok := bbrInfo(c.fd)
	if !ok {
		c.flags |= flagNotBBR
	}
	return ok && isNear(path)
}

// isNear judges what BBR has seen. It knows no bandwidth at first, and no time but that of the handshake.
func isNear(path unix.TCPBBRInfo) bool {
	return path.Min_rtt <= nearMicros && (path.Bw_hi > 0 || path.Bw_lo >= nearMin)
}

// tighten has the socket take less than fills the congestion window, and nothing while something is unsent, for good: segments
// that large are loopback's, and cannot become a network's.
func (c *Conn) tighten() {
	if c.flags&flagTight == 0 {
		c.flags |= flagTight
		setsockopt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, tightBuffer)
		setsockopt(c.fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 1)
	}
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

// firstAsk is the byte from which on a splice of n bytes to c asks for the quantum: none if it is short. Tunnels mostly carry
// little, so they ask as soon as they have carried more.
func (c *Conn) firstAsk(n int64) int64 {
	switch {
	case 0 <= n && n < quantaMin:
		return math.MaxInt64
	case n < 0 && c.flags&flagTight == 0:
		return quantaFirst
	}
	return 0
}
