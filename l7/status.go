package l7

import (
	"net/http"
	"strconv"

	"github.com/sluiceproxy/sluice/fastpath"
)

// statusOf is the status that answers an error of the data path: a table of whose fault it is and what kind.
func statusOf(e *fastpath.Error) int {
	switch e.Fault {
	case fastpath.FaultClient:
		return clientStatus[e.Kind]
	case fastpath.FaultBackend:
		return backendStatus[e.Kind]
	}
	return proxyStatus[e.Kind]
}

var clientStatus = statusTable(http.StatusBadRequest, map[fastpath.Kind]int{
	fastpath.KindUnsupported:    http.StatusNotImplemented,
	fastpath.KindVersion:        http.StatusHTTPVersionNotSupported,
	fastpath.KindMethod:         http.StatusMethodNotAllowed,
	fastpath.KindExpectation:    http.StatusExpectationFailed,
	fastpath.KindUpgrade:        http.StatusUpgradeRequired,
	fastpath.KindURITooLong:     http.StatusRequestURITooLong,
	fastpath.KindHeadTooLarge:   http.StatusRequestHeaderFieldsTooLarge,
	fastpath.KindBodyTooLarge:   http.StatusRequestEntityTooLarge,
	fastpath.KindLengthRequired: http.StatusLengthRequired,
	fastpath.KindTimeout:        http.StatusRequestTimeout,
	fastpath.KindTooSlow:        http.StatusRequestTimeout,
	fastpath.KindReset:          statusClientGone,
	fastpath.KindCancelled:      statusClientGone,
})

var backendStatus = statusTable(http.StatusBadGateway, map[fastpath.Kind]int{
	fastpath.KindTimeout:    http.StatusGatewayTimeout,
	fastpath.KindNoEndpoint: http.StatusServiceUnavailable,
	fastpath.KindOverload:   http.StatusServiceUnavailable,
})

var proxyStatus = statusTable(http.StatusInternalServerError, map[fastpath.Kind]int{
	fastpath.KindNoEndpoint:  http.StatusServiceUnavailable,
	fastpath.KindOverload:    http.StatusServiceUnavailable,
	fastpath.KindTimeout:     http.StatusGatewayTimeout,
	fastpath.KindRefused:     http.StatusServiceUnavailable,
	fastpath.KindUnsupported: http.StatusNotImplemented,
})

// statusClientGone is nginx's 499: nobody is left to read it; it stands in logs and metrics.
const statusClientGone = 499

const kindCount = int(fastpath.KindInternal) + 1

func statusTable(usual int, other map[fastpath.Kind]int) (t [kindCount]int) {
	for k := range t {
		t[k] = usual
	}
	for k, s := range other {
		t[k] = s
	}
	return t
}

// Errors of this room.
var (
	errNoEndpoint    = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindNoEndpoint, Text: "no endpoint is usable"}
	errBodyTooLarge  = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindBodyTooLarge, Text: "request body over proxy-body-size"}
	errLengthUnknown = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindLengthRequired, Text: "request body of unknown length over client-body-buffer-size, for a backend of HTTP/1.0"}
	errUpgradeIn10   = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindUnsupported, Text: "no upgrade: the backend is asked in HTTP/1.0 (proxy-http-version)"}
	errNoTunnel      = &fastpath.Error{Fault: fastpath.FaultBackend, Kind: fastpath.KindMalformed, Text: "backend answers a CONNECT by a page, and not by a tunnel"}
	errBodyTimeout   = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindTimeout, Text: "request body did not come in time"}
	errHeaderTimeout = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindTimeout, Text: "request head did not come in time"}
	errTooSlow       = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindTooSlow, Text: "request body under the minimum rate"}
	errSendTimeout   = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindCancelled, Text: "client does not read its response"}
	errBodyCut       = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindMalformed, Text: "connection ended within a request body"}
	errClientGone    = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindCancelled, Text: "client left before its response"}
	errReadTimeout   = &fastpath.Error{Fault: fastpath.FaultBackend, Kind: fastpath.KindTimeout, Text: "backend silent past proxy-read-timeout"}
	errOverdue       = &fastpath.Error{Fault: fastpath.FaultBackend, Kind: fastpath.KindTimeout, Text: "not answered within request-timeout"}
	errNotTLS        = &fastpath.Error{Fault: fastpath.FaultClient, Kind: fastpath.KindMalformed, Text: "no TLS on a TLS port"}
	errParkTimeout   = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindTimeout, Text: "parked past its deadline"}
	errPanic         = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindInternal, Text: "a filter panicked"}
	errEngine        = &fastpath.Error{Fault: fastpath.FaultProxy, Kind: fastpath.KindInternal, Text: "the engine panicked"}
	errKeyUnproved   = &fastpath.Error{Fault: fastpath.FaultBackend, Kind: fastpath.KindMalformed, Text: "backend's 101 does not answer the Sec-WebSocket-Key"}
	errSwitchedEarly = &fastpath.Error{Fault: fastpath.FaultBackend, Kind: fastpath.KindMalformed, Text: "backend switched protocols before the request was complete"}
)

// pages are the bodies of the proxy's own answers, by status.
var pages = func() (t [600][]byte) {
	for code := range t {
		if text := http.StatusText(code); text != "" && code >= 400 {
			t[code] = []byte(strconv.Itoa(code) + " " + text + "\n")
		}
	}
	return t
}()

// page is the body for a status; nil where none is usual.
func page(status int) []byte {
	if status < len(pages) {
		return pages[status]
	}
	return nil
}
