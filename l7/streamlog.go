package l7

import (
	"net/netip"
	"time"

	"github.com/sluiceproxy/sluice/fastpath"
)

// StreamRecord is what the access log is told of a connection of a TCP service, or a session of a UDP service, at its end.
type StreamRecord struct {
	Now      time.Time
	Format   LogFormat
	Remote   netip.AddrPort // the client; what a PROXY header said, where there was one
	Protocol string         // "TCP", "UDP"
	Port     uint16         // of ours
	Status   int            // as nginx's $status: 200, 500, 502
	Sent     int64          // to the client
	Received int64
	Duration int64 // nanoseconds

	Namespace, Service, To string
	Upstream               netip.AddrPort // invalid: none was found
	Err                    *fastpath.Error
}

// WriteStream appends r's line. It neither waits nor allocates.
func (a *AccessLog) WriteStream(loop int, r *StreamRecord) {
	l, kind := &a.loops[loop], logHTTP
	if a.apart.Load() {
		kind = logStream
	}
	b := l.begin(kind, r.Now)
	if b == nil {
		return
	}
	if r.Format == LogJSON {
		b.b = appendStreamJSON(b.b, r, &l.stamp)
	} else {
		b.b = appendStreamText(b.b, r, &l.stamp)
	}
	a.endLine(l, b)
}

// appendStreamText appends a line of ingress-nginx's log-format-stream:
//
//	[$remote_addr] [$time_local] $protocol $status $bytes_sent $bytes_received $session_time
func appendStreamText(b []byte, r *StreamRecord, now *logStamp) []byte {
	b = appendRemote(append(b, '['), r.Remote.Addr(), '-')
	b = append(b, "] ["...)
	b = append(b, now.local...)
	b = append(b, "] "...)
	b = append(b, r.Protocol...)
	b = appendInt(append(b, ' '), int64(r.Status), ' ')
	b = appendInt(b, r.Sent, ' ')
	b = appendInt(b, r.Received, ' ')
	return append(appendMillis(b, r.Duration), '\n')
}

// appendStreamJSON appends a line that is one JSON object. Its names are nginx's where nginx has one.
func appendStreamJSON(b []byte, r *StreamRecord, now *logStamp) []byte {
	b = append(b, `{"time":"`...)
	b = appendISO(b, now)
	b = append(b, `","remote_addr":"`...)
	b = appendRemote(b, r.Remote.Addr(), 0)
	b = append(b, `","protocol":"`...)
	b = append(b, r.Protocol...)
	b = append(b, `","server_port":`...)
	b = appendInt(b, int64(r.Port), ',')
	b = append(b, `"status":`...)
	b = appendInt(b, int64(r.Status), ',')
	b = append(b, `"bytes_sent":`...)
	b = appendInt(b, r.Sent, ',')
	b = append(b, `"bytes_received":`...)
	b = appendInt(b, r.Received, ',')
	b = append(b, `"session_time":`...)
	b = appendMicros(b, r.Duration)
	b = appendNamed(b, `,"namespace":"`, r.Namespace)
	b = appendNamed(b, `","service":"`, r.Service)
	b = appendNamed(b, `","port":"`, r.To)
	b = append(b, `","upstream_addr":"`...)
	b = append(appendAddrPort(b, r.Upstream), '"')
	if e := r.Err; e != nil {
		b = appendNamed(b, `,"fault":"`, e.Fault.String())
		b = appendNamed(b, `","kind":"`, e.Kind.String())
		b = append(appendNamed(b, `","error":"`, e.Text), '"')
	}
	return append(b, "}\n"...)
}

// appendISO appends the time of day with milliseconds.
func appendISO(b []byte, now *logStamp) []byte {
	b = append(b, now.iso...)
	b = append(b, '.', byte('0'+now.millis/100), byte('0'+now.millis/10%10), byte('0'+now.millis%10))
	return append(b, now.zone...)
}

// StreamStatus is nginx's $status of an end.
func StreamStatus(connected bool, err *fastpath.Error) int {
	switch {
	case !connected:
		return 502
	case err != nil && err.Fault == fastpath.FaultProxy:
		return 500
	}
	return 200
}
