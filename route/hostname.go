package route

import "strings"

func isWildcard(name string) bool { return strings.HasPrefix(name, "*.") }

// checkHostName tells what is wrong with a host name, or with the parent domain of a wildcard; "": nothing. Underscores
// are not of the DNS's host names, but nginx serves them, and so do we.
func checkHostName(name string) string {
	if name == "" {
		return ""
	}
	if len(name) > hostBytesMax {
		return "is longer than a host name may be"
	}
	for label := range strings.SplitSeq(name, ".") {
		if wrong := checkLabel(label); wrong != "" {
			return wrong
		}
	}
	return ""
}

func checkLabel(label string) string {
	if label == "" {
		return "has an empty label"
	}
	if len(label) > hostLabelMax {
		return "has a label of more than 63 bytes"
	}
	for i := range len(label) {
		switch c := label[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-' && i > 0 && i < len(label)-1:
		default:
			return "is not a host name: lower-case letters, digits and inner hyphens in labels, a wildcard only as the whole first label"
		}
	}
	return ""
}
