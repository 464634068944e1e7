package main

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// A machine is what numbers were measured on; it stands beside them in every report.
type machine struct {
	CPU       string  `json:"cpu"`
	Cores     int     `json:"cores"`
	MemoryMiB uint64  `json:"memoryMiB"`
	Kernel    string  `json:"kernel"`
	Go        string  `json:"go"`
	Wrk       string  `json:"wrk,omitempty"`
	LoadAvg   string  `json:"loadAverageBefore"`
	Steal     float64 `json:"stealPercent"` // of all CPU time during the run, taken by the host for others
	Groups    bool    `json:"groups"`       // the kernel schedules proxy, origin and load as a group each
}

// sharing ends a sentence about the machine with how processes share it.
func (m *machine) sharing() string {
	if m.Groups {
		return ", a scheduling group each for proxy, origin and load"
	}
	return ""
}

// describeMachine reads what can be read; what cannot stays empty.
func describeMachine(ctx context.Context) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version()}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = cpuModel(info)
	}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		kib, _ := statusNumber(append([]byte("\n"), info...), "\nMemTotal:")
		m.MemoryMiB = kib >> 10
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	if avg, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.LoadAvg = strings.Join(strings.Fields(string(avg))[:3], " ")
	}
	grouped, _ := os.ReadFile("/proc/sys/kernel/sched_autogroup_enabled") // absent: the kernel has no such groups
	m.Groups = string(bytes.TrimSpace(grouped)) == "1"
	m.Wrk = wrkVersion(ctx)
	return m
}

func cpuModel(info []byte) string {
	for line := range bytes.Lines(info) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if string(bytes.TrimSpace(name)) == "model name" {
			return string(bytes.TrimSpace(value))
		}
	}
	return runtime.GOARCH
}

// wrkVersion is empty without wrk, which exits with an error even when it only prints its version.
func wrkVersion(ctx context.Context) string {
	printed, _ := output(ctx, "wrk", "-v")
	fields := strings.Fields(firstLine(printed))
	if len(fields) < 2 || fields[0] != "wrk" {
		return ""
	}
	return fields[1]
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
