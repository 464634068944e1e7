package translate

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/l7/filter"
	"github.com/sluiceproxy/sluice/route"
)

// pathType is ingress-nginx's view: without a type a path is a Prefix.
func pathType(t *networkingv1.PathType) (kind route.PathType, why string) {
	if t == nil {
		return route.Prefix, ""
	}
	switch *t {
	case networkingv1.PathTypeExact:
		return route.Exact, ""
	case networkingv1.PathTypePrefix:
		return route.Prefix, ""
	case networkingv1.PathTypeImplementationSpecific:
		return route.Implementation, ""
	}
	return 0, "must be Exact, Prefix or ImplementationSpecific; the path is not served"
}

// checkPath tells why a path cannot be served.
func checkPath(path string, kind route.PathType) (why string) {
	switch {
	case path[0] != '/':
		return "does not begin with a slash; the path is not served"
	case len(path) > filter.PatternMax:
		return fmt.Sprintf("is longer than %d bytes; the path is not served", filter.PatternMax)
	case strings.ContainsAny(path, "\x00\r\n"):
		return "holds a control character; the path is not served"
	case kind == route.Implementation:
		return "" // perhaps a regular expression
	case strings.Contains(path, "//"), strings.Contains(path+"/", "/./"), strings.Contains(path+"/", "/../"):
		return "can match no request: paths are normalised before they are matched; write it without //, . and .. segments; the path is not served"
	}
	return ""
}

// strictPath tells whether a path has only the characters that ingress-nginx's webhook takes for Exact and Prefix.
func strictPath(path string) bool {
	for i := range len(path) {
		if c := path[i]; !alphanumeric(c) && strings.IndexByte("-._/", c) < 0 {
			return false
		}
	}
	return true
}

// checkExpression tells why a path cannot be a regular expression, as the paths of a host in regex mode are.
func checkExpression(path string) (why string) {
	if strictPath(path) {
		return ""
	}
	if err := filter.CheckPattern(path); err != nil {
		return "is no regular expression that can be served (" + err.Error() +
			"), and use-regex or rewrite-target make all paths of its host one; RE2's syntax holds; the path is not served"
	}
	return ""
}
