package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// A wire carries what a client of HTTP/2 and an origin say to each other, in pieces of step bytes, without sockets.
func wire(t *testing.T, c *http2Talk, o *http2Origin, sum *tally, step, asks int) {
	t.Helper()
	toOrigin, toClient := bytes.TrimPrefix(c.greet(nil), clientPreface), []byte(nil)
	for turn := 0; len(toOrigin) > 0 || len(toClient) > 0; turn++ {
		if turn > 1_000_000 {
			t.Fatal("they talk for ever")
		}
		n := min(step, len(toOrigin))
		out, err := o.take(toOrigin[:n], nil, sum)
		if err != nil {
			t.Fatalf("origin: %v", err)
		}
		toOrigin, toClient = toOrigin[n:], append(toClient, out...)
		n = min(step, len(toClient))
		if out, err = c.feed(toClient[:n], nil); err != nil {
			t.Fatalf("client: %v", err)
		}
		toClient = toClient[n:]
		for ; asks > 0 && c.room() > 0; asks-- {
			out = c.ask(out, time.Now())
		}
		toOrigin = append(toOrigin, out...)
	}
}

func TestHTTP2TalkWithItsOrigin(t *testing.T) {
	for name, l := range map[string]load{
		"small":      {path: pathSmall, streams: 3},
		"bulk":       {path: pathBulk, streams: 2},
		"upload":     {path: pathSmall, upload: sizeBulk, streams: 2},
		"gRPC":       {speaks: speakGRPC, streams: 4},
		"one by one": {path: pathSmall},
	} {
		for _, step := range []int{1 << 30, 1009, 7} {
			if step == 7 && (l.path == pathBulk || l.upload > 0) {
				continue // megabytes in sevens take long and show no more
			}
			l.host = hostBench
			if l.speaks != speakGRPC {
				l.speaks = speakHTTP2
			}
			count, sum := newClientCount(), tally{}
			wire(t, newHTTP2Talk(l, count), newHTTP2Origin(), &sum, step, 5)
			if count.requests != 5 || count.bad != 0 || sum.Requests != 5 {
				t.Errorf("%s in steps of %d: %d right, %d bad, origin %d", name, step, count.requests, count.bad, sum.Requests)
			}
		}
	}
}

// TestHTTP2KeepsWindows gives a client a narrow window and widens it bit by bit.
func TestHTTP2KeepsWindows(t *testing.T) {
	count := newClientCount()
	c := newHTTP2Talk(load{host: hostBench, path: pathSmall, upload: sizeBulk, speaks: speakHTTP2}, count)
	settings := appendFrame(nil, 6, http2.FrameSettings, 0, 0)
	settings = append(settings, 0, byte(http2.SettingInitialWindowSize), 0, 0, 0, 100)
	if _, err := c.feed(settings, nil); err != nil {
		t.Fatal(err)
	}
	body := func(out []byte) (n int) {
		for len(out) >= frameHeadBytes {
			length := int(out[0])<<16 | int(out[1])<<8 | int(out[2])
			if http2.FrameType(out[3]) == http2.FrameData {
				n += length
			}
			out = out[frameHeadBytes+length:]
		}
		return n
	}
	if n := body(c.ask(nil, time.Now())); n != 100 {
		t.Errorf("%d bytes left through a window of 100", n)
	}
	widen := func(id byte, by byte) []byte {
		return append(appendFrame(nil, 4, http2.FrameWindowUpdate, 0, uint32(id)), 0, 0, 0, by)
	}
	out, err := c.feed(widen(1, 50), nil)
	if n := body(out); n != 50 || err != nil {
		t.Errorf("%d bytes after 50 more, %v", n, err)
	}
	if out, _ = c.feed(widen(0, 50), nil); body(out) != 0 {
		t.Error("the connection's window opened the stream's")
	}
}

