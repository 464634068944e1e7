package watcher

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/route"
)

// fixture is a running file source and the states that it has told.
type fixture struct {
	*testing.T
	dir    string
	source Source
	states chan *State
	log    *lockedBuffer
	last   *State
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// running starts a source on directories, or on a new one if none is named.
func running(t *testing.T, paths ...string) *fixture {
	t.Helper()
	f := &fixture{T: t, states: make(chan *State, 1000), log: &lockedBuffer{}}
	if len(paths) == 0 {
		paths = []string{t.TempDir()}
	}
	f.dir = paths[0]
	f.start(paths)
	return f
}

func (f *fixture) start(paths []string) {
	f.Helper()
	source, err := Open(Spec{Scheme: "file", Paths: paths}, slog.New(slog.NewTextHandler(f.log, nil)))
	if err != nil {
		f.Fatal(err)
	}
	f.source = source
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- source.Run(ctx, func(s *State) { f.states <- s }) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
}

const patience = 5 * time.Second

// until waits for a state that satisfies.
func (f *fixture) until(what string, satisfies func(*State) bool) *State {
	f.Helper()
	deadline := time.After(patience)
	for f.last == nil || !satisfies(f.last) {
		select {
		case f.last = <-f.states:
		case <-deadline:
			f.Fatalf("%s: not within %v; the last state is %s", what, patience, describe(f.last))
		}
	}
	return f.last
}

// quiet fails if another state comes soon.
func (f *fixture) quiet() {
	f.Helper()
	select {
	case s := <-f.states:
		f.Fatalf("an unasked state: %s", describe(s))
	case <-time.After(4 * quietMax):
	}
}

func describe(s *State) string {
	if s == nil {
		return "none"
	}
	return fmt.Sprintf("ingresses %v, problems %v", names(s), s.Problems)
}

// names are the Ingresses of a state with the path of their rule.
func names(s *State) (list []string) {
	for _, i := range s.Objects.Ingresses {
		list = append(list, i.Namespace+"/"+i.Name+i.Spec.Rules[0].HTTP.Paths[0].Path)
	}
	return list
}

func has(want ...string) func(*State) bool {
	return func(s *State) bool { return slices.Equal(names(s), want) }
}

func (f *fixture) write(name, text string) {
	f.Helper()
	writeFile(f.T, filepath.Join(f.dir, name), text)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ingress is the manifest of an Ingress with one path.
func ingress(name, path string) string {
	return fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %s
spec:
  rules:
    - host: %s.example
      http:
        paths:
          - path: %s
            pathType: Prefix
            backend: {service: {name: web, port: {number: 80}}}
`, name, name, path)
}

func TestFileChanges(t *testing.T) {
	f := running(t)
	f.until("an empty directory", has())
	f.write("b.yaml", ingress("b", "/1"))
	f.until("a new file", has("default/b/1"))
	f.write("a.yml", ingress("a", "/1"))
	f.until("another, in the order of names", has("default/a/1", "default/b/1"))
	f.write("b.yaml", ingress("b", "/2"))
	f.until("written in place", has("default/a/1", "default/b/2"))

	f.write("b.tmp", ingress("b", "/3"))
	must(t, os.Rename(filepath.Join(f.dir, "b.tmp"), filepath.Join(f.dir, "b.yaml")))
	f.until("replaced by rename", has("default/a/1", "default/b/3"))
	must(t, os.Rename(filepath.Join(f.dir, "a.yml"), filepath.Join(f.dir, "a.yml.off")))
	f.until("renamed away", has("default/b/3"))
	must(t, os.Remove(filepath.Join(f.dir, "b.yaml")))
	f.until("deleted", has())
}

func TestFileOnlyManifestsCount(t *testing.T) {
	f := running(t)
	f.until("an empty directory", has())
	for _, name := range []string{".hidden.yaml", "a.yaml~", "a.txt", "yaml", "4913"} {
		f.write(name, ingress("a", "/"))
	}
	f.quiet()
	f.write("sub/a.yaml", ingress("a", "/"))
	f.write("b.yaml", ingress("b", "/"))
	f.until("the manifest among them", has("default/b/"))
	if log := f.log.String(); strings.Count(log, "not read") != 1 || !strings.Contains(log, filepath.Join(f.dir, "sub")) {
		t.Errorf("the log does not name the folder that is left out, once:\n%s", log)
	}
}

func TestFilePointersStay(t *testing.T) {
	f := running(t)
	f.write("a.yaml", ingress("a", "/"))
	f.write("many.yaml", ingress("b", "/1")+"---\n"+ingress("c", "/1"))
	before := f.until("all", has("default/a/", "default/b/1", "default/c/1")).Objects.Ingresses
	f.write("many.yaml", "# moved\n---\n"+ingress("b", "/1")+"---\n"+ingress("c", "/2"))
	after := f.until("one of three changed", has("default/a/", "default/b/1", "default/c/2")).Objects.Ingresses
	if before[0] != after[0] {
		t.Error("an object of a file that did not change is another pointer")
	}
	if before[1] != after[1] {
		t.Error("an object of a document that did not change is another pointer")
	}
	if before[2] == after[2] {
		t.Error("an object that changed is the same pointer")
	}
}

func TestFileTouchedIsNoChange(t *testing.T) {
	f := running(t)
	f.write("a.yaml", ingress("a", "/"))
	f.until("the file", has("default/a/"))
	now := time.Now().Add(time.Second)
	must(t, os.Chtimes(filepath.Join(f.dir, "a.yaml"), now, now))
	f.quiet()
	f.source.Rescan()
	f.quiet()
}

// TestFileSameSizeSameTime changes a file so that size and modification time stay as they are.
func TestFileSameSizeSameTime(t *testing.T) {
	f := running(t)
	path := filepath.Join(f.dir, "a.yaml")
	when := time.Unix(1_000_000_000, 0)
	for _, version := range []string{"/1", "/2", "/3", "/4"} {
		f.write("a.yaml", ingress("a", version))
		must(t, os.Chtimes(path, when, when))
		f.until("version "+version, has("default/a"+version))
	}
}

func TestFileBrokenKeepsLastGood(t *testing.T) {
	f := running(t)
	f.write("a.yaml", ingress("a", "/1")+"---\n"+ingress("b", "/1"))
	f.write("other.yaml", ingress("other", "/1"))
	f.until("a good start", has("default/a/1", "default/b/1", "default/other/1"))

	f.write("a.yaml", ingress("a", "/2")+"---\n"+strings.Replace(ingress("b", "/2"), "pathType", "pathtype", 1))
	s := f.until("the broken version", func(s *State) bool { return len(s.Problems) == 1 })
	if !has("default/a/1", "default/b/1", "default/other/1")(s) {
		t.Errorf("after a broken version: %s", describe(s))
	}
	want := route.Problem{
		Object: route.Object{Kind: "Ingress", Namespace: "default", Name: "b"},
		Field:  "spec.rules[0].http.paths[0].pathtype",
		Reason: "unknown field; all objects of the file stay at its last good version",
		File:   filepath.Join(f.dir, "a.yaml") + ", document 2",
	}
	if s.Problems[0] != want {
		t.Errorf("the problem is\n%v, want\n%v", s.Problems[0], want)
	}
	f.write("other.yaml", ingress("other", "/2"))
	f.until("other files follow", has("default/a/1", "default/b/1", "default/other/2"))
	f.write("a.yaml", ingress("a", "/2")+"---\n"+ingress("b", "/2"))
	s = f.until("the file is good again", has("default/a/2", "default/b/2", "default/other/2"))
	if len(s.Problems) > 0 {
		t.Errorf("problems after all is good: %v", s.Problems)
	}
	f.write("a.yaml", "{")
	f.until("broken once more", func(s *State) bool { return len(s.Problems) == 1 })
	must(t, os.Remove(filepath.Join(f.dir, "a.yaml")))
	s = f.until("a broken file is deleted", has("default/other/2"))
	if len(s.Problems) > 0 {
		t.Errorf("problems of a file that is gone: %v", s.Problems)
	}
}

func TestFileNeverGoodServesItsGoodDocuments(t *testing.T) {
	dir := t.TempDir()
	broken := strings.Replace(ingress("b", "/1"), "pathType", "pathtype", 1)
	writeFile(t, filepath.Join(dir, "a.yaml"), ingress("a", "/1")+"---\n"+broken)
	f := running(t, dir)
	s := f.until("the good half", has("default/a/1"))
	if len(s.Problems) != 1 || !strings.HasSuffix(s.Problems[0].Reason, "the rest of the file is taken") {
		t.Errorf("problems: %v", s.Problems)
	}
	f.write("a.yaml", ingress("a", "/2")+"---\n"+broken)
	f.until("the good half is followed", has("default/a/2"))
}

func TestFileUnreadable(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root reads everything")
	}
	f := running(t)
	f.write("a.yaml", ingress("a", "/1"))
	f.until("readable", has("default/a/1"))
	must(t, os.Chmod(filepath.Join(f.dir, "a.yaml"), 0))
	s := f.until("unreadable", func(s *State) bool { return len(s.Problems) == 1 })
	if !has("default/a/1")(s) || !strings.Contains(s.Problems[0].Reason, "cannot be read: permission denied") {
		t.Errorf("unreadable: %s", describe(s))
	}
	must(t, os.Chmod(filepath.Join(f.dir, "a.yaml"), 0o644))
	f.until("readable again", func(s *State) bool { return len(s.Problems) == 0 })
}

func TestFileStrangeFiles(t *testing.T) {
	f := running(t)
	f.write("a.yaml", ingress("a", "/1"))
	f.until("the file", has("default/a/1"))
	must(t, os.Symlink("nowhere", filepath.Join(f.dir, "link.yaml")))
	s := f.until("a link to nowhere", func(s *State) bool { return len(s.Problems) == 1 })
	if !strings.Contains(s.Problems[0].String(), "link.yaml: cannot be read: no such file") {
		t.Errorf("problem: %v", s.Problems[0])
	}
	must(t, os.Mkdir(filepath.Join(f.dir, "dir.yaml"), 0o755))
	must(t, os.Truncate(filepath.Join(f.dir, "a.yaml"), fileBytesMax+1))
	s = f.until("a file too large", func(s *State) bool { return len(s.Problems) == 2 })
	if !has("default/a/1")(s) || !strings.Contains(s.Problems[0].Reason, "at most") {
		t.Errorf("too large: %s", describe(s))
	}
}

func TestFileTwice(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(first, "b.yaml"), ingress("x", "/b"))
	writeFile(t, filepath.Join(second, "a.yaml"), ingress("x", "/second"))
	f := running(t, first, second, first)
	s := f.until("the directory that is named first counts", has("default/x/b"))
	want := filepath.Join(first, "b.yaml") + ", document 1"
	if len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Reason, want) || !strings.HasPrefix(s.Problems[0].File, second) {
		t.Errorf("problems: %v", s.Problems)
	}
	id := route.Object{Kind: "Ingress", Namespace: "default", Name: "x"}
	if got := s.Where(id); got != want {
		t.Errorf("Where is %q, want %q", got, want)
	}
	f.write("a.yaml", ingress("x", "/a")+"---\n"+ingress("x", "/a2"))
	s = f.until("the file whose name comes first counts", has("default/x/a"))
	if len(s.Problems) != 3 {
		t.Errorf("problems: %v", s.Problems)
	}
	must(t, os.Remove(filepath.Join(first, "a.yaml")))
	must(t, os.Remove(filepath.Join(first, "b.yaml")))
	s = f.until("the last one left counts", has("default/x/second"))
	if len(s.Problems) > 0 {
		t.Errorf("problems: %v", s.Problems)
	}
}

// TestFileConfigMapMount replaces files the way the kubelet does.
func TestFileConfigMapMount(t *testing.T) {
	dir := t.TempDir()
	publish := func(version string) {
		folder := "..2026_" + version
		writeFile(t, filepath.Join(dir, folder, "a.yaml"), ingress("a", "/"+version))
		must(t, os.Symlink(folder, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	publish("1")
	must(t, os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")))
	f := running(t, dir)
	f.until("the first version", has("default/a/1"))
	publish("2")
	f.until("the second version", has("default/a/2"))
	must(t, os.RemoveAll(filepath.Join(dir, "..2026_1")))
	publish("3")
	f.until("the third version", has("default/a/3"))
}

func TestFileLinks(t *testing.T) {
	f := running(t)
	elsewhere := t.TempDir()
	writeFile(t, filepath.Join(elsewhere, "real"), ingress("a", "/1"))
	must(t, os.Symlink(filepath.Join(elsewhere, "real"), filepath.Join(f.dir, "a.yaml")))
	f.until("a link", has("default/a/1"))
	writeFile(t, filepath.Join(elsewhere, "real"), ingress("a", "/2"))
	f.until("its target changes", has("default/a/2"))
	writeFile(t, filepath.Join(elsewhere, "next"), ingress("a", "/3"))
	must(t, os.Rename(filepath.Join(elsewhere, "next"), filepath.Join(elsewhere, "real")))
	f.until("its target is replaced", has("default/a/3"))
}

func TestFileDirectoryComesLater(t *testing.T) {
	parent := t.TempDir()
	late := filepath.Join(parent, "not", "yet")
	f := running(t, late)
	f.quiet()
	if log := f.log.String(); strings.Count(log, "cannot be read") != 1 || !strings.Contains(log, late) {
		t.Errorf("the log does not say once what is missing:\n%s", log)
	}
	writeFile(t, filepath.Join(late, "a.yaml"), ingress("a", "/1"))
	f.until("the directory is there", has("default/a/1"))

	must(t, os.RemoveAll(late))
	s := f.until("it has gone", func(s *State) bool { return len(s.Problems) > 0 || len(names(s)) == 0 })
	if len(s.Problems) > 0 && len(names(s)) == 0 {
		t.Errorf("it has gone: %s", describe(s))
	}
	writeFile(t, filepath.Join(late, "a.yaml"), ingress("a", "/2"))
	f.until("it is back", has("default/a/2"))
	f.write("a.yaml", ingress("a", "/3"))
	f.until("and watched", has("default/a/3"))
}

func TestFileDirectoryReplaced(t *testing.T) {
	parent := t.TempDir()
	current, next := filepath.Join(parent, "current"), filepath.Join(parent, "next")
	writeFile(t, filepath.Join(current, "a.yaml"), ingress("a", "/1"))
	f := running(t, current)
	f.until("the first", has("default/a/1"))
	for _, version := range []string{"/2", "/3"} {
		writeFile(t, filepath.Join(next, "a.yaml"), ingress("a", version))
		must(t, os.Rename(current, filepath.Join(parent, "old"+version[1:])))
		must(t, os.Rename(next, current))
		f.until("replaced by rename", has("default/a"+version))
		f.write("a.yaml", ingress("a", version+"x"))
		f.until("and watched", has("default/a"+version+"x"))
	}

	link := filepath.Join(parent, "link")
	one, two := filepath.Join(parent, "one"), filepath.Join(parent, "two")
	writeFile(t, filepath.Join(one, "a.yaml"), ingress("a", "/one"))
	writeFile(t, filepath.Join(two, "a.yaml"), ingress("a", "/two"))
	must(t, os.Symlink(one, link))
	f = running(t, link)
	f.until("a linked directory", has("default/a/one"))
	must(t, os.Symlink(two, link+".new"))
	must(t, os.Rename(link+".new", link))
	f.until("the link leads elsewhere", has("default/a/two"))
	f.write("a.yaml", ingress("a", "/three"))
	f.until("and is watched there", has("default/a/three"))
}

// TestFileSlowWriter holds a file empty, and half written, for a while: neither may be taken for what it says.
func TestFileSlowWriter(t *testing.T) {
	const attempts = 20
	for i := range attempts {
		f := running(t)
		f.write("a.yaml", ingress("a", "/1")+"---\n"+ingress("b", "/1"))
		f.until("the first version", has("default/a/1", "default/b/1"))
		pause := f.writeSlowly("a.yaml", ingress("a", "/2")+"---\n"+ingress("b", "/2"))
		s := f.until("the second version", func(s *State) bool { return !has("default/a/1", "default/b/1")(s) })
		if has("default/a/2", "default/b/2")(s) {
			must(t, os.Truncate(filepath.Join(f.dir, "a.yaml"), 0))
			f.until("a file that stays empty", has())
			return
		}
		if pause < quietAfter/2 {
			t.Fatalf("a half written file was taken: %s", describe(s))
		}
		t.Logf("attempt %d: the writer itself was held up for %v, longer than a file may rest unfinished", i, pause)
	}
	t.Errorf("in %d attempts the writer was never quick enough: the machine is too busy for this test", attempts)
}

// writeSlowly empties a file, then writes it line by line, and tells the longest pause between two lines.
func (f *fixture) writeSlowly(name, text string) (longest time.Duration) {
	w, err := os.OpenFile(filepath.Join(f.dir, name), os.O_WRONLY|os.O_TRUNC, 0)
	must(f.T, err)
	time.Sleep(3 * quietAfter)
	last := time.Time{}
	for line := range strings.Lines(text) {
		if !last.IsZero() {
			time.Sleep(quietAfter / 10)
			longest = max(longest, time.Since(last))
		}
		last = time.Now()
		_, err := w.WriteString(line)
		must(f.T, err)
	}
	longest = max(longest, time.Since(last))
	must(f.T, w.Close())
	return longest
}

func TestFileTakesEffectSoon(t *testing.T) {
	f := running(t)
	f.write("a.yaml", ingress("a", "/0"))
	f.until("the start", has("default/a/0"))
	for i := range 5 {
		path := fmt.Sprint("/v", i)
		began := time.Now()
		f.write("a.yaml", ingress("a", path))
		f.until("a change", has("default/a"+path))
		if took := time.Since(began); took > time.Second {
			t.Errorf("a change took %v", took)
		}
	}
}

// TestFileWithoutEvents takes the events away: changes are still followed, by looking.
func TestFileWithoutEvents(t *testing.T) {
	f := &fixture{T: t, dir: t.TempDir(), states: make(chan *State, 1000), log: &lockedBuffer{}}
	source, err := Open(Spec{Scheme: "file", Paths: []string{f.dir}}, slog.New(slog.NewTextHandler(f.log, nil)))
	must(t, err)
	w := watch(source.(*fileSource).log)
	l := looker{fileSource: source.(*fileSource), watches: w, apply: func(s *State) { f.states <- s }}
	l.look(scanStart)
	f.until("an empty directory", has())
	if wait := l.wait(); wait <= pollEvery {
		t.Errorf("with events, the next look is in %v", wait)
	}
	w.lost()
	f.write("a.yaml", ingress("a", "/"))
	l.noticed()
	time.Sleep(l.wait())
	l.look(scanChanged)
	f.until("a new file", has("default/a/"))
	if wait := l.wait(); wait > pollEvery {
		t.Errorf("without events, the next look is in %v", wait)
	}
	if log := f.log.String(); strings.Count(log, "cannot be watched") != 1 {
		t.Errorf("the log does not say once that events are missing:\n%s", log)
	}
}

func TestFileLoad(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "a.yaml"), ingress("a", "/1"))
	load := func(paths ...string) (*State, error) {
		source, err := Open(Spec{Scheme: "file", Paths: paths}, slog.New(slog.DiscardHandler))
		must(t, err)
		return source.Load()
	}
	s, err := load(dir)
	if err != nil || !has("default/a/1")(s) {
		t.Errorf("Load: %s, %v", describe(s), err)
	}
	if _, err = load(filepath.Join(dir, "gone")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err = load(filepath.Join(dir, "a.yaml")); err == nil || !strings.Contains(err.Error(), "name its directory") {
		t.Errorf("a file: %v", err)
	}
}

func TestOpen(t *testing.T) {
	for scheme, want := range map[string]string{"kubernetes": "the cluster that this runs in", "consul": "file, kubernetes", "file": "no directory"} {
		if _, err := Open(Spec{Scheme: scheme}, slog.Default()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open %s without paths: %v, want %q", scheme, err, want)
		}
	}
}

// TestFileManyChanges makes changes as fast as it can: the last one counts, and the race detector looks on.
func TestFileManyChanges(t *testing.T) {
	f := running(t)
	var last string
	for i := range 300 {
		last = fmt.Sprint("/", i)
		f.write("a.yaml", ingress("a", last))
		if i%50 == 0 {
			f.source.Rescan()
		}
	}
	f.until("the last change", has("default/a"+last))
}

// TestFileTwiceComesAndGoes compares what a source tells after each of many changes with what a new one tells: which object
// counts, and what is said about the others, does not depend on what was there before.
func TestFileTwiceComesAndGoes(t *testing.T) {
	dirs := []string{t.TempDir(), t.TempDir()}
	spec := Spec{Scheme: "file", Paths: dirs}
	kept, err := Open(spec, slog.New(slog.DiscardHandler))
	must(t, err)
	const seed, steps, nameCount = 7, 200, 4
	chance := rand.New(rand.NewPCG(seed, seed))
	twice := 0
	for step := range steps {
		path := filepath.Join(dirs[chance.IntN(2)], fmt.Sprintf("%d.yaml", chance.IntN(3)))
		switch chance.IntN(5) {
		case 0:
			if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		case 1:
			writeFile(t, path, ingress("a", "/broken")+"---\n{")
		default:
			var text []string
			for range chance.IntN(4) {
				text = append(text, ingress(string(rune('a'+chance.IntN(nameCount))), fmt.Sprint("/", step)))
			}
			writeFile(t, path, strings.Join(text, "---\n"))
		}
		s, err := kept.Load()
		must(t, err)
		// The good version that a broken file leaves in force is the kept source's alone: the oracle reads what it holds.
		want, problems, where := gathered(kept.(*fileSource))
		if !slices.Equal(s.Objects.Ingresses, want) || !slices.Equal(s.Problems, problems) {
			t.Fatalf("step %d: %s, want %v", step, describe(s), problems)
		}
		for n := range nameCount {
			id := route.Object{Kind: "Ingress", Namespace: "default", Name: string(rune('a' + n))}
			if got := s.Where(id); got != where[id] {
				t.Fatalf("step %d: %v is at %q, want %q", step, id, got, where[id])
			}
		}
		for _, p := range s.Problems {
			if strings.Contains(p.Reason, "is there twice") {
				twice++
			}
		}
	}
	if twice == 0 {
		t.Error("no object was ever there twice")
	}
}

// gathered is state without anything remembered.
func gathered(f *fileSource) (list []*networkingv1.Ingress, problems []route.Problem, where map[route.Object]string) {
	where = map[route.Object]string{}
	for _, d := range f.roots {
		for _, name := range d.names {
			m := d.files[name]
			for _, f := range m.faults {
				problems = append(problems, faultProblem(m, f))
			}
			if m.good == nil {
				continue
			}
			for _, o := range m.good.objects {
				here := problemFile(m.shown, o.document)
				if first, there := where[o.id()]; there {
					problems = append(problems, route.Problem{Object: o.id(), File: here,
						Reason: "is there twice: the one in " + first + " counts, remove one of them"})
					continue
				}
				where[o.id()] = here
				list = append(list, o.Object.(*networkingv1.Ingress))
			}
		}
	}
	return list, problems, where
}

// TestFileWhereOfAnOlderState asks a State about its objects after others came, from several goroutines.
func TestFileWhereOfAnOlderState(t *testing.T) {
	f := running(t)
	f.write("a.yaml", ingress("a", "/1")+"---\n"+ingress("b", "/1"))
	older := f.until("the start", has("default/a/1", "default/b/1"))
	f.write("a.yaml", ingress("b", "/2"))
	newer := f.until("a goes", has("default/b/2"))
	file := filepath.Join(f.dir, "a.yaml")
	a, b := route.Object{Kind: "Ingress", Namespace: "default", Name: "a"}, route.Object{Kind: "Ingress", Namespace: "default", Name: "b"}
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			got := [...]string{older.Where(a), older.Where(b), newer.Where(a), newer.Where(b)}
			if want := [...]string{file + ", document 1", file + ", document 2", "", file + ", document 1"}; got != want {
				t.Errorf("the objects are at %q, want %q", got, want)
			}
		})
	}
	asking.Wait()
}

// TestFileStateCostsLittle bounds what a change of one file costs beside many objects of others.
func TestFileStateCostsLittle(t *testing.T) {
	dir := t.TempDir()
	const many = 2000
	list := make([]string, many)
	for i := range list {
		list[i] = ingress(fmt.Sprintf("many-%d", i), "/")
	}
	writeFile(t, filepath.Join(dir, "many.yaml"), strings.Join(list, "---\n"))
	writeFile(t, filepath.Join(dir, "one.yaml"), ingress("one", "/"))
	opened, err := Open(Spec{Scheme: "file", Paths: []string{dir}}, slog.New(slog.DiscardHandler))
	must(t, err)
	_, err = opened.Load()
	must(t, err)
	source := opened.(*fileSource)
	one := source.roots[0].files["one.yaml"]
	versions := [2]*manifest{one.good, decodeManifest("one.yaml", []byte(ingress("one", "/2")), nil)}
	var s *State
	n := 0
	allocations := testing.AllocsPerRun(100, func() {
		n++
		one.good = versions[n%2]
		s = source.state()
	})
	if len(s.Objects.Ingresses) != many+1 || cap(s.Objects.Ingresses) > many+many/10 {
		t.Errorf("%d Ingresses, room for %d", len(s.Objects.Ingresses), cap(s.Objects.Ingresses))
	}
	if allocations > 16 {
		t.Errorf("a state made %v allocations", allocations)
	}
}
