package filter

import (
	"errors"
	"strconv"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// HSTS tells browsers to come by https only (RFC 6797). The field is set on answers over TLS, the proxy's own included,
// and replaces what the backend said; over plain text it must not be sent.
type HSTS struct {
	MaxAge            time.Duration // whole seconds; 0 makes browsers forget
	IncludeSubdomains bool
	Preload           bool
}

// Stage is the header stage.
func (HSTS) Stage() Stage { return Header }

// Compile makes the field's value.
func (h HSTS) Compile(*State) (l7.Filter, error) {
	if h.MaxAge < 0 {
		return l7.Filter{}, errors.New("hsts: the maximum age is negative")
	}
	value := "max-age=" + strconv.FormatInt(int64(h.MaxAge/time.Second), 10)
	if h.IncludeSubdomains {
		value += "; includeSubDomains"
	}
	if h.Preload {
		value += "; preload"
	}
	return l7.Filter{Response: &hsts{[]byte(value)}}, nil
}

type hsts struct{ value []byte }

var nameHSTS = []byte("Strict-Transport-Security")

func (h *hsts) Response(x *l7.Exchange) {
	if x.TLS {
		x.SetResponse(wire.FieldStrictTransportSecurity, nameHSTS, h.value)
	}
}