func TestHTTP2Refuses(t *testing.T) {
	frame := func(kind http2.FrameType, flags http2.Flags, id uint32, b ...byte) []byte {
		return append(appendFrame(nil, len(b), kind, flags, id), b...)
	}
	for name, said := range map[string][]byte{
		"a long frame":                 appendFrame(nil, frameMax+1, http2.FrameData, 0, 1),
		"padding longer than the data": frame(http2.FrameData, http2.FlagDataPadded, 1, 9, 0),
		"no length of padding":         frame(http2.FrameData, http2.FlagDataPadded, 1),
		"a short window":               frame(http2.FrameWindowUpdate, 0, 0, 1),
		"data on no stream":            frame(http2.FrameData, 0, 7, 1),
		"a head on no stream":          frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 7, 0x88),
		"GOAWAY with an error":         frame(http2.FrameGoAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
		"a broken head":                frame(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0xff),
		"an endless head":              bytes.Repeat(frame(http2.FrameHeaders, 0, 1, bytes.Repeat([]byte{0x88}, 8192)...), 3),
		"the stream is reset":          frame(http2.FrameRSTStream, 0, 1, 0, 0, 0, 1),
	} {
		c := newHTTP2Talk(load{host: hostBench, path: pathSmall, speaks: speakHTTP2}, newClientCount())
		if _, err := c.feed(frame(http2.FrameSettings, 0, 0), nil); err != nil {
			t.Fatal(err)
		}
		c.ask(nil, time.Now())
		if _, err := c.feed(said, nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestHTTP2LeavesInGoodOrder(t *testing.T) {
	c := newHTTP2Talk(load{host: hostBench, path: pathSmall, speaks: speakHTTP2}, newClientCount())
	c.feed(appendFrame(nil, 0, http2.FrameSettings, 0, 0), nil)
	c.ask(nil, time.Now())
	if _, err := c.feed(append(appendFrame(nil, 8, http2.FrameGoAway, 0, 0), 0, 0, 0, 1, 0, 0, 0, 0), nil); err != nil {
		t.Fatal(err)
	}
	if c.room() != 0 || c.leaves() {
		t.Errorf("room %d, leaves %v while an answer is to come", c.room(), c.leaves())
	}
}

func TestWebSocketTalk(t *testing.T) {
	head := string(upgradeAnswer(webSocketKey))
	echo := string(appendMessage(nil, bodySmall, nil))
	tests := []struct {
		name, upgrade, says string
		right, bad          int64
		err                 error
	}{
		{"an echo", head, echo, 1, 0, nil},
		{"another message", head, string(appendMessage(nil, []byte("no"), nil)), 0, 1, nil},
		{"a close", head, "\x88\x00", 0, 0, errWebSocket},
		{"a length of 64 bits", head, "\x82\x7f\x00\x00", 0, 0, errWebSocket},
		{"no upgrade", "HTTP/1.1 404 Not Found\r\n\r\n", "", 0, 0, errNoUpgrade},
		{"another's key", strings.Replace(head, webSocketAccept(webSocketKey), webSocketAccept("x"), 1), "", 0, 0, errNoUpgrade},
		{"an endless head", strings.Repeat("a", headMax+1), "", 0, 0, errHeadLong},
	}
	for _, test := range tests {
		for _, step := range []int{1 << 20, 1} {
			count := newClientCount()
			c := &webSocketTalk{count: count, host: hostBench}
			err := feedTalk(c, test.upgrade, step)
			if err == nil {
				if c.room() != 1 {
					t.Fatalf("%s: no room after the upgrade", test.name)
				}
				c.ask(nil, time.Now())
				err = feedTalk(c, test.says, step)
			}
			if !errors.Is(err, test.err) || count.requests != test.right || count.bad != test.bad {
				t.Errorf("%s in steps of %d: %d right, %d bad, %v", test.name, step, count.requests, count.bad, err)
			}
		}
	}
}

func feedTalk(c talk, says string, step int) error {
	for i := 0; i < len(says); i += step {
		if _, err := c.feed([]byte(says[i:min(i+step, len(says))]), nil); err != nil {
			return err
		}
	}
	return nil
}

func TestWebSocketMask(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 1000} {
		payload := bytes.Repeat([]byte("x"), size)
		m, err := parseMessage(appendMessage(nil, payload, &webSocketMask))
		if err != nil || !bytes.Equal(m.payload, payload) || m.opcode != opcodeBinary {
			t.Errorf("%d bytes: %+v, %v", size, m, err)
		}
	}
	if got := webSocketAccept("dGhlIHNhbXBsZSBub25jZQ=="); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455, 1.3
		t.Errorf("the answer to the RFC's key is %s", got)
	}
}

func TestParseH2load(t *testing.T) {
	const printed = `finished in 2.04s, 11057.50 req/s, 766.92KB/s
requests: 22115 total, 22215 started, 22115 done, 22110 succeeded, 5 failed, 2 errored, 1 timeout
status codes: 22100 2xx, 0 3xx, 4 4xx, 6 5xx
`
	got, err := parseH2load(printed)
	if err != nil || got.requests != 22100 || got.errors != 3 || got.bad != 10 || got.example == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseH2load("Could not connect to host"); !errors.Is(err, errH2load) {
		t.Errorf("no report: %v", err)
	}
}
