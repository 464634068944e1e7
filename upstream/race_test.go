//go:build race

package upstream

// raceEnabled: the race detector allocates on its own account, so that allocation tests would measure it.
const raceEnabled = true
