package wire

import "testing"

// TestH2Noise: who gives back what was sent makes no noise, in pieces of any usual size and however late. Who gives back more,
// or a few bytes at a time, does.
func TestH2Noise(t *testing.T) {
	const sent, frame = 64 << 20, 16 << 10
	for name, c := range map[string]struct {
		sent   int
		update uint32
		most   int // updates that are taken; 0: all that give back what was sent, for both windows
	}{
		"Go's":               {sent, 4 << 10, 0},
		"of the least size":  {sent, h2UpdateLeast, 0},
		"of frames":          {sent, frame, 0},
		"a byte each":        {sent, 1, 2 * H2NoiseMax},
		"for nothing":        {0, 4 << 10, H2NoiseMax},
		"a byte for nothing": {0, 1, H2NoiseMax},
		"more than was sent": {frame, 4 << 10, 2*frame/(4<<10) + H2NoiseMax + 2},
	} {
		t.Run(name, func(t *testing.T) {
			var n H2Noise
			for range c.sent / frame {
				n.Sent(frame)
			}
			want := c.most
			if want == 0 {
				want = 2 * c.sent / int(c.update)
			}
			for i := range want {
				if !n.Update(c.update) {
					t.Fatalf("update %d is too much", i)
				}
			}
			if c.most > 0 && n.Update(c.update) {
				t.Errorf("after %d updates another one is taken", want)
			}
		})
	}
}
