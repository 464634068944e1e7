package route

import "bytes"

// trie leads a path to the number of a route. It is a radix tree in one flat text, a host's name before it: a look-up
// compares the name, then walks the nodes behind it, and with ten paths to a host touches two or three cache lines where a
// tree of pointers would touch ten. It is made by a trieMaker and immutable; the zero trie leads nowhere.
//
//	name │ node node node …    parents before their children, the first child right behind
//
//	node:  size   1 byte        of the label
//	       flags  1 byte        hasHere, hasBelow, …
//	       kids   1 byte
//	       label  size bytes    compared in one go; without the byte that led here
//	       here   width bytes   if hasHere:  the route of a path that ends here
//	       below  width bytes   if hasBelow: the route of a path that goes on; not if shared
//	       first  kids bytes    the byte that leads to each child
//	       at     width × kids  where each child begins
//
// Numbers have their low byte first. Their width is the least that the text's length and the routes' numbers fit in, so that
// most take one byte.
type trie struct {
	far   []byte        // the text, if it is too long for near
	root  uint16        // length of the name
	width uint8         // of a number, in bytes: 1, 2 or numberMax
	near  [nearMax]byte // the text, unless it is too long
}

// numberMax is the widest number. One is always read with so many bytes, so that the text ends with some that stand for nothing.
const numberMax = 4

// text is the name and the nodes.
func (t *trie) text() []byte {
	if t.far != nil {
		return t.far
	}
	return t.near[:]
}

// name is the host's. It is never near where the text is far: a look-up needs the lines of one place only.
func (t *trie) name() []byte { return t.text()[:t.root] }

// A node's flags.
const (
	hasHere  = 1 << iota // a rule's text ends here
	hasBelow             // it takes paths that go on, if their next byte is "/": a Prefix without a trailing slash
	anyBelow             // … whatever their next byte is: ImplementationSpecific, and what ends with a slash
	shared               // here and below are the same number, which stands there once
)

const nodeHead = 3

// none is match's answer when no text takes the path.
const none = -1

// match answers the number of the route whose text is the longest that takes the path, or none.
func (t *trie) match(path []byte) int {
	text, width, best := t.text(), int(t.width), none
	mask := uint32(1<<(8*uint(width)) - 1)
	for at := int(t.root); ; {
		size, flags, kids := int(text[at]), text[at+1], int(text[at+2])
		at += nodeHead
		if len(path) < size || string(text[at:at+size]) != string(path[:size]) {
			return best
		}
		at += size
		path = path[size:]
		if len(path) == 0 {
			if flags&hasHere != 0 {
				return number(text, at, mask)
			}
			return best
		}
		if flags&hasHere != 0 {
			if flags&(hasBelow|shared) == hasBelow {
				at += width
			}
			if flags&anyBelow != 0 || flags&hasBelow != 0 && path[0] == '/' {
				best = number(text, at, mask)
			}
			at += width
		}
		kid := indexByte(text[at:at+kids], path[0])
		if kid < 0 {
			return best
		}
		at = number(text, at+kids+width*kid, mask)
		path = path[1:]
	}
}

// indexByte is bytes.IndexByte, without the call for the few branches that most nodes have.
func indexByte(s []byte, c byte) int {
	if len(s) > 8 {
		return bytes.IndexByte(s, c)
	}
	for i := range len(s) {
		if s[i] == c {
			return i
		}
	}
	return -1
}

// number reads a number, low byte first; mask leaves its width of what is read.
func number(text []byte, at int, mask uint32) int {
	b := text[at : at+numberMax]
	return int((uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24) & mask)
}
