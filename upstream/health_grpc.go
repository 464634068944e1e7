package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
)

// checkGRPC asks on conn for gRPC's own word on an endpoint's health: grpc.health.v1.Health/Check. It is HTTP/2, whatever
// the cluster speaks.
func (e *Endpoint) checkGRPC(ctx context.Context, conn net.Conn, v *view, k *Check) error {
	scheme, host := "http", k.Host
	if host == "" {
		host = e.addr.String()
	}
	transport := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, MaxResponseHeaderBytes: checkBytesMax}
	if config := e.tlsFor(v); config != nil {
		scheme = "https"
		transport.Protocols.SetHTTP2(true)
		transport.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			secured := config.Clone()
			secured.NextProtos = []string{protocolHTTP2}
			c := tls.Client(conn, secured)
			return c, c.HandshakeContext(ctx)
		}
	} else {
		transport.Protocols.SetUnencryptedHTTP2(true)
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	}
	defer transport.CloseIdleConnections()
	var message []byte
	if k.Service != "" {
		message = protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), k.Service)
	}
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+"://"+e.addr.String()+"/grpc.health.v1.Health/Check", bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Host = host
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"sluice-health"}}
	res, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, checkBytesMax))
	if err != nil {
		return err
	}
	status := res.Trailer.Get("Grpc-Status")
	if status == "" {
		status = res.Header.Get("Grpc-Status") // Trailers-Only
	}
	if res.StatusCode != http.StatusOK || status != "0" {
		return fmt.Errorf("it answered %d with gRPC status %q to grpc.health.v1.Health/Check", res.StatusCode, status)
	}
	return serving(answer)
}

// serving reads a HealthCheckResponse in its envelope; nil: its status is SERVING.
func serving(b []byte) error {
	if len(b) < 5 || b[0] != 0 || int(binary.BigEndian.Uint32(b[1:])) != len(b)-5 {
		return errors.New("its gRPC health answer is no message")
	}
	status := uint64(0)
	for b = b[5:]; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errors.New("its gRPC health answer is malformed")
		}
		b = b[n:]
		if number == 1 && kind == protowire.VarintType {
			if status, n = protowire.ConsumeVarint(b); n < 0 {
				return errors.New("its gRPC health answer is malformed")
			}
		} else if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return errors.New("its gRPC health answer is malformed")
		}
		b = b[n:]
	}
	if names := [...]string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}; status != 1 {
		return fmt.Errorf("its gRPC health is %s", names[min(status, 3)])
	}
	return nil
}
