package filter

import "testing"

func TestExpression(t *testing.T) {
	for _, compiled := range []bool{false, true} {
		e := NewExpression("(?i)^/a(b*)$")
		if compiled {
			if err := e.Compile(); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if !e.Match([]byte("/ABB")) || e.Match([]byte("/abc")) {
				t.Error("it matches something else")
			}
			if m := e.Find([]byte("/abb")); len(m) != 4 || m[2] != 2 || m[3] != 4 {
				t.Errorf("found %v", m)
			}
		}
	}
	bad := NewExpression("(")
	if bad.Match([]byte("(")) || bad.Find(nil) != nil || bad.Compile() == nil || bad.Match([]byte("\xff")) {
		t.Error("what is no expression matches, or compiles")
	}
}
