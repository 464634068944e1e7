package wire

import "testing"

func TestCookie(t *testing.T) {
	fields := []Field{
		{Name: []byte("Accept"), Value: []byte("a=b"), ID: FieldAccept},
		{Name: []byte("Cookie"), Value: []byte("first; a=1;b=; c = x;  d=2 ; D=3; e=\"q\"; long=a=b|c"), ID: FieldCookie},
		{Name: []byte("Cookie"), Value: []byte("a=other; f=5"), ID: FieldCookie},
	}
	for _, c := range []struct {
		name, want string
		fold, none bool
	}{
		{name: "a", want: "1"}, {name: "b", want: ""}, {name: "d", want: "2"}, {name: "D", want: "3"},
		{name: "D", fold: true, want: "2"}, {name: "e", want: `"q"`}, {name: "long", want: "a=b|c"}, {name: "f", want: "5"},
		{name: "first", none: true}, {name: "c", none: true}, {name: "none", none: true}, {name: "F", none: true},
	} {
		got := Cookie(fields, c.name, c.fold)
		if (got == nil) != c.none || string(got) != c.want {
			t.Errorf("cookie %s is %q (nil: %v), want %q", c.name, got, got == nil, c.want)
		}
	}
}

func TestArgument(t *testing.T) {
	query := []byte("a&b=1&B=2&=3&c=x=y&d")
	for name, want := range map[string]string{"b": "1", "B": "1", "c": "x=y", "a": "", "d": "", "none": ""} {
		if got := Argument(query, name); string(got) != want {
			t.Errorf("argument %s is %q, want %q", name, got, want)
		}
	}
}
