package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"
)

const probeLimit = 20 * time.Second // the first one may find the origin making 100 MiB

// A probed answer is what one request showed about a proxy's way of answering.
type probed struct {
	wire  int64  // bytes of the answer, of HTTP/1.1
	curve string // of the handshake; empty without TLS
	suite string
}

// probe makes one request on a new connection and looks at every byte of the answer. Measurements look at
// status and length only, so each begins with a probe.
func probe(ctx context.Context, l load) (probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	conn, err := dial(ctx, l)
	if conn != nil {
		defer conn.Close()
	}
	if err != nil {
		return probed{}, fmt.Errorf("probe: %w", err)
	}
	if secured, ok := conn.(*tls.Conn); ok && l.speaks.overHTTP2() && secured.ConnectionState().NegotiatedProtocol != "h2" {
		return probed{}, fmt.Errorf("probe: %w", errNoHTTP2)
	}
	count := newClientCount()
	count.seen = &bytes.Buffer{}
	if err := converse(conn, l, count); err != nil {
		return probed{}, fmt.Errorf("probe: %w", err)
	}
	if !holds(count.seen, answerSize(l)) {
		return probed{}, fmt.Errorf("probe: %w: the body is another", errNotTheOrigin)
	}
	p := probed{wire: int64(count.seen.Len())}
	if secured, ok := conn.(*tls.Conn); ok {
		state := secured.ConnectionState()
		p.curve, p.suite = state.CurveID.String(), tls.CipherSuiteName(state.CipherSuite)
	}
	return p, nil
}

// A lacking proxy cannot do what a scenario asks for. That is found out by asking it, not known beforehand: the row
// fills in by itself once the proxy can.
type lacking struct{ what string }

func (l lacking) Error() string { return l.what }

// orLacking turns a probe's error that means "I do not do that" into lacking, for the scenarios of a feature.
func orLacking(feature string, err error) error {
	var refused refusal
	switch {
	case errors.Is(err, errNoHTTP2), errors.Is(err, errNoUpgrade):
		return lacking{err.Error()}
	case errors.As(err, &refused):
		return lacking{fmt.Sprintf("no %s: a request for it is answered with %v", feature, refused)}
	}
	return err
}
