package upstream

import (
	"fmt"
	"strings"
)

// A KeyPart is a piece of what ConsistentHash hashes: text, or a variable of the request, which l7 fills in.
type KeyPart struct {
	Text     string // VariableNone: itself; else the name of the field, cookie or argument
	Variable Variable
}

// Variable names a property of requests, as nginx calls it.
type Variable uint8

const (
	VariableNone Variable = iota
	VariableRequestURI
	VariableURI
	VariableArgs
	VariableHost
	VariableHTTPHost
	VariableServerName
	VariableRemoteAddr
	VariableRemotePort
	VariableScheme
	VariableMethod
	VariableRequestID
	VariableServerPort
	VariableHTTP         // http_NAME: a request field, "-" written as "_"
	VariableCookie       // cookie_NAME
	VariableArg          // arg_NAME
	VariableBestHTTPHost // what a trusted peer says, else the request's
)

var variables = map[string]Variable{
	"request_uri": VariableRequestURI, "uri": VariableURI, "document_uri": VariableURI,
	"args": VariableArgs, "query_string": VariableArgs, "host": VariableHost, "best_http_host": VariableBestHTTPHost,
	"http_host": VariableHTTPHost, "server_name": VariableServerName,
	"remote_addr": VariableRemoteAddr, "binary_remote_addr": VariableRemoteAddr, "the_real_ip": VariableRemoteAddr,
	"remote_port": VariableRemotePort, "scheme": VariableScheme, "pass_access_scheme": VariableScheme,
	"request_method": VariableMethod, "req_id": VariableRequestID, "request_id": VariableRequestID,
	"server_port": VariableServerPort, "pass_port": VariableServerPort,
}

// Variables are the names of ParseKey, for documents.
const Variables = "$request_uri, $uri, $args, $host, $http_host, $best_http_host, $server_name, $remote_addr, $remote_port, $scheme, " +
	"$request_method, $req_id, $server_port, $http_NAME, $cookie_NAME, $arg_NAME"

const keyPartsMax = 32

// ParseKey reads text with nginx's variables, $name or ${name}. A $ that begins no name is text.
func ParseKey(text string) (parts []KeyPart, err error) {
	for text != "" {
		at := strings.IndexByte(text, '$')
		if at != 0 {
			if at < 0 {
				at = len(text)
			}
			parts = append(parts, KeyPart{Text: text[:at]})
			text = text[at:]
			continue
		}
		name, rest := VariableName(text[1:])
		if name == "" {
			parts, text = append(parts, KeyPart{Text: "$"}), text[1:]
			continue
		}
		part, ok := variablePart(name)
		if !ok {
			return nil, fmt.Errorf("the variable $%s is not known; these are: %s", name, Variables)
		}
		parts, text = append(parts, part), rest
	}
	if len(parts) > keyPartsMax {
		return nil, fmt.Errorf("more than %d variables and texts", keyPartsMax)
	}
	return parts, nil
}

// VariableName takes a name off the front: letters, digits and _, in braces or without.
func VariableName(s string) (name, rest string) {
	body, braced := strings.CutPrefix(s, "{")
	n := 0
	for n < len(body) && (body[n] == '_' || '0' <= body[n] && body[n] <= '9' || 'a' <= body[n]|0x20 && body[n]|0x20 <= 'z') {
		n++
	}
	if !braced {
		return body[:n], body[n:]
	}
	if n < len(body) && body[n] == '}' {
		return body[:n], body[n+1:]
	}
	return "", s
}

func variablePart(name string) (KeyPart, bool) {
	name = strings.ToLower(name)
	if v, ok := variables[name]; ok {
		return KeyPart{Variable: v}, true
	}
	for prefix, v := range map[string]Variable{"http_": VariableHTTP, "cookie_": VariableCookie, "arg_": VariableArg} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" {
			if v == VariableHTTP {
				rest = strings.ReplaceAll(rest, "_", "-")
			}
			return KeyPart{Text: rest, Variable: v}, true
		}
	}
	return KeyPart{}, false
}
