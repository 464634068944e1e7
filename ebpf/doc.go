// Package ebpf joins two TCP sockets in the kernel: a verdict program on a sockmap moves what one receives into the other's
// send queue, without a wake-up of ours, as long as little is queued there. It knows sockets and counters, no loops and no
// tunnels; fastpath.Tunnel follows its protocol (docs/sockmap.md).
package ebpf
