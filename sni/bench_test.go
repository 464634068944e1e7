package sni

import "testing"

func BenchmarkParse(b *testing.B) {
	hello := shopHello(b)
	for _, c := range []struct {
		name   string
		stream []byte
	}{
		{"OneRecord", hello},
		{"TwoRecords", records(joined(hello), 1000)},
		{"RecordsOfOneByte", records(joined(hello), 1)},
		{"LargestInRecordsOfOneByte", records(messageFilling(helloBytesMax/6), 1)},
		{"ManyExtensions", records(message(numbered(helloExtensionsMax)...))},
		{"Short", hello[:1400]}, // the first segment of two
		{"HTTP", []byte("GET / HTTP/1.1\r\n")},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(c.stream)))
			for b.Loop() {
				h, err := Parse(c.stream)
				if err == nil && h.Offers("h3") {
					b.Fatal("unreachable, but keeps the call")
				}
			}
		})
	}
}

func BenchmarkParseProxy(b *testing.B) {
	for _, c := range []struct {
		name   string
		stream []byte
	}{
		{"V1TCP4", []byte("PROXY TCP4 192.0.2.1 203.0.113.7 56324 443\r\n")},
		{"V1TCP6", []byte("PROXY TCP6 2001:db8::1 2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff 56324 443\r\n")},
		{"V2TCP4", version2(0x21, 0x11, block4)},
		{"V2TCP6WithVectors", version2(0x21, 0x21, block6, typed(1, []byte("h2")), typed(0xea, make([]byte, 20)))},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := ParseProxy(c.stream); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
