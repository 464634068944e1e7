package upstream

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// Env is what all clusters of a process share. It is filled once and then shared by pointer.
type Env struct {
	Loops      []*fastpath.Loop // by ID
	Work       *fastpath.Work   // TLS handshakes towards backends
	Resolver   Resolver         // nil: the system's
	AllowCIDRs []netip.Prefix   // what may be dialled although docs/hardening.md 3.1 rule 7 refuses it
	Log        *slog.Logger     // nil: slog.Default

	// OwnAddresses are the node's addresses; nil: those of its interfaces.
	OwnAddresses func() ([]netip.Addr, error)

	// OwnPorts are those on which this process itself listens: on the node's own address they are no pod's. nil: none.
	OwnPorts func() []uint16

	mu     sync.Mutex
	own    map[netip.Addr]bool
	ownAge time.Time
}

func (env *Env) log() *slog.Logger {
	if env.Log != nil {
		return env.Log
	}
	return slog.Default()
}

func (env *Env) resolver() Resolver {
	if env.Resolver != nil {
		return env.Resolver
	}
	return systemResolver{}
}

// post runs f on every loop.
func (env *Env) post(f func(l *fastpath.Loop)) {
	for _, l := range env.Loops {
		l.Post(func() { f(l) })
	}
}
