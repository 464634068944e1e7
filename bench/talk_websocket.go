package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// WebSocket (RFC 6455) as far as ping-pong needs it: a client sends a binary message of sizeSmall bytes, the origin
// sends it back.

const (
	webSocketPath  = "/echo"
	webSocketGUID  = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	webSocketKey   = "YmVuY2ggYmVuY2ggYmVuYw==" // 16 bytes; no secret: it tells caches apart from servers
	opcodeBinary   = 0x2
	opcodeClose    = 0x8
	frameFinal     = 0x80
	frameMasked    = 0x80
	length16       = 126
	length64       = 127
	webSocketMost  = 64 << 10 // of a message
	webSocketAllow = "HTTP/1.1 101 "
)

var (
	webSocketMask = [4]byte{0x12, 0x34, 0x56, 0x78}
	errNoUpgrade  = errors.New("no WebSocket: the upgrade was refused")
	errWebSocket  = errors.New("WebSocket: a frame that nobody asked for")
)

// webSocketAccept is the answer to a key.
func webSocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + webSocketGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// appendMessage appends a whole message in one frame; mask is nil at the server.
func appendMessage(out, payload []byte, mask *[4]byte) []byte {
	masked := byte(0)
	if mask != nil {
		masked = frameMasked
	}
	out = append(out, frameFinal|opcodeBinary)
	if len(payload) < length16 {
		out = append(out, masked|byte(len(payload)))
	} else {
		out = binary.BigEndian.AppendUint16(append(out, masked|length16), uint16(len(payload)))
	}
	if mask == nil {
		return append(out, payload...)
	}
	out = append(out, mask[:]...)
	begin := len(out)
	out = append(out, payload...)
	unmask(out[begin:], *mask)
	return out
}

func unmask(b []byte, mask [4]byte) {
	for i := range b {
		b[i] ^= mask[i%4]
	}
}

// A message is one frame as it was received. Its payload is a view.
type message struct {
	opcode  byte
	payload []byte
	size    int // of the whole frame
}

// parseMessage takes one frame off b; its size is 0 when b does not hold it whole. The payload is unmasked in place.
func parseMessage(b []byte) (message, error) {
	if len(b) < 2 {
		return message{}, nil
	}
	length, head := int(b[1]&^frameMasked), 2
	switch {
	case length == length64:
		return message{}, errWebSocket
	case length == length16 && len(b) < 4:
		return message{}, nil
	case length == length16:
		length, head = int(binary.BigEndian.Uint16(b[2:])), 4
	}
	var mask [4]byte
	masked := b[1]&frameMasked != 0
	if masked {
		head += len(mask)
	}
	if length > webSocketMost {
		return message{}, errWebSocket
	}
	if len(b) < head+length {
		return message{}, nil
	}
	m := message{b[0] & 0x0f, b[head : head+length], head + length}
	if masked {
		copy(mask[:], b[head-len(mask):])
		unmask(m.payload, mask)
	}
	return m, nil
}

// webSocketTalk sends a message, waits for it to come back, and sends the next.
type webSocketTalk struct {
	count   *clientCount
	host    string
	partial []byte
	open    bool
	busy    bool
	since   time.Time
	moved   time.Time
}

func (t *webSocketTalk) greet(out []byte) []byte {
	return fmt.Appendf(out, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n", webSocketPath, t.host, webSocketKey)
}

func (t *webSocketTalk) room() int {
	if !t.open || t.busy {
		return 0
	}
	return 1
}

func (t *webSocketTalk) ask(out []byte, since time.Time) []byte {
	t.busy, t.since, t.moved = true, since, t.count.now
	return appendMessage(out, bodySmall, &webSocketMask)
}

func (t *webSocketTalk) feed(b, out []byte) ([]byte, error) {
	t.moved = t.count.now
	t.partial = append(t.partial, b...)
	if !t.open {
		end := bytes.Index(t.partial, endOfHead)
		switch {
		case end < 0 && len(t.partial) > headMax:
			return out, errHeadLong
		case end < 0:
			return out, nil
		}
		if err := checkUpgrade(t.partial[:end]); err != nil {
			return out, err
		}
		t.open = true
		t.partial = append(t.partial[:0], t.partial[end+len(endOfHead):]...)
	}
	m, err := parseMessage(t.partial)
	if err != nil || m.size == 0 {
		return out, err
	}
	if !t.busy || m.opcode != opcodeBinary {
		return out, errWebSocket
	}
	t.busy = false
	t.count.answered(bytes.Equal(m.payload, bodySmall), t.since)
	if t.count.seen != nil {
		t.count.seen.Write(m.payload)
	}
	t.partial = append(t.partial[:0], t.partial[m.size:]...)
	return out, nil
}

func (t *webSocketTalk) underWay(tell func(since, moved time.Time)) {
	if t.busy {
		tell(t.since, t.moved)
	}
}

func (t *webSocketTalk) leaves() bool { return false }

// checkUpgrade wants 101 and the key's answer, which shows that the origin itself has answered.
func checkUpgrade(head []byte) error {
	if !bytes.HasPrefix(head, []byte(webSocketAllow)) {
		line, _, _ := bytes.Cut(head, bytesEndOfLine)
		return fmt.Errorf("%w: %s", errNoUpgrade, line)
	}
	if !bytes.Contains(head, []byte(webSocketAccept(webSocketKey))) {
		return fmt.Errorf("%w: a wrong Sec-WebSocket-Accept", errNoUpgrade)
	}
	return nil
}
