package wire

import (
	"bytes"

	"github.com/sluiceproxy/sluice/fastpath"
)

// RequestHeadEnd looks for the end of a request's head in b, of which the first scanned bytes were looked at before
// without finding one. The head is b[skip : skip+n], with its empty line; skip counts empty lines before it. n is 0
// when more bytes are needed. An error comes with the first byte that makes it certain (a head with only LF line ends
// fails at its first LF), and is the same however the bytes were cut into segments.
func RequestHeadEnd(b []byte, scanned int, lim *Limits) (skip, n int, err *fastpath.Error) {
	if len(b) > 0 && chars[b[0]]&charToken == 0 {
		if skip, err = emptyLines(b); err != nil || skip == len(b) || b[skip] == '\r' {
			return 0, 0, err
		}
	}
	n, err = headEnd(b[skip:], max(scanned-skip, 0), requestBounds(lim))
	if n == 0 {
		skip = 0
	}
	return skip, n, err
}

// ResponseHeadEnd is RequestHeadEnd for a backend's answer: the head is b[:n].
func ResponseHeadEnd(b []byte, scanned int, lim *Limits) (n int, err *fastpath.Error) {
	return headEnd(b, scanned, responseBounds(lim))
}

// emptyLines counts the bytes of empty lines at b's start. A last CR that waits for its LF is not counted.
func emptyLines(b []byte) (skip int, err *fastpath.Error) {
	for skip < len(b) && b[skip] == '\r' {
		if skip+1 == len(b) {
			return skip, nil
		}
		if b[skip+1] != '\n' {
			return 0, ErrBareCR
		}
		if skip == 2*emptyLinesMax {
			return 0, ErrEmptyLines
		}
		skip += 2
	}
	if skip < len(b) && b[skip] == '\n' {
		return 0, ErrBareLF
	}
	return skip, nil
}

func headEnd(b []byte, scanned int, lim bounds) (int, *fastpath.Error) {
	n := headScan(b, scanned, lim)
	if n >= 0 {
		return n, nil
	}
	f := headFlaw(b, lim)
	if lim.request {
		return 0, clientFlaws[f]
	}
	return 0, backendFlaws[f]
}

const flawed = -1

// headScan answers in a few vector passes over the new bytes: the head's length, 0 for "more", or flawed. It hops from LF
// to LF; every LF must follow a CR, so there is no bare CR when there are as many CRs as LFs.
func headScan(b []byte, scanned int, lim bounds) int {
	if scanned < len(statusPrefix) && !startOK(b, lim.request) {
		return flawed
	}
	start := 0 // of the current line
	if scanned > 0 {
		start = -1 // not known yet
	}
	lines := 0
	for pos := scanned; ; {
		i := bytes.IndexByte(b[pos:], '\n')
		if i < 0 {
			break
		}
		i += pos
		if start < 0 {
			start = bytes.LastIndexByte(b[:scanned], '\n') + 1
		}
		if i == 0 || b[i-1] != '\r' || !lineOK(b, start, i-1, lim) {
			return flawed
		}
		lines++
		if i == start+1 {
			if i+1 > lim.head || !clean(b, scanned, i+1, lines) {
				return flawed
			}
			return i + 1
		}
		start, pos = i+1, i+1
	}
	if len(b) >= lim.head || tooLong(b, start, scanned, lim) {
		return flawed
	}
	if !clean(b, scanned, len(b)-pending(b), lines) {
		return flawed
	}
	return 0
}

// pending is 1 when b ends with a CR whose LF may yet come.
func pending(b []byte) int {
	if len(b) > 0 && b[len(b)-1] == '\r' {
		return 1
	}
	return 0
}

// lineOK checks what the end of a line makes certain: its length, and the shape of a request line.
func lineOK(b []byte, start, end int, lim bounds) bool {
	if start > 0 {
		return end-start <= lim.line
	}
	return end <= lim.first && (!lim.request || hasVersion(b[:end]))
}

// tooLong tells whether the unfinished last line is over its limit already. Its start is unknown (-1) when no new byte
// ended a line; then it is enough to look for an LF in the window that the limit leaves, which costs a trickling sender
// more than us.
func tooLong(b []byte, start, scanned int, lim bounds) bool {
	if start == 0 {
		return len(b) >= lim.first+2
	}
	window := len(b) - (lim.line + 2)
	if start > 0 {
		return window >= start
	}
	if len(b) >= lim.first+2 && bytes.IndexByte(b[:scanned], '\n') < 0 {
		return true
	}
	if window < 0 {
		return false
	}
	window = min(window, scanned)
	return bytes.IndexByte(b[window:scanned], '\n') < 0 && bytes.IndexByte(b[:window], '\n') >= 0
}

var carriageReturn = []byte{'\r'}

// clean tells whether b[from:to], in which that many lines end, has no bare CR and no NUL. A CR just before from
// belongs to the region, as its LF does.
func clean(b []byte, from, to, lines int) bool {
	from -= pending(b[:from])
	return bytes.Count(b[from:to], carriageReturn) == lines && bytes.IndexByte(b[from:to], 0) < 0
}

const statusPrefix = "HTTP/1."

// startOK tells garbage early: a request begins with a token, an answer with its version.
func startOK(b []byte, request bool) bool {
	if request {
		return len(b) == 0 || chars[b[0]]&charToken != 0
	}
	n := min(len(b), len(statusPrefix))
	return string(b[:n]) == statusPrefix[:n]
}

// hasVersion tells whether a request line ends like one with a version; which one is Parse's question.
func hasVersion(line []byte) bool {
	n := len(line)
	return n > 9 && string(line[n-9:n-3]) == " HTTP/"
}

// headFlaw is headScan byte by byte and from the start: it names the flaw whose deciding byte comes first.
func headFlaw(b []byte, lim bounds) flaw {
	start := 0
	for i, c := range b {
		if i < len(statusPrefix) && !startOK(b[:i+1], lim.request) {
			return flawStart
		}
		if c == 0 {
			return flawNUL
		}
		ended := false
		switch {
		case c == '\n' && (i == start || b[i-1] != '\r'):
			return flawBareLF
		case c == '\n' && i == start+1:
			return flawNone
		case c == '\n':
			if start == 0 && lim.request && !hasVersion(b[:i-1]) {
				return flawNoVersion
			}
			ended = true
		case i > start && b[i-1] == '\r':
			return flawBareCR
		case start == 0 && i == lim.first+1:
			return flawFirstLine
		case start > 0 && i-start == lim.line+1:
			return flawLine
		}
		if i+1 == lim.head {
			return flawHead
		}
		if ended {
			start = i + 1
		}
	}
	return flawUnknown
}
