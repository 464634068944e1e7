package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
)

// rawMessages has a client of gRPC-Web send and take messages as bytes: their encoding is the tests'.
type rawMessages struct{}

func (rawMessages) Name() string { return "proto" }

func (rawMessages) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }

func (rawMessages) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = bytes.Clone(b)
	return nil
}

// Messages of grpc-go's interop service.
func simpleRequest(size int, code int, message string) *[]byte {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), uint64(size))
	if code != 0 {
		status := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(code))
		status = protowire.AppendString(protowire.AppendTag(status, 2, protowire.BytesType), message)
		b = protowire.AppendBytes(protowire.AppendTag(b, 7, protowire.BytesType), status)
	}
	return &b
}

func streamingRequest(sizes []int, interval time.Duration) *[]byte {
	var b []byte
	for _, n := range sizes {
		p := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(n))
		p = protowire.AppendVarint(protowire.AppendTag(p, 2, protowire.VarintType), uint64(interval/time.Microsecond))
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), p)
	}
	return &b
}

// payloadOf is the length of an answer's payload; -1: it is none.
func payloadOf(answer []byte) int {
	_, _, n := protowire.ConsumeTag(answer)
	payload, m := protowire.ConsumeBytes(answer[max(n, 0):])
	if n < 0 || m < 0 {
		return -1
	}
	for len(payload) > 0 {
		number, kind, n := protowire.ConsumeTag(payload)
		if n < 0 {
			return -1
		}
		if payload = payload[n:]; number == 2 {
			body, _ := protowire.ConsumeBytes(payload)
			return len(body)
		}
		if n = protowire.ConsumeFieldValue(number, kind, payload); n < 0 {
			return -1
		}
		payload = payload[n:]
	}
	return 0
}

// TestGRPCWeb: a client of gRPC-Web (connect-go's) calls grpc-go's interop server through the whole program, over every version of
// HTTP, and sees what one of gRPC sees.
func TestGRPCWeb(t *testing.T) {
	port := startInterop(t, builtTool(t, "interop-server"))
	web := map[string]string{"backend-protocol": "GRPC", "sluice.dev/grpc-web": "true", "ssl-redirect": "false", "enable-cors": "true"}
	p := startProxy(t, secretOf(t, "tls", issue(t, "calls.example"))+
		site{name: "calls", host: "calls.example", secret: "tls", ports: []int{port}, annotations: web}.yaml()+
		site{name: "none", host: "calls.example", path: "/none", secret: "tls", annotations: web}.yaml())
	const service = "/grpc.testing.TestService/"
	for name, client := range clientsOf(t, p, "calls.example") {
		t.Run(name, func(t *testing.T) {
			base := "http://" + p.HTTP
			if name == "h2" {
				base = "https://" + p.HTTPS
			}
			client := &http.Client{Transport: asHost{client.Transport, "calls.example"}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			call := func(method string) *connect.Client[[]byte, []byte] {
				return connect.NewClient[[]byte, []byte](client, base+method, connect.WithGRPCWeb(), connect.WithCodec(rawMessages{}))
			}
			for _, size := range []int{0, 1, 1000, 500_000} {
				q := connect.NewRequest(simpleRequest(size, 0, ""))
				q.Header().Set("x-grpc-test-echo-initial", "first")
				q.Header().Set("x-grpc-test-echo-trailing-bin", base64.StdEncoding.EncodeToString([]byte("last")))
				a, err := call(service+"UnaryCall").CallUnary(ctx, q)
				if err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
				if got := payloadOf(*a.Msg); got != size {
					t.Errorf("a payload of %d, want %d", got, size)
				}
				if first, last := a.Header().Get("x-grpc-test-echo-initial"), a.Trailer().Get("x-grpc-test-echo-trailing-bin"); first != "first" || strings.TrimRight(last, "=") != "bGFzdA" {
					t.Errorf("metadata %q and %q", first, last)
				}
			}
			for _, c := range []struct {
				method  string
				ask     *[]byte
				code    connect.Code
				message string
			}{
				{service + "UnaryCall", simpleRequest(0, 2, "what\twas that\n☺"), connect.CodeUnknown, "what\twas that\n☺"},
				{service + "UnimplementedCall", simpleRequest(0, 0, ""), connect.CodeUnimplemented, ""},
				{"/grpc.testing.Nobody/Call", simpleRequest(0, 0, ""), connect.CodeUnimplemented, "unknown service"},
				{"/none/Call", simpleRequest(0, 0, ""), connect.CodeUnavailable, "503 Service Unavailable"},
			} {
				_, err := call(c.method).CallUnary(ctx, connect.NewRequest(c.ask))
				if connect.CodeOf(err) != c.code || !strings.Contains(fmt.Sprint(err), c.message) {
					t.Errorf("%s: %v, want %v %s", c.method, err, c.code, c.message)
				}
			}
			sizes := []int{31415, 9, 2653, 58979}
			s, err := call(service+"StreamingOutputCall").CallServerStream(ctx, connect.NewRequest(streamingRequest(sizes, 0)))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range sizes {
				if !s.Receive() || payloadOf(*s.Msg()) != want {
					t.Fatalf("no message of %d: %v", want, s.Err())
				}
			}
			if s.Receive() || s.Err() != nil {
				t.Errorf("after the last message: %v", s.Err())
			}
			late, stop := context.WithTimeout(ctx, 200*time.Millisecond)
			defer stop()
			s, err = call(service+"StreamingOutputCall").CallServerStream(late, connect.NewRequest(streamingRequest([]int{1}, 10*time.Minute)))
			for err == nil && s.Receive() { // none comes in time
			}
			if err == nil {
				err = s.Err()
			}
			if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
				t.Errorf("beyond its deadline a call ends with %v", err)
			}
			checkWebPreflight(t, client, base+service+"UnaryCall")
			checkWebText(t, client, base+service+"EmptyCall")
		})
	}
}

