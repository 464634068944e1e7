package ebpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Reason is why sockets cannot be joined, as a label of a metric.
type Reason string

// The reasons.
const (
	ReasonKernel     Reason = "kernel"     // too old, or built without what is needed
	ReasonCapability Reason = "capability" // the process lacks a right
	ReasonTest       Reason = "self_test"  // all is there, and does not work
	ReasonDetached   Reason = "detached"   // somebody took the program away
	ReasonLoad       Reason = "load"       // the kernel refused the program or a map
)

// Unavailable says why the kernel cannot join sockets here, in words for an operator.
type Unavailable struct {
	Reason Reason
	Text   string
}

func (u *Unavailable) Error() string { return u.Text }

func unavailable(r Reason, format string, args ...any) *Unavailable {
	return &Unavailable{Reason: r, Text: fmt.Sprintf(format, args...)}
}

// The oldest kernel that is trusted. Before it, redirects lost data when a socket refused some, and took a FIN for data.
const kernelMajorMin, kernelMinorMin = 6, 12

// capabilities are what loading takes, each with what it is for.
var capabilities = []struct {
	number uint
	name   string
	use    string
}{
	{unix.CAP_BPF, "CAP_BPF", "loads programs and makes maps"},
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", "attaches programs to sockets"},
	{unix.CAP_PERFMON, "CAP_PERFMON", "lets the limiter read the send queue's length"},
}

// btfFile is where a kernel describes its structs.
const btfFile = "/sys/kernel/btf/vmlinux"

// Probe tells whether the kernel and the rights of this process fit; nil: they do. That a feature exists does not say that
// it works: Open tries that.
func Probe() *Unavailable {
	if u := probeKernel(); u != nil {
		return u
	}
	if missing := missingCapabilities(); len(missing) > 0 {
		return unavailable(ReasonCapability, "the process lacks %s: add them to the container, or as file capabilities", strings.Join(missing, ", "))
	}
	if _, err := os.Stat(btfFile); err != nil {
		return unavailable(ReasonKernel, "%s is missing: the kernel was built without CONFIG_DEBUG_INFO_BTF", btfFile)
	}
	for _, f := range []struct {
		name string
		err  func() error
	}{
		{"socket hash maps", func() error { return features.HaveMapType(ebpf.SockHash) }},
		{"programs on sockets' streams", func() error { return features.HaveProgramType(ebpf.SkSKB) }},
		{"the helper sk_redirect_hash", helper(asm.FnSkRedirectHash)},
		{"the helper get_socket_cookie", helper(asm.FnGetSocketCookie)},
		{"the helper skc_to_tcp_sock", helper(asm.FnSkcToTcpSock)},
		{"the helper ringbuf_output", helper(asm.FnRingbufOutput)},
	} {
		if err := f.err(); err != nil {
			return refused(fmt.Sprintf("the kernel offers no %s", f.name), err)
		}
	}
	return nil
}

func helper(f asm.BuiltinFunc) func() error {
	return func() error { return features.HaveProgramHelper(ebpf.SkSKB, f) }
}

// refused names what the kernel did not do. Without the rights that Probe saw it is something above the kernel that
// forbids: a seccomp profile, or a security module.
func refused(what string, err error) *Unavailable {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return unavailable(ReasonCapability, "%s: %v: the capabilities are there, so a seccomp profile, a security module or a user namespace forbids bpf(2)", what, err)
	}
	return unavailable(ReasonKernel, "%s: %v", what, err)
}

func probeKernel() *Unavailable {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return unavailable(ReasonKernel, "the kernel's version is unknown: %v", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	if !recent(release) {
		return unavailable(ReasonKernel, "kernel %s is older than %d.%d, the oldest whose sockmap is trusted not to lose data", release, kernelMajorMin, kernelMinorMin)
	}
	return nil
}

// recent tells whether a kernel's release is kernelMajorMin.kernelMinorMin or later. One that cannot be read is not.
func recent(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return major > kernelMajorMin || major == kernelMajorMin && minor >= kernelMinorMin
}

// missingCapabilities are those of capabilities that this thread does not have, each with its use. CAP_SYS_ADMIN stands for
// CAP_BPF and CAP_PERFMON, as in the kernel.
func missingCapabilities() (missing []string) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return []string{fmt.Sprintf("known capabilities (capget: %v)", err)}
	}
	has := func(n uint) bool { return data[n/32].Effective&(1<<(n%32)) != 0 }
	for _, c := range capabilities {
		if has(c.number) || c.number != unix.CAP_NET_ADMIN && has(unix.CAP_SYS_ADMIN) {
			continue
		}
		missing = append(missing, fmt.Sprintf("%s (%s)", c.name, c.use))
	}
	return missing
}
