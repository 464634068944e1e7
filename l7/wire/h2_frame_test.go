package wire_test

import (
	"testing"

	"github.com/sluiceproxy/sluice/l7/wire"
)

func TestH2Check(t *testing.T) {
	for name, c := range map[string]struct {
		head wire.H2Head
		code wire.H2Code
		conn bool
	}{
		"DATA on 0":               {wire.H2Head{Type: wire.H2Data}, wire.H2ProtocolError, true},
		"HEADERS on 0":            {wire.H2Head{Type: wire.H2Headers}, wire.H2ProtocolError, true},
		"PRIORITY on 0":           {wire.H2Head{Type: wire.H2Priority, Length: 5}, wire.H2ProtocolError, true},
		"RST_STREAM on 0":         {wire.H2Head{Type: wire.H2Reset, Length: 4}, wire.H2ProtocolError, true},
		"CONTINUATION on 0":       {wire.H2Head{Type: wire.H2Continuation}, wire.H2ProtocolError, true},
		"SETTINGS on 1":           {wire.H2Head{Type: wire.H2Settings, Stream: 1}, wire.H2ProtocolError, true},
		"PING on 1":               {wire.H2Head{Type: wire.H2Ping, Length: 8, Stream: 1}, wire.H2ProtocolError, true},
		"GOAWAY on 1":             {wire.H2Head{Type: wire.H2GoAway, Length: 8, Stream: 1}, wire.H2ProtocolError, true},
		"PRIORITY_UPDATE on 1":    {wire.H2Head{Type: wire.H2PriorityUpdate, Length: 8, Stream: 1}, wire.H2ProtocolError, true},
		"PUSH_PROMISE":            {wire.H2Head{Type: wire.H2PushPromise, Stream: 1}, wire.H2ProtocolError, true},
		"too long":                {wire.H2Head{Type: wire.H2Data, Length: wire.H2FrameMax + 1, Stream: 1}, wire.H2FrameSizeError, true},
		"unknown, too long":       {wire.H2Head{Type: 0xee, Length: wire.H2FrameMax + 1}, wire.H2FrameSizeError, true},
		"PRIORITY of 4":           {wire.H2Head{Type: wire.H2Priority, Length: 4, Stream: 1}, wire.H2FrameSizeError, false},
		"RST_STREAM of 3":         {wire.H2Head{Type: wire.H2Reset, Length: 3, Stream: 1}, wire.H2FrameSizeError, true},
		"PING of 6":               {wire.H2Head{Type: wire.H2Ping, Length: 6}, wire.H2FrameSizeError, true},
		"GOAWAY of 7":             {wire.H2Head{Type: wire.H2GoAway, Length: 7}, wire.H2FrameSizeError, true},
		"WINDOW_UPDATE of 3":      {wire.H2Head{Type: wire.H2WindowUpdate, Length: 3}, wire.H2FrameSizeError, true},
		"SETTINGS of 7":           {wire.H2Head{Type: wire.H2Settings, Length: 7}, wire.H2FrameSizeError, true},
		"SETTINGS ACK of 6":       {wire.H2Head{Type: wire.H2Settings, Flags: wire.H2Ack, Length: 6}, wire.H2FrameSizeError, true},
		"PRIORITY_UPDATE of 3":    {wire.H2Head{Type: wire.H2PriorityUpdate, Length: 3}, wire.H2FrameSizeError, true},
		"DATA":                    {wire.H2Head{Type: wire.H2Data, Length: wire.H2FrameMax, Stream: 1}, wire.H2NoError, false},
		"unknown":                 {wire.H2Head{Type: 0xee, Flags: 0xff, Stream: 9}, wire.H2NoError, false},
		"WINDOW_UPDATE on either": {wire.H2Head{Type: wire.H2WindowUpdate, Length: 4, Stream: 3}, wire.H2NoError, false},
		"SETTINGS":                {wire.H2Head{Type: wire.H2Settings, Length: 12}, wire.H2NoError, false},
	} {
		err := c.head.Check(wire.H2FrameMax)
		if err == nil != (c.code == wire.H2NoError) || err != nil && (err.Code != c.code || err.Stream == c.conn) {
			t.Errorf("%s: %+v", name, err)
		}
	}
}

