//go:build race

package l7

// raceEnabled tells that the race detector is compiled in. It allocates on its own, so tests that count allocations
// cannot run under it.
const raceEnabled = true
