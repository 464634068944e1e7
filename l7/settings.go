package l7

import (
	"net/netip"
	"time"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// Settings are the process-wide limits and habits of the HTTP engines (docs/hardening.md 3.3), immutable. They come from
// the ConfigMap and are read once per exchange.
type Settings struct {
	Limits         wire.Limits // client heads
	ResponseLimits wire.Limits // backends' heads: 64 KiB, 200 fields
	HTTP2          bool        // HTTP/2 is offered to clients: use-http2
	HTTP2Streams   int         // 100 at once of one connection: http2-max-concurrent-streams
	InterimMax     int         // 10: 1xx heads of a response that are passed on
	RequestBuffer  int         // 64 KiB: a request's body in memory before the backend is asked: client-body-buffer-size
	EncodeMemory   int         // 128 MiB: what bodies that are compressed may hold together: sluice-compress-memory
	Buffer         int         // 16 KiB: what is read at once from a client, and what waits at most for one that reads slowly

	FirstByteTimeout  time.Duration // 10 s: from accept to the first byte of a request
	HeaderTimeout     time.Duration // 10 s, absolute, from a head's first byte: client-header-timeout
	KeepAliveTimeout  time.Duration // 75 s between two requests: keep-alive
	KeepAliveRequests int           // 1000 per connection: keep-alive-requests
	BodyTimeout       time.Duration // 30 s between two reads of a body: client-body-timeout
	SendTimeout       time.Duration // 30 s between two writes of a response
	RateMin           int           // 240 B/s, bodies and responses
	RateGrace         time.Duration // 20 s before RateMin counts
	TunnelIdle        time.Duration // 1 h
	HalfCloseTimeout  time.Duration // 30 s

	ConnectTimeout time.Duration // 5 s: proxy-connect-timeout
	ReadTimeout    time.Duration // 60 s: proxy-read-timeout
	WriteTimeout   time.Duration // 60 s: proxy-send-timeout

	TrustedPeers         []netip.Prefix // whose X-Forwarded-* are believed (proxy-real-ip-cidr); empty: nobody's
	UseForwardedHeaders  bool           // use-forwarded-headers: of trusted peers, all X-Forwarded-*
	RealIP               bool           // enable-real-ip: of trusted peers, the client's address only
	ComputeFullForwarded bool           // compute-full-forwarded-for: append to a trusted X-Forwarded-For instead of replacing
	ForwardedForHeader   []byte         // forwarded-for-header; default X-Forwarded-For
	ForwardedHostHeader  string         // forwarded-host-header; default X-Forwarded-Host
	HTTPSPort            uint16         // --https-port, which backends are told as 443; 0: none
	PassServer           bool           // allow-backend-server-header: the backend's Server field goes on to the client
	NoRequestID          bool           // generate-request-id: false
	OriginalURI          bool           // proxy-add-original-uri-header
	ServerTokens         bool           // send "Server: sluice" on answers of our own
	AccessLog            bool
	AccessLogFormat      LogFormat
	AccessLogTemplate    *LogTemplate // log-format-upstream; nil: AccessLogFormat
	AccessLogSkip        *LogSkip     // skip-access-log-urls; nil: none
	NoDefaultAccessLog   bool         // enable-access-log-for-default-backend: false: what no Ingress answers is not logged
	RetryNonIdempotent   bool         // retry-non-idempotent

	// DefaultPolicy is the policy of what no Ingress asked for: the route of the default backend. Rules bring their own.
	DefaultPolicy Policy
}

// LogFormat is how access log lines look.
type LogFormat uint8

const (
	LogUpstream LogFormat = iota // ingress-nginx's upstreaminfo format
	LogJSON
)

// DefaultSettings is what holds without a ConfigMap.
func DefaultSettings() *Settings {
	return &Settings{
		FirstByteTimeout: 10 * time.Second, HeaderTimeout: 10 * time.Second,
		KeepAliveTimeout: 75 * time.Second, KeepAliveRequests: 1000,
		BodyTimeout: 30 * time.Second, SendTimeout: 30 * time.Second,
		RateMin: 240, RateGrace: 20 * time.Second,
		TunnelIdle: time.Hour, HalfCloseTimeout: 30 * time.Second,
		ConnectTimeout: 5 * time.Second, ReadTimeout: 60 * time.Second, WriteTimeout: 60 * time.Second,
		ResponseLimits:     wire.DefaultResponseLimits,
		Limits:             wire.DefaultLimits,
		HTTP2:              true,
		HTTP2Streams:       100,
		InterimMax:         10,
		RequestBuffer:      64 << 10,
		EncodeMemory:       128 << 20,
		Buffer:             16 << 10,
		ForwardedForHeader: []byte("X-Forwarded-For"), ForwardedHostHeader: "X-Forwarded-Host",
		AccessLog:     true,
		DefaultPolicy: DefaultPolicy(),
	}
}

// DefaultPolicy is what holds for a rule without annotations and a ConfigMap without keys: ingress-nginx's defaults.
func DefaultPolicy() Policy {
	return Policy{BodyMax: 1 << 20, BufferRequest: true, Tries: 3, NextUpstream: NextDefault}
}
