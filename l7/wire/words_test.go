package wire_test

import (
	"bytes"
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

// The word tricks must see every byte at every place of every length, whatever stands around it.
func TestEveryByteEverywhere(t *testing.T) {
	for _, fill := range []byte{'a', ' ', '~', 0x80, 0xff} {
		for n := 1; n <= 35; n++ {
			for at := range n {
				for c := range 256 {
					value := bytes.Repeat([]byte{fill}, n)
					value[at] = byte(c)
					valid := c >= ' ' && c != 0x7f || c == '\t'
					if wire.ValidValue(value) != valid {
						t.Fatalf("value %q: %t", value, !valid)
					}
				}
			}
		}
	}
	for n := 1; n <= 20; n++ {
		for at := range n {
			for c := range 256 {
				value := bytes.Repeat([]byte{'a'}, n)
				value[at] = byte(c)
				valid := c >= ' ' && c != 0x7f || c == '\t'
				r, _, _ := parseRequest([]byte(get("/", "X: "+string(value)+"\r\n")), nil)
				if (r != nil) != valid || valid && !bytes.Equal(r.Fields[0].Value, bytes.Trim(value, " \t")) {
					t.Fatalf("field %q", value)
				}
				r, _, _ = parseRequest([]byte(get("/?"+string(value))), nil)
				if valid = c > ' ' && c != 0x7f && c != '#'; (r != nil) != valid || valid && !bytes.Equal(r.Query, value) {
					t.Fatalf("query %q", value)
				}
			}
		}
	}
}