func TestH2Payloads(t *testing.T) {
	head := func(flags uint8) wire.H2Head { return wire.H2Head{Type: wire.H2Headers, Flags: flags, Stream: 7} }
	for name, c := range map[string]struct {
		head    wire.H2Head
		payload string
		want    string
		err     *wire.H2Error
	}{
		"plain":                   {head(0), "block", "block", nil},
		"padded":                  {head(wire.H2Padded), "\x02block..", "block", nil},
		"all padding":             {head(wire.H2Padded), "\x02..", "", nil},
		"padding beyond":          {head(wire.H2Padded), "\x03..", "", wire.ErrH2Padding},
		"no padding length":       {head(wire.H2Padded), "", "", wire.ErrH2FrameSize},
		"priority":                {head(wire.H2HasDepend), "\x00\x00\x00\x01\x10block", "block", nil},
		"priority cut":            {head(wire.H2HasDepend), "\x00\x00\x00\x01", "", wire.ErrH2FrameSize},
		"padded priority":         {head(wire.H2HasDepend | wire.H2Padded), "\x01\x80\x00\x00\x01\x10block.", "block", nil},
		"depends on itself":       {head(wire.H2HasDepend), "\x80\x00\x00\x07\x10block", "block", wire.ErrH2SelfDepend},
		"padding eats the depend": {head(wire.H2HasDepend | wire.H2Padded), "\x02\x00\x00\x00\x01\x10.", "", wire.ErrH2FrameSize},
	} {
		got, err := c.head.Block([]byte(c.payload))
		if string(got) != c.want || err != c.err {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if err := head(0).CheckPriority([]byte{0, 0, 0, 7, 1}); err != wire.ErrH2SelfDepend {
		t.Error(err)
	}
	for stream, err := range map[uint32]bool{0: false, 5: true} {
		if _, e := (wire.H2Head{Stream: stream}).ParseWindow([]byte{0x80, 0, 0, 0}); e == nil || e.Stream != err || e.Code != wire.H2ProtocolError {
			t.Errorf("WINDOW_UPDATE of 0 on %d: %v", stream, e)
		}
	}
	if _, _, err := wire.ParseH2PriorityUpdate([]byte{0, 0, 0, 0, 'u'}); err != wire.ErrH2StreamZero {
		t.Error(err)
	}
}

func TestH2Settings(t *testing.T) {
	for name, c := range map[string]struct {
		id    wire.H2Setting
		value uint32
		err   *wire.H2Error
	}{
		"push 2":          {wire.H2EnablePush, 2, wire.ErrH2Setting},
		"push":            {wire.H2EnablePush, 1, nil},
		"window 2^31":     {wire.H2InitialWindow, 1 << 31, wire.ErrH2SettingWindow},
		"window":          {wire.H2InitialWindow, 1<<31 - 1, nil},
		"frame small":     {wire.H2MaxFrameSize, 1<<14 - 1, wire.ErrH2Setting},
		"frame large":     {wire.H2MaxFrameSize, 1 << 24, wire.ErrH2Setting},
		"frame":           {wire.H2MaxFrameSize, 1<<24 - 1, nil},
		"connect 2":       {wire.H2EnableConnect, 2, wire.ErrH2Setting},
		"no priorities 2": {wire.H2NoLegacyPriorities, 2, wire.ErrH2Setting},
		"unknown":         {0xeeee, 1<<32 - 1, nil},
		"streams 0":       {wire.H2MaxStreams, 0, nil},
	} {
		_, payloads := frames(wire.AppendH2Settings(nil, wire.AppendH2Setting(nil, c.id, c.value)))
		seen := 0
		err := wire.EachH2Setting(payloads[0], func(id wire.H2Setting, v uint32) *wire.H2Error {
			if seen++; id != c.id || v != c.value {
				t.Errorf("%s: %d, %d", name, id, v)
			}
			return nil
		})
		if err != c.err || err == nil != (seen == 1) {
			t.Errorf("%s: %v, seen %d", name, err, seen)
		}
	}
}

func TestH2WindowGrow(t *testing.T) {
	w := wire.H2Window(wire.H2WindowInitial)
	if w.Grow(wire.H2WindowMax) || w != wire.H2WindowInitial {
		t.Error("the window grew beyond 2^31-1")
	}
	if !w.Grow(-wire.H2WindowMax) || w > 0 || !w.Grow(wire.H2WindowMax) || w != wire.H2WindowInitial {
		t.Errorf("window is %d", w)
	}
}

func TestH2Priority(t *testing.T) {
	for value, want := range map[string]struct {
		urgency     uint8
		incremental bool
	}{
		"": {3, false}, "u=0": {0, false}, "u=7, i": {7, true}, "i=?1,u=5": {5, true}, "u=8": {3, false}, "u=-1": {3, false}, "i=?0": {3, false},
		"u=1;x=y": {3, false}, "x, u=2": {2, false}, "u": {3, false},
	} {
		if u, i := wire.H2PriorityOf([]byte(value)); u != want.urgency || i != want.incremental {
			t.Errorf("%q: u=%d, i %t", value, u, i)
		}
	}
}

// TestH2Serialised: every frame that is written is read as it was meant.
func TestH2Serialised(t *testing.T) {
	b := wire.AppendH2SettingsAck(nil)
	b = wire.AppendH2Ping(b, true, []byte("12345678"))
	b = wire.AppendH2Reset(b, 9, wire.H2Cancel)
	b = wire.AppendH2WindowUpdate(b, 0, 77)
	b = wire.AppendH2GoAway(b, 11, wire.H2EnhanceYourCalm)
	b = append(wire.AppendH2DataHead(b, 5, 4, true), "data"...)
	heads, payloads := frames(b)
	if !heads[0].Has(wire.H2Ack) || !heads[1].Has(wire.H2Ack) || string(payloads[1]) != "12345678" {
		t.Errorf("%+v %q", heads[:2], payloads[1])
	}
	if heads[2].Stream != 9 || wire.H2Code(wire.ParseH2Uint(payloads[2])) != wire.H2Cancel {
		t.Errorf("%+v", heads[2])
	}
	if n, err := heads[3].ParseWindow(payloads[3]); n != 77 || err != nil {
		t.Error(n, err)
	}
	if last, code := wire.ParseH2GoAway(payloads[4]); last != 11 || code != wire.H2EnhanceYourCalm || code.String() != "ENHANCE_YOUR_CALM" {
		t.Error(last, code)
	}
	if heads[5].Stream != 5 || !heads[5].Has(wire.H2EndStream) || string(payloads[5]) != "data" {
		t.Errorf("%+v %q", heads[5], payloads[5])
	}
}
