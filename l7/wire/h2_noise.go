package wire

// H2NoiseMax is how many frames that move nothing a peer may send in a period, beyond those that DATA justifies.
const H2NoiseMax = 1000

const (
	h2UpdateLarge = 16 << 10 // a WINDOW_UPDATE by so much is never noise: few of them fill any window
	h2UpdateLeast = 512      // one by less is noise even where it gives back what was sent
)

// H2Noise counts the frames of a peer that move nothing (docs/hardening.md 3.3), against the DATA that goes to and fro. The
// zero value is ready. Its owner knows when a period ends.
type H2Noise struct {
	frames int32 // less than 0: DATA has justified some that have not come
	spent  int64 // bytes sent that have not been given back, counted for the stream's window and for the connection's
}

// Forget begins a new period. What was sent may be given back at any time.
func (c *H2Noise) Forget() { c.frames = 0 }

// Moved tells of a frame that moved something: it justifies the updates of two windows.
func (c *H2Noise) Moved() { c.frames = max(c.frames-2, -H2NoiseMax) }

// Sent tells of a DATA frame of n bytes that was sent. Go's clients give them back in pieces of 4 KiB, long after the last one.
func (c *H2Noise) Sent(n int) {
	c.Moved()
	c.spent += 2 * int64(n)
}

// Update tells of a WINDOW_UPDATE by n; false: it is noise, and too much.
func (c *H2Noise) Update(n uint32) bool {
	given := int64(n)
	fair := n >= h2UpdateLarge || n >= h2UpdateLeast && given <= c.spent
	c.spent = max(c.spent-given, 0)
	return fair || c.More()
}

// More tells of a frame that moves nothing; false: it is one too many.
func (c *H2Noise) More() bool {
	c.frames++
	return c.frames <= H2NoiseMax
}