// asHost has requests go to one host.
type asHost struct {
	http.RoundTripper
	host string
}

func (a asHost) RoundTrip(q *http.Request) (*http.Response, error) {
	q.Host = a.host
	return a.RoundTripper.RoundTrip(q)
}

// checkWebPreflight asks as a browser does before a call to another origin.
func checkWebPreflight(t *testing.T, client *http.Client, url string) {
	t.Helper()
	q, _ := http.NewRequest(http.MethodOptions, url, nil)
	q.Header.Set("Origin", "https://page.example")
	q.Header.Set("Access-Control-Request-Method", "POST")
	q.Header.Set("Access-Control-Request-Headers", "content-type,grpc-timeout,x-grpc-web,x-user-agent")
	a, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	a.Body.Close()
	allowed := strings.ToLower(a.Header.Get("Access-Control-Allow-Headers"))
	for name := range strings.SplitSeq(q.Header.Get("Access-Control-Request-Headers"), ",") {
		if !strings.Contains(","+allowed+",", ","+name+",") {
			t.Errorf("%s is not allowed: %s", name, allowed)
		}
	}
	if a.StatusCode != 204 || a.Header.Get("Access-Control-Allow-Origin") == "" {
		t.Errorf("the preflight: %d %v", a.StatusCode, a.Header)
	}
}

// checkWebText makes a call in the text form, as PROTOCOL-WEB.md writes it.
func checkWebText(t *testing.T, client *http.Client, url string) {
	t.Helper()
	q, _ := http.NewRequest(http.MethodPost, url, strings.NewReader("AAAAAAA=")) // one empty message
	q.Header.Set("Content-Type", "application/grpc-web-text")
	q.Header.Set("Accept", "application/grpc-web-text")
	q.Header.Set("Origin", "https://page.example")
	a, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	var plain []byte
	for at := 0; at+4 <= len(body); at += 4 {
		part, err := base64.StdEncoding.DecodeString(string(body[at : at+4]))
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		plain = append(plain, part...)
	}
	want := "\x00\x00\x00\x00\x00\x80\x00\x00\x00\x10grpc-status: 0\r\n"
	if err != nil || a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/grpc-web-text" || a.Header.Get("Access-Control-Allow-Origin") == "" ||
		!strings.HasPrefix(string(plain), want[:6]) || !strings.Contains(string(plain), want[10:]) {
		t.Errorf("%d %v, %q (%v)", a.StatusCode, a.Header, plain, err)
	}
}
