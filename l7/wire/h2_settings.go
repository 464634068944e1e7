package wire

import "encoding/binary"

// H2Setting is a parameter's identifier (RFC 9113 6.5.2, RFC 8441 3, RFC 9218 2.1).
type H2Setting uint16

// The parameters that are known. Others are passed over.
const (
	H2TableSize          H2Setting = 0x1
	H2EnablePush         H2Setting = 0x2
	H2MaxStreams         H2Setting = 0x3
	H2InitialWindow      H2Setting = 0x4
	H2MaxFrameSize       H2Setting = 0x5
	H2MaxHeaderList      H2Setting = 0x6
	H2EnableConnect      H2Setting = 0x8
	H2NoLegacyPriorities H2Setting = 0x9
)

// EachH2Setting calls f for each parameter of a SETTINGS payload that Check let pass, in its order, after judging its
// value; an error of either ends it. Every error is the connection's.
func EachH2Setting(payload []byte, f func(id H2Setting, value uint32) *H2Error) *H2Error {
	for ; len(payload) >= 6; payload = payload[6:] {
		id, v := H2Setting(binary.BigEndian.Uint16(payload)), binary.BigEndian.Uint32(payload[2:])
		switch id {
		case H2EnablePush, H2EnableConnect, H2NoLegacyPriorities:
			if v > 1 {
				return ErrH2Setting
			}
		case H2InitialWindow:
			if v > H2WindowMax {
				return ErrH2SettingWindow
			}
		case H2MaxFrameSize:
			if v < H2FrameMax || v > 1<<24-1 {
				return ErrH2Setting
			}
		}
		if err := f(id, v); err != nil {
			return err
		}
	}
	return nil
}
