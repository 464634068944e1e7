package wire_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// parseRequest is what a server does with bytes that arrive at once. rest is what follows the head.
func parseRequest(b []byte, lim *wire.Limits) (r *wire.Request, rest []byte, err *fastpath.Error) {
	skip, n, err := wire.RequestHeadEnd(b, 0, lim)
	if err != nil || n == 0 {
		return nil, nil, err
	}
	r, arena := &wire.Request{}, &wire.Arena{}
	if err := r.Parse(arena.Copy(b[skip:skip+n]), arena, lim); err != nil {
		return nil, nil, err
	}
	return r, b[skip+n:], nil
}

func parseResponse(b []byte, m wire.Method) (r *wire.Response, rest []byte, err *fastpath.Error) {
	n, err := wire.ResponseHeadEnd(b, 0, nil)
	if err != nil || n == 0 {
		return nil, nil, err
	}
	r = &wire.Response{}
	if err := r.Parse(bytes.Clone(b[:n]), m, nil); err != nil {
		return nil, nil, err
	}
	return r, b[n:], nil
}

// show spells a request's model, for comparing.
func show(r *wire.Request) string {
	if r == nil {
		return "none"
	}
	var s strings.Builder
	fmt.Fprintf(&s, "%d %q %q path %q query %q (%t) authority %q host %q\n", r.Method, r.MethodText, r.Target, r.Path, r.Query,
		r.Query != nil, r.Authority, r.Host)
	fmt.Fprintf(&s, "%v %d minor %d keep %t expect %t te %t upgrade %q resolved %t listed %q\n", r.Framing, r.ContentLength, r.Minor,
		r.KeepAlive, r.Expect100, r.TETrailers, r.Upgrade, r.Resolved, r.Listed)
	return s.String() + showFields(r.Fields)
}

func showFields(fields []wire.Field) string {
	var s strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&s, "%d %q: %q\n", f.ID, f.Name, f.Value)
	}
	return s.String()
}

func showResponse(r *wire.Response) string {
	if r == nil {
		return "none"
	}
	return fmt.Sprintf("%d %q %v %d minor %d keep %t hint %d upgrade %q listed %q\n", r.Status, r.Reason, r.Framing, r.ContentLength,
		r.Minor, r.KeepAlive, r.KeepAliveHint, r.Upgrade, r.Listed) + showFields(r.Fields)
}

func text(err *fastpath.Error) string {
	if err == nil {
		return "ok"
	}
	return err.Text
}

// requestHeadEndSplit feeds b in two or more segments: cuts are the lengths seen.
func requestHeadEndSplit(b []byte, lim *wire.Limits, cuts ...int) (skip, n int, err *fastpath.Error) {
	scanned := 0
	for _, cut := range append(cuts, len(b)) {
		skip, n, err = wire.RequestHeadEnd(b[:cut], scanned, lim)
		if n > 0 || err != nil {
			return skip, n, err
		}
		scanned = cut
	}
	return skip, n, err
}

func responseHeadEndSplit(b []byte, cuts ...int) (n int, err *fastpath.Error) {
	scanned := 0
	for _, cut := range append(cuts, len(b)) {
		n, err = wire.ResponseHeadEnd(b[:cut], scanned, nil)
		if n > 0 || err != nil {
			return n, err
		}
		scanned = cut
	}
	return n, err
}

// everyByte are the cuts of a sender that trickles.
func everyByte(n int) []int {
	cuts := make([]int, n)
	for i := range cuts {
		cuts[i] = i
	}
	return cuts
}

// wantSplitInvariant checks that b's head ends alike when it comes whole, in two segments cut anywhere, and byte by byte.
func wantSplitInvariant(t testing.TB, b []byte, lim *wire.Limits) {
	t.Helper()
	skip, n, err := wire.RequestHeadEnd(b, 0, lim)
	check := func(cuts ...int) {
		if s, m, e := requestHeadEndSplit(b, lim, cuts...); s != skip || m != n || e != err {
			t.Fatalf("cut at %v of %q: %d, %d, %s; whole: %d, %d, %s", cuts, b, s, m, text(e), skip, n, text(err))
		}
	}
	for cut := range b {
		check(cut)
	}
	check(everyByte(len(b))...)
}
