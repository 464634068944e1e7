package translate

import (
	"slices"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
)

// What browsers need that call gRPC services.
var grpcAnnotations = []annotation{
	{
		key: "grpc-web", own: true, scope: scopeLocation, risk: riskLow, verdict: own,
		text: "Calls of gRPC-Web (application/grpc-web and application/grpc-web-text, with what follows them) become gRPC on their way to backends of " +
			"HTTP/2 (backend-protocol GRPC or GRPCS, appProtocol kubernetes.io/h2c), and their answers gRPC-Web again, errors of the proxy's own included. " +
			"All else goes as it is. With enable-cors the fields X-Grpc-Web, X-User-Agent and Grpc-Timeout are allowed too.",
		parse: func(d *dialect, value string) (err error) {
			d.policy.GRPCWeb, err = parseBool(value)
			return err
		},
	},
}

// grpcWebFields are the request fields of gRPC-Web's own that browsers ask for before a call.
var grpcWebFields = [...]string{"X-Grpc-Web", "X-User-Agent", "Grpc-Timeout"}

// clusterGRPC are the Problems of Ingresses that want gRPC-Web translated for backends of HTTP/1.1.
func (t *Translator) clusterGRPC(c *cluster, s *upstream.Settings) (problems []route.Problem) {
	if s.HTTP2 {
		return nil
	}
	for _, u := range c.uses {
		rule := u.at.kind == placePath || u.at.kind == placeDefault
		if f := u.fragment; f != nil && rule && u.canaryOf == nil && f.dialect.policy.GRPCWeb {
			problems = append(problems, problem(f.owner, annotationField(ownPrefix+"/grpc-web"),
				"is ignored for Service %s, whose backends speak HTTP/1.1; set %s/backend-protocol: GRPC, or GRPCS, if they speak gRPC", c.service, t.options.AnnotationsPrefix))
		}
	}
	return slices.Compact(problems)
}
