package filter

import (
	"regexp"
	"sync/atomic"
)

// An Expression is a regular expression that is compiled when it is first asked, unless Compile was called before. Most of
// those in manifests are recognised by their shape and never run; ten thousand of them would take tens of megabytes.
type Expression struct {
	text string
	re   atomic.Pointer[regexp.Regexp]
}

// NewExpression makes an expression of text in RE2's syntax, whose author has parsed it.
func NewExpression(text string) *Expression { return &Expression{text: text} }

// Compile makes it ready, and tells why it cannot be used. Such a one matches nothing.
func (e *Expression) Compile() error {
	re, err := regexp.Compile(e.text)
	if err != nil {
		re = nothing
	}
	e.re.Store(re)
	return err
}

// nothing is what an expression matches that should not have been one.
var nothing = regexp.MustCompile(`[^\x00-\x{10FFFF}]`)

// Match tells whether it matches anywhere in b.
func (e *Expression) Match(b []byte) bool { return e.ready().Match(b) }

// Find is regexp's FindSubmatchIndex.
func (e *Expression) Find(b []byte) []int { return e.ready().FindSubmatchIndex(b) }

func (e *Expression) ready() *regexp.Regexp {
	re := e.re.Load()
	if re == nil {
		_ = e.Compile() // two loops at once do the same
		re = e.re.Load()
	}
	return re
}
