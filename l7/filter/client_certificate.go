package filter

import (
	"fmt"
	"net/url"
	"regexp"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/l7/wire"
)

// ClientCertificate acts on what a host asks of its clients' certificates, which the connection's door has looked at: who
// may not come in gets 400, as from nginx, or is sent to ErrorPage. Over plain http nobody is asked. The backend gets what
// the client showed in ssl-client-*, and never what the client says there. It belongs to a host and comes before all else.
type ClientCertificate struct {
	Asked     bool   // clients are asked: the host's policy holds over TLS
	Closed    bool   // the policy cannot be had: 403 for everybody
	ErrorPage string // URL; "": 400
	Match     string // expression (RE2) that a subject has to match; "": none
	Pass      bool   // the certificate itself goes to the backend too
}

// Stage is the rewrite stage.
func (ClientCertificate) Stage() Stage { return Rewrite }

// Compile refuses a page that is no URL and an expression that RE2 lacks.
func (c ClientCertificate) Compile(*State) (l7.Filter, error) {
	f := &clientCertificate{asked: c.Asked, closed: c.Closed, pass: c.Pass, page: []byte(c.ErrorPage)}
	if c.ErrorPage != "" {
		if err := CheckErrorPage(c.ErrorPage); err != nil {
			return l7.Filter{}, err
		}
	}
	if c.Match != "" {
		if err := CheckPattern(c.Match); err != nil {
			return l7.Filter{}, fmt.Errorf("client certificate: %w", err)
		}
		re, err := regexp.Compile(c.Match)
		if err != nil {
			return l7.Filter{}, fmt.Errorf("client certificate: %w", err)
		}
		f.match = re
	}
	return l7.Filter{Request: f}, nil
}

// CheckErrorPage tells why a URL cannot be redirected to.
func CheckErrorPage(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || !fieldText(text) {
		return fmt.Errorf("%q is not an http or https URL", text)
	}
	return nil
}

type clientCertificate struct {
	asked, closed, pass bool
	page                []byte
	match               *regexp.Regexp
}

// The fields' names are ingress-nginx's.
var (
	nameClientCert    = []byte("ssl-client-cert")
	nameClientVerify  = []byte("ssl-client-verify")
	nameClientSubject = []byte("ssl-client-subject-dn")
	nameClientIssuer  = []byte("ssl-client-issuer-dn")
	unauthorized      = []byte("client certificate unauthorized")
)

func (f *clientCertificate) Request(x *l7.Exchange) l7.Verdict {
	shown := x.Presented()
	if f.asked && x.TLS && shown.Verdict() != l7.ClientGood {
		x.TurnAway()
		if len(f.page) > 0 {
			x.Redirect(302, f.page)
		} else {
			x.Respond(400, nil)
		}
		return l7.Respond
	}
	var subject, issuer, cert, result []byte
	if shown != nil {
		subject, issuer, result = shown.Subject(), shown.Issuer(), shown.Result()
		if f.pass {
			cert = shown.Escaped()
		}
	} else if x.TLS {
		result = shown.Result()
	}
	if f.match != nil && !f.match.Match(subject) {
		x.Respond(403, unauthorized)
		return l7.Respond
	}
	if f.closed {
		x.Respond(403, nil)
		return l7.Respond
	}
	tell(x, nameClientCert, cert)
	tell(x, nameClientVerify, result)
	tell(x, nameClientSubject, subject)
	tell(x, nameClientIssuer, issuer)
	return l7.Continue
}

// tell sets a request field; without a value there is none, whatever the client says.
func tell(x *l7.Exchange, name, value []byte) {
	if len(value) == 0 {
		x.Req.Fields = wire.DeleteName(x.Req.Fields, string(name))
		return
	}
	x.SetRequest(wire.FieldOther, name, value)
}
