package l7

import (
	"encoding/asn1"
	"unicode/utf16"
	"unicode/utf8"
)

// What backends are told of a client's certificate, as nginx writes it (OpenSSL's XN_FLAG_RFC2253).

// attributeNames are OpenSSL's short ones.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.4": "SN", "2.5.4.5": "serialNumber", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST",
	"2.5.4.9": "street", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.12": "title", "2.5.4.13": "description", "2.5.4.17": "postalCode",
	"2.5.4.41": "name", "2.5.4.42": "GN", "2.5.4.43": "initials", "2.5.4.44": "generationQualifier", "2.5.4.46": "dnQualifier",
	"1.2.840.113549.1.9.1": "emailAddress", "0.9.2342.19200300.100.1.1": "UID", "0.9.2342.19200300.100.1.25": "DC",
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

// nameBytesMax bounds the text of a name: what is longer is cut, and so matches nothing that it should not.
const nameBytesMax = 4 << 10

// distinguishedName is a name of a certificate as text, RFC 2253: printable ASCII only, the last part first.
func distinguishedName(raw []byte) []byte {
	out := make([]byte, 0, 128)
	var parts []asn1.RawValue
	if _, err := asn1.Unmarshal(raw, &parts); err != nil {
		return out
	}
	for i := len(parts) - 1; i >= 0; i-- {
		var set []attribute
		if _, err := asn1.UnmarshalWithParams(parts[i].FullBytes, &set, "set"); err != nil {
			return out[:0]
		}
		for j := range set {
			switch {
			case j > 0:
				out = append(out, '+')
			case len(out) > 0:
				out = append(out, ',')
			}
			out = appendAttribute(out, &set[j])
		}
		if len(out) > nameBytesMax {
			return out[:nameBytesMax]
		}
	}
	return out
}

func appendAttribute(out []byte, a *attribute) []byte {
	oid := a.Type.String()
	text, known := attributeText(&a.Value)
	name, named := attributeNames[oid]
	if !named {
		name = oid
	}
	out = append(append(out, name...), '=')
	if !named || !known {
		out = append(out, '#')
		for _, c := range a.Value.FullBytes {
			out = append(out, upperHex[c>>4], upperHex[c&15])
		}
		return out
	}
	for i, c := range text {
		switch {
		case c < 0x20 || c >= 0x7f:
			out = append(out, '\\', upperHex[c>>4], upperHex[c&15])
			continue
		case c == ',' || c == '+' || c == '"' || c == '\\' || c == '<' || c == '>' || c == ';',
			c == '#' && i == 0, c == ' ' && (i == 0 || i == len(text)-1):
			out = append(out, '\\')
		}
		out = append(out, c)
	}
	return out
}

// attributeText is a value as UTF-8; false: it is no text.
func attributeText(v *asn1.RawValue) ([]byte, bool) {
	if v.Class != asn1.ClassUniversal {
		return nil, false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString:
		return v.Bytes, true
	case asn1.TagT61String: // Latin 1, as OpenSSL takes it
		var out []byte
		for _, c := range v.Bytes {
			out = utf8.AppendRune(out, rune(c))
		}
		return out, true
	case asn1.TagBMPString:
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = uint16(v.Bytes[2*i])<<8 | uint16(v.Bytes[2*i+1])
		}
		return []byte(string(utf16.Decode(units))), len(v.Bytes)%2 == 0
	}
	return nil, false
}

// escapeComponent escapes all that is not unreserved (RFC 3986 2.3).
func escapeComponent(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/4)
	for _, c := range b {
		if 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
			out = append(out, c)
		} else {
			out = append(out, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return out
}
