package translate

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sluiceproxy/sluice/l7"
)

// TestAnnotationTable holds every row to the form that its readers rely on.
func TestAnnotationTable(t *testing.T) {
	seen := map[string]bool{}
	for i := range annotations {
		a := &annotations[i]
		names := append([]string{a.key}, a.aliases...)
		if a.own {
			names = []string{ownPrefix + "/" + a.key}
		}
		for _, n := range names {
			if seen[n] {
				t.Errorf("%s stands twice", n)
			}
			seen[n] = true
			if annotationRows[n] != a {
				t.Errorf("%s does not lead to its row", n)
			}
		}
		checkRow(t, a.key, a.text, a.note, a.verdict, a.parse != nil)
		if a.scope == "" {
			t.Errorf("%s has no scope", a.key)
		}
	}
	total := 0
	for _, s := range annotationSections {
		total += len(s.rows)
	}
	if total != len(annotations) {
		t.Errorf("%d rows are documented, %d are there", total, len(annotations))
	}
}

func TestConfigMapTable(t *testing.T) {
	seen := map[string]bool{}
	for i := range configKeys {
		k := &configKeys[i]
		if seen[k.key] {
			t.Errorf("%s stands twice", k.key)
		}
		seen[k.key] = true
		checkRow(t, k.key, k.text, k.note+k.otherwise, k.verdict, k.parse != nil)
		if mine := strings.HasPrefix(k.key, "sluice-"); mine != (k.verdict == own) {
			t.Errorf("%s: verdict %s", k.key, k.verdict)
		}
	}
	total := 0
	for _, s := range configSections {
		total += len(s.rows)
	}
	if total != len(configKeys) {
		t.Errorf("%d rows are documented, %d are there", total, len(configKeys))
	}
}

func checkRow(t *testing.T, key, text, note string, v verdict, works bool) {
	t.Helper()
	if text == "" || !strings.HasSuffix(text, ".") {
		t.Errorf("%s: %q is no sentence", key, text)
	}
	if (v == differs || v == refused) && note == "" {
		t.Errorf("%s: verdict %s tells no reason", key, v)
	}
	if (v == same || v == differs || v == own) && !works {
		t.Errorf("%s: verdict %s, and nothing reads it", key, v)
	}
	if (v == noEffect || v == refused) && works {
		t.Errorf("%s: verdict %s, and something reads it", key, v)
	}
}

// TestConfigMapDefaults: the documented default is the one that holds, and a key set to it changes nothing.
func TestConfigMapDefaults(t *testing.T) {
	for i := range configKeys {
		k := &configKeys[i]
		if k.parse == nil || k.preset == "" || k.key == "proxy-real-ip-cidr" {
			continue
		}
		t.Run(k.key, func(t *testing.T) {
			tr := New(Options{ConfigMap: "a/b"})
			c, _ := tr.Translate(&Objects{})
			process := tr.Process()
			value := k.preset
			after, problems := tr.Translate(&Objects{ConfigMaps: []*corev1.ConfigMap{{ObjectMeta: meta("a", "b"), Data: map[string]string{k.key: value}}}})
			if len(problems) > 0 {
				t.Errorf("its default, %q, is not taken: %v", value, problems)
			}
			if after.Settings != c.Settings {
				t.Errorf("its default changes the settings: %v", differences(*after.Settings, *c.Settings))
			}
			if tr.Process() != process {
				t.Errorf("its default changes the process: %v", differences(*tr.Process(), *process))
			}
		})
	}
}

