package main

import "cmp"

// A measurement is one proxy's figures of one round of one scenario.
type measurement struct {
	Round       int     `json:"round"`
	Cost        float64 `json:"cost"`        // in the scenario's unit
	SystemShare float64 `json:"systemShare"` // of the CPU: the kernel's part, 0 to 1
	Rate        float64 `json:"requestsPerSecond,omitempty"`
	MBPerSecond float64 `json:"megabytesPerSecond,omitempty"`
	P50         float64 `json:"p50Microseconds,omitempty"`
	P90         float64 `json:"p90Microseconds,omitempty"`
	P99         float64 `json:"p99Microseconds,omitempty"`
	P999        float64 `json:"p999Microseconds,omitempty"`
	Offered     float64 `json:"offeredPerSecond,omitempty"` // of an open loop
	Due         int64   `json:"due,omitempty"`              // of the whole load: requests that should have been sent
	Unanswered  int64   `json:"unanswered,omitempty"`       // … and those of them without an answer at its end
	Switches    float64 `json:"contextSwitchesPerRequest,omitempty"`
	Syscalls    float64 `json:"systemCallsPerRequest,omitempty"`
	PeakKiB     uint64  `json:"rssPeakKiB,omitempty"`
	Errors      int64   `json:"errors"`
	Bad         int64   `json:"badAnswers"`
	Example     string  `json:"errorExample,omitempty"`
	NotHeld     string  `json:"notHeld,omitempty"` // why latencies at a fixed rate mean nothing
	Requests    uint64  `json:"requests,omitempty"`
	CPUSeconds  float64 `json:"cpuSeconds,omitempty"`
	Others      float64 `json:"othersPercent"`        // of the machine's CPU time, used by processes that are not the bench's
	Coarse      bool    `json:"cpuInTicks,omitempty"` // by clock ticks of 10 ms, for threads came or went
	Connections int     `json:"idleConnections,omitempty"`
	RSSKiB      uint64  `json:"rssKiBBefore,omitempty"`
	Handshake   string  `json:"handshake,omitempty"`

	Extra map[string]float64 `json:"extra,omitempty"`     // what only this row has, by name and unit
	Curve []curvePoint       `json:"latencies,omitempty"` // as seen by the own generator
}

// measurement translates a window, all but its cost.
func (w window) measurement() measurement {
	seconds := w.length.Seconds()
	requests := float64(w.work.Requests)
	return measurement{
		SystemShare: w.used.system,
		Rate:        requests / seconds,
		MBPerSecond: float64(w.work.Bytes) / 1e6 / seconds,
		P50:         float64(w.load.latencies.p50.Microseconds()),
		P90:         float64(w.load.latencies.p90.Microseconds()),
		P99:         float64(w.load.latencies.p99.Microseconds()),
		P999:        float64(w.load.latencies.p999.Microseconds()),
		Due:         w.load.due,
		Unanswered:  max(0, w.load.due-w.load.requests),
		Curve:       w.load.latencies.curve,
		Switches:    float64(w.used.switches) / requests,
		Syscalls:    w.calls,
		PeakKiB:     w.peak >> 10,
		Errors:      w.load.errors,
		Bad:         w.load.bad,
		Example:     w.load.example,
		Requests:    w.work.Requests,
		CPUSeconds:  w.used.cpu.Seconds(),
		Others:      w.others,
		Coarse:      w.used.coarse,
	}
}

// costs sets the cost: the window's CPU per unit of work, scaled from seconds.
func (m *measurement) costs(w window, units, scale float64) {
	m.Cost = w.used.cpu.Seconds() * scale / units
}

// alsoFailed adds what went wrong in another measurement that this one is made with.
func (m *measurement) alsoFailed(other measurement) {
	m.Errors, m.Bad = m.Errors+other.Errors, m.Bad+other.Bad
	m.Example, m.NotHeld = cmp.Or(m.Example, other.Example), cmp.Or(m.NotHeld, other.NotHeld)
}

// clean says that every answer was right.
func (m measurement) clean() bool { return m.Errors == 0 && m.Bad == 0 }
