package l7

import (
	"log/slog"
	"runtime/debug"

	"github.com/sluiceproxy/sluice/fastpath"
)

// This file keeps a defect from taking more with it than it must (docs/hardening.md 3.4): a panic in a filter ends its
// exchange, one in an engine its connection.

// panicked is the verdict of a request filter that gave none.
const panicked Verdict = 1<<8 - 1

// ask runs a request filter.
func (x *Exchange) ask(f RequestFilter) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			countPanic(x.loop, p)
			v = panicked
		}
	}()
	return f.Request(x)
}

// tell runs a response filter.
func (x *Exchange) tell(f ResponseFilter) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			countPanic(x.loop, p)
			ok = false
		}
	}()
	f.Response(x)
	return true
}

// recovered, deferred by what the loop calls, ends an exchange and its connection when leading it panicked. Nothing may
// stay behind that waits for it: a drain would wait too.
func (x *Exchange) recovered() {
	p := recover()
	if p == nil {
		return
	}
	countPanic(x.loop, p)
	if x.client != nil && x.stage < stageTunnel {
		x.abort(errEngine)
	}
}

// recovered is the same for a connection, which may be between two exchanges.
func (h *http1) recovered() {
	p := recover()
	if p == nil {
		return
	}
	countPanic(h.local.loop, p)
	h.looping = false
	if x := h.x; x != nil && x.stage < stageTunnel {
		x.abort(errEngine)
		return
	}
	h.closed()
	h.c.Abort()
}

// recovered is the same for a connection of many exchanges.
func (h *http2) recovered() {
	p := recover()
	if p == nil {
		return
	}
	countPanic(h.local.loop, p)
	h.closed(errEngine)
	h.c.Abort()
}

func countPanic(l *fastpath.Loop, p any) {
	l.Stats.Panics.Add(1)
	slog.Error("a request panicked; it is ended, everything else serves on: please report this", "panic", p, "stack", string(debug.Stack()))
}
