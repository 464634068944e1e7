package wire

import "bytes"

// Cookie gives the value of the first cookie of that name in a request's fields; nil: there is none (an empty value is
// not nil). Names of cookies are compared as they are spelled (RFC 6265), with fold in any case, as nginx's $cookie_NAME
// does. Quotes around a value belong to it.
func Cookie(fields []Field, name string, fold bool) []byte {
	for i := range fields {
		if fields[i].ID != FieldCookie {
			continue
		}
		for rest := fields[i].Value; len(rest) > 0; {
			var pair []byte
			pair, rest = cutByte(rest, ';')
			key, value := cutByte(bytes.TrimLeft(pair, " \t"), '=')
			if len(key) == len(pair) || len(key) != len(name) {
				continue
			}
			if string(key) == name || fold && sameFold(key, name) {
				return bytes.TrimRight(value, " \t")
			}
		}
	}
	return nil
}

// cutByte splits b at the first c; without one, all of b comes first.
func cutByte(b []byte, c byte) (before, after []byte) {
	if i := bytes.IndexByte(b, c); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// Argument gives the raw value of the first argument of that name in a query, the name in any case, as nginx's $arg_NAME
// does; nil: there is none.
func Argument(query []byte, name string) []byte {
	for rest := query; len(rest) > 0; {
		var pair []byte
		pair, rest = cutByte(rest, '&')
		if len(pair) > len(name) && pair[len(name)] == '=' && sameFold(pair[:len(name)], name) {
			return pair[len(name)+1:]
		}
	}
	return nil
}
