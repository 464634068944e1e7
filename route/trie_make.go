package route

import (
	"cmp"
	"slices"
)

// entry is what one text of a trie leads to, by number.
type entry struct {
	text  string
	here  int  // the route of a path that is the text
	below int  // the route of a path that goes on after it; none: what a shorter text gave …
	any   bool // … with whatever byte; else with "/" only
}

const labelMax = 255 // bytes of one node's label; a longer one takes several nodes

// trieMaker makes tries one after another in a buffer that it keeps.
type trieMaker struct {
	text  []byte
	width int
}

// build makes t of a host's name and of entries, which it sorts. Their texts must be distinct and free of NUL, so that no
// node has more than 255 children.
func (m *trieMaker) build(t *trie, name string, entries []entry) {
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.text, b.text) })
	m.width = widthOf(largest(entries))
	for m.write(name, entries); m.width < widthOf(len(m.text)); m.write(name, entries) {
		m.width *= 2
	}
	m.text = append(m.text, make([]byte, numberMax-1)...)
	*t = trie{root: uint16(len(name)), width: uint8(m.width)}
	if len(m.text) <= len(t.near) {
		copy(t.near[:], m.text)
	} else {
		t.far = slices.Clone(m.text)
	}
}

// write writes name and nodes.
func (m *trieMaker) write(name string, entries []entry) {
	m.text = append(m.text[:0], name...)
	if len(entries) == 0 {
		m.text = append(m.text, make([]byte, nodeHead)...) // a root that leads nowhere
		return
	}
	m.node(entries, 0)
}

// widthOf is the width that a number fits in.
func widthOf(n int) int {
	switch {
	case n < 1<<8:
		return 1
	case n < 1<<16:
		return 2
	}
	return numberMax
}

// largest is the highest number of a route.
func largest(entries []entry) (n int) {
	for _, e := range entries {
		n = max(n, e.here, e.below)
	}
	return n
}

// node appends the node of entries that are sorted and agree in their first depth bytes, and all nodes under it.
func (m *trieMaker) node(entries []entry, depth int) {
	end := depth + min(common(entries[0].text[depth:], entries[len(entries)-1].text[depth:]), labelMax)
	label := entries[0].text[depth:end]
	head := len(m.text)
	m.text = append(m.text, byte(len(label)), 0, 0)
	m.text = append(m.text, label...)
	if len(entries[0].text) == end {
		m.text[head+1] = m.routes(entries[0])
		entries = entries[1:]
	}

	first := len(m.text)
	for i, e := range entries {
		if i == 0 || e.text[end] != entries[i-1].text[end] {
			m.text = append(m.text, e.text[end])
		}
	}
	kids := len(m.text) - first
	m.text[head+2] = byte(kids)
	at := len(m.text)
	m.text = append(m.text, make([]byte, m.width*kids)...)

	for ; len(entries) > 0; at += m.width {
		same := 1
		for same < len(entries) && entries[same].text[end] == entries[0].text[end] {
			same++
		}
		m.putNumber(at, len(m.text))
		m.node(entries[:same], end+1)
		entries = entries[same:]
	}
}

// routes appends an entry's numbers and answers the node's flags.
func (m *trieMaker) routes(e entry) (flags byte) {
	m.number(e.here)
	switch {
	case e.below == none:
		return hasHere
	case e.below == e.here:
		flags = hasHere | hasBelow | shared
	default:
		flags = hasHere | hasBelow
		m.number(e.below)
	}
	if e.any {
		flags |= anyBelow
	}
	return flags
}

func (m *trieMaker) number(n int) {
	at := len(m.text)
	m.text = append(m.text, make([]byte, m.width)...)
	m.putNumber(at, n)
}

func (m *trieMaker) putNumber(at, n int) {
	for i := range m.width {
		m.text[at+i] = byte(n >> (8 * i))
	}
}

// common counts the bytes in which a and b begin alike.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}
