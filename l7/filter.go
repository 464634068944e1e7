package l7

// Verdict is a request filter's answer.
type Verdict uint8

const (
	Continue Verdict = iota // go on with the next filter, then forward
	Respond                 // the filter has prepared a response (Exchange.Respond…); nothing is forwarded
	Park                    // the filter holds the exchange's Ticket; Resume goes on with the next filter
)

// RequestFilter is a behaviour on a request's way to the backend. It is immutable, shared by all loops, and called on
// the exchange's loop; it may neither block nor allocate. What differs per exchange lives in Exchange's typed fields.
type RequestFilter interface {
	Request(x *Exchange) Verdict
}

// ResponseFilter is a behaviour on a response's way back. It sees the head before it is written (also of responses made
// by the proxy) and may change its fields and status.
type ResponseFilter interface {
	Response(x *Exchange)
}

// Filter is the compiled form of one behaviour: its request half, its response half, or both. A behaviour may also be
// the error pages of its route.
type Filter struct {
	Request  RequestFilter
	Response ResponseFilter
	Errors   *ErrorPages
}
