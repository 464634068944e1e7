package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"time"
)

const probeLimit = 5 * time.Second

// A probed answer is what one request showed about a proxy's way of answering.
type probed struct {
	wire  int64  // bytes of the answer
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
	if _, err := conn.Write(request(l.host, l.path)); err != nil {
		return probed{}, fmt.Errorf("probe: %w", err)
	}
	var answer answerParser
	var seen bytes.Buffer
	buf := make([]byte, clientReadBytes)
	for done := false; !done; {
		n, err := conn.Read(buf)
		if n == 0 && err != nil {
			return probed{}, fmt.Errorf("probe: %w", unexpected(err))
		}
		seen.Write(buf[:n])
		if done, err = answer.feed(buf[:n]); err != nil {
			return probed{}, fmt.Errorf("probe: %w", err)
		}
	}
	if size := sizeOf(l.path); !answer.right(size) || !bytes.HasSuffix(seen.Bytes(), body(size)) {
		return probed{}, fmt.Errorf("probe: status %d with %d bytes is not the origin's answer", answer.status, answer.length)
	}
	p := probed{wire: answer.size}
	if secured, ok := conn.(*tls.Conn); ok {
		state := secured.ConnectionState()
		p.curve, p.suite = state.CurveID.String(), tls.CipherSuiteName(state.CipherSuite)
	}
	return p, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