func TestMarkdownNamesEveryKey(t *testing.T) {
	text := AnnotationsMarkdown()
	for i := range annotations {
		if !strings.Contains(text, annotations[i].key+"`") {
			t.Errorf("annotation %s is missing", annotations[i].key)
		}
	}
	for i := range configKeys {
		if !strings.Contains(text, "| `"+configKeys[i].key+"` |") {
			t.Errorf("key %s is missing", configKeys[i].key)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") && strings.HasSuffix(strings.TrimSpace(line), "| |") {
			t.Errorf("an empty cell: %s", line)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64 // -1: refused
	}{
		{"0", 0}, {"1", 1}, {"1b", 1}, {"512K", 512 << 10}, {"8m", 8 << 20}, {"8 M", 8 << 20}, {"2g", 2 << 30}, {"1024g", 1 << 40},
		{"", -1}, {"m", -1}, {"-1", -1}, {"+1", -1}, {"1.5m", -1}, {"1mb", -1}, {"1t", -1}, {"99999999999999999999", -1},
		{"9223372036854775807g", -1}, {"17179869184g", -1}, {"0x10", -1},
	} {
		n, err := parseSize(c.text, 0, bodyMax)
		if got := n; err != nil && c.want != -1 || err == nil && got != c.want {
			t.Errorf("%q: %d, %v; want %d", c.text, got, err, c.want)
		}
	}
	for n, want := range map[int64]string{0: "0", 240: "240", 1 << 10: "1k", 1 << 20: "1m", 1 << 50: "1048576g", 1500: "1500"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for _, c := range []struct {
		text string
		want time.Duration // -1: refused
	}{
		{"30", 30 * time.Second}, {"500ms", 500 * time.Millisecond}, {"1h30m", 90 * time.Minute}, {"240s", 4 * time.Minute}, {"0", 0},
		{"", -1}, {"-1", -1}, {"-1s", -1}, {"1d", -1}, {"soon", -1}, {"99999999", -1}, {"9999999999999999999999", -1}, {"1000h", -1},
	} {
		d, err := parseDuration(c.text, 0, timeoutMax)
		if err != nil && c.want != -1 || err == nil && d != c.want {
			t.Errorf("%q: %v, %v; want %v", c.text, d, err, c.want)
		}
	}
}

func TestParseNextUpstream(t *testing.T) {
	for text, want := range map[string]l7.NextUpstream{
		"error": l7.NextError, "error timeout": l7.NextDefault, "off": 0, " http_502  http_503 ": l7.Next502 | l7.Next503,
	} {
		if got, err := parseNextUpstream(text); got != want || err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "always", "off error", "error,timeout"} {
		if _, err := parseNextUpstream(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"same", "same", 0}, {"ab", "ba", 2}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q to %q: %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

func TestRefusalOverridesRow(t *testing.T) {
	f := &fragment{}
	row := &annotation{effect: drop}
	f.reject(row, "field", fmt.Errorf("outside: %w", &refusal{deny, "inside"}))
	if f.dropped || f.dialect.denied == "" {
		t.Errorf("dropped %v, denied %q", f.dropped, f.dialect.denied)
	}
	f.reject(row, "field", errors.New("plain"))
	if !f.dropped {
		t.Error("the row's own effect is lost")
	}
}

// TestRosterAgainstMap compares the list with a map that is sorted anew.
func TestRosterAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	all := map[string]*int{}
	var list roster[int]
	for range 300 {
		changes := map[string]*int{}
		for range r.IntN(6) {
			name := fmt.Sprintf("n%02d", r.IntN(30))
			if changes[name] = nil; r.IntN(3) > 0 {
				changes[name] = new(int)
			}
		}
		var names []string
		for name, v := range changes {
			names = append(names, name)
			if v == nil {
				delete(all, name)
			} else {
				all[name] = v
			}
		}
		slices.Sort(names)
		before, copied := list.values, slices.Clone(list.values)
		list.change(names, func(name string) *int { return changes[name] })
		if !slices.Equal(before, copied) {
			t.Fatal("a list that was handed out has changed")
		}
		if !slices.IsSorted(list.names) || len(list.names) != len(all) || len(list.values) != len(all) {
			t.Fatalf("%v for %v", list.names, all)
		}
		for i, name := range list.names {
			if list.values[i] != all[name] {
				t.Fatalf("%s has another value", name)
			}
		}
	}
}

// TestIndexAgainstMap compares the index with one that is built anew, with names that stand twice.
func TestIndexAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	var x index[*corev1.Service]
	var list []*corev1.Service
	for range 2000 {
		before := map[key]*corev1.Service{}
		for k, v := range x.by {
			before[k] = v
		}
		for range r.IntN(3) {
			o := &corev1.Service{ObjectMeta: meta("a", fmt.Sprint(r.IntN(8)))}
			switch at := r.IntN(len(list) + 1); {
			case at == len(list) || r.IntN(3) == 0:
				list = slices.Insert(list, at, o)
			case r.IntN(2) == 0:
				list[at] = o
			default:
				list = slices.Delete(list, at, at+1)
			}
		}
		if r.IntN(10) == 0 {
			shuffle(r, list)
		}
		changed := x.update(list)
		want := map[key]*corev1.Service{}
		for _, o := range list {
			if want[keyOf(o)] == nil {
				want[keyOf(o)] = o
			}
		}
		if len(x.by) != len(want) {
			t.Fatalf("%d names, want %d", len(x.by), len(want))
		}
		for k, o := range want {
			if x.by[k] != o {
				t.Fatalf("%v is another object", k)
			}
			if before[k] != o && !slices.Contains(changed, k) {
				t.Fatalf("%v changed and is not told", k)
			}
		}
		for k := range before {
			if want[k] == nil && !slices.Contains(changed, k) {
				t.Fatalf("%v is gone and is not told", k)
			}
		}
	}
}
