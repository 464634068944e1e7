package l7

import (
	"net/http"
	"strconv"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// This file is what the proxy knows of gRPC, which is HTTP/2 with a content type, a deadline (grpc-timeout) and a status in
// trailers: a call is streamed, never collected; its own deadline ends it; and what the proxy itself answers, it says in
// gRPC's words.

// call looks whether the request is a gRPC call. Only HTTP/2 carries one.
func (x *Exchange) call() {
	if x.major != 2 || x.Req.Method != wire.MethodPost || !isGRPC(wire.Get(x.Req.Fields, wire.FieldContentType)) {
		return
	}
	x.grpc = true
	if v := wire.GetName(x.Req.Fields, "grpc-timeout"); v != nil {
		x.callTimeout = grpcTimeout(v)
	}
}

// isGRPC tells whether a content type is gRPC's, which says what its messages are encoded in behind "+" or ";".
func isGRPC(v []byte) bool {
	n := len(grpcType)
	return len(v) >= n && wire.EqualFold(v[:n], grpcType) && (len(v) == n || v[n] == '+' || v[n] == ';')
}

var grpcType = []byte("application/grpc")

// grpcTimeout reads a grpc-timeout: at most 8 digits and a unit. What is none, or nothing at all, does not count: the
// backend is who refuses it.
func grpcTimeout(v []byte) time.Duration {
	n := len(v) - 1
	if n < 1 || n > 8 {
		return 0
	}
	unit := time.Duration(0)
	switch v[n] {
	case 'H':
		unit = time.Hour
	case 'M':
		unit = time.Minute
	case 'S':
		unit = time.Second
	case 'm':
		unit = time.Millisecond
	case 'u':
		unit = time.Microsecond
	case 'n':
		unit = 1
	default:
		return 0
	}
	sum := time.Duration(0)
	for _, c := range v[:n] {
		if c < '0' || c > '9' {
			return 0
		}
		sum = sum*10 + time.Duration(c-'0')
	}
	if sum > callTimeoutMax/unit {
		return callTimeoutMax
	}
	return sum * unit
}

const callTimeoutMax = 1000 * time.Hour // beyond it a deadline is none that the proxy has to keep

// total is what the exchange may last: the route's request-timeout, or the deadline of its call; 0: no limit.
func (x *Exchange) total() time.Duration {
	d := x.Route.Policy.Timeout
	if t := x.callTimeout; t > 0 && (d == 0 || t < d) {
		return t
	}
	return d
}

// clientWait is for how long the backend may be silent while the client's body is waited for; 0: it need not speak. In a
// call either side may speak at any time, and only the silence of both ends it.
func (x *Exchange) clientWait() time.Duration {
	if x.duplex() {
		return x.readTimeout()
	}
	return 0
}

// GRPCStatus is the status of a call (google.golang.org/grpc/codes).
type GRPCStatus uint8

// The statuses that the proxy answers.
const (
	grpcCancelled        GRPCStatus = 1
	grpcUnknown          GRPCStatus = 2
	grpcDeadlineExceeded GRPCStatus = 4
	grpcPermissionDenied GRPCStatus = 7
	grpcExhausted        GRPCStatus = 8
	grpcUnimplemented    GRPCStatus = 12
	grpcInternal         GRPCStatus = 13
	grpcUnavailable      GRPCStatus = 14
	grpcUnauthenticated  GRPCStatus = 16
)

// grpcStatusOf is the status of a call that the proxy answered with a status of HTTP: gRPC's own table for clients that meet
// one (http-grpc-status-mapping.md), and where we know more, what we know.
func grpcStatusOf(status int, err *fastpath.Error) GRPCStatus {
	if err == errOverdue {
		return grpcDeadlineExceeded
	}
	switch status {
	case http.StatusBadRequest, http.StatusRequestHeaderFieldsTooLarge, http.StatusInternalServerError:
		return grpcInternal
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermissionDenied
	case http.StatusNotFound, http.StatusNotImplemented:
		return grpcUnimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return grpcUnavailable
	case http.StatusRequestEntityTooLarge:
		return grpcExhausted
	case statusClientGone, http.StatusRequestTimeout:
		return grpcCancelled
	}
	return grpcUnknown
}

// answerCall turns an error of the proxy's own into gRPC's words: a head that is the trailers, too (Trailers-Only), or the body
// that tells a client of gRPC-Web. Log and metrics are told the status of HTTP
// (docs/decisions/0034-grpc-status-is-not-http-status.md).
func (x *Exchange) answerCall() (body []byte) {
	r := &x.Resp
	status := r.Status
	x.callStatus = status
	r.Status, r.Framing, r.ContentLength, r.Unsaid = http.StatusOK, wire.FramingLength, 0, true
	if x.web != nil {
		return x.answerWeb(status)
	}
	r.Fields = wire.Set(r.Fields, wire.FieldContentType, grpcType)
	r.Fields = x.appendGRPCStatus(r.Fields, status, x.err)
	return nil
}

// appendGRPCStatus appends what tells a call's end.
func (x *Exchange) appendGRPCStatus(fields []wire.Field, status int, err *fastpath.Error) []wire.Field {
	code := strconv.AppendUint(x.Arena.Reserve(3), uint64(grpcStatusOf(status, err)), 10)
	message := page(status)
	if n := len(message); n > 0 {
		message = message[:n-1] // its line's end
	}
	if err == errWebText {
		message = messageWebText
	}
	return append(fields, wire.Field{Name: nameGRPCStatus, Value: x.Arena.Commit(code)}, wire.Field{Name: nameGRPCMessage, Value: message})
}

var (
	nameGRPCStatus  = []byte("grpc-status")
	nameGRPCMessage = []byte("grpc-message")
)

// endCall ends a call whose answer has begun by the trailers that say why; false: they cannot be sent.
func (x *Exchange) endCall(err *fastpath.Error) bool {
	if !x.grpc || x.stage != stageBody || err.Kind == fastpath.KindCancelled || x.bodies.outEnded {
		return false
	}
	if x.web != nil {
		if !x.endWebCall(err) {
			return false
		}
		x.done()
		return true
	}
	if !x.Req.TETrailers {
		return false
	}
	if x.client.EndBody(x.appendGRPCStatus(nil, statusOf(err), err)) != nil {
		return false
	}
	x.done()
	return true
}
