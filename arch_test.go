package main_test

import (
	"bufio"
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

// TestHouse holds the program to ARCHITECTURE.md: what imports what, what is documented, which files the documents name,
// and how large things may grow. Each rule is a method of house that returns its findings as "place: what is wrong".
func TestHouse(t *testing.T) {
	h, err := readHouse(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, finding := range r.check(h) {
				t.Error(finding)
			}
		})
	}
}

var rules = []struct {
	name  string
	check func(*house) []string
}{
	{"floors", (*house).climbing},
	{"kubernetes stays upstairs", (*house).kubernetes},
	{"translate is pure", (*house).impure},
	{"unsafe has its home", (*house).unsafe},
	{"packages have a doc sentence", (*house).undocumented},
	{"documents name living files", (*house).deadNames},
	{"sizes", (*house).oversized},
	{"settings have readers", (*house).unread},
}

// Sizes that nothing may pass. CONTRIBUTING.md asks for a second look long before.
const (
	functionLinesMax = 120  // outside tests
	fileLinesMax     = 1200 // tests too
	unsafeFilesMax   = 2
)

// Rooms of the data plane: Kubernetes and its types end above them.
var dataPlane = []string{"route", "l7", "l7/filter", "l7/wire", "upstream", "sni", "fastpath", "ebpf"}

// Folders that the documents may name before they are there, beside the rooms of the floors block.
var laterFolders []string

// Structs whose fields the ConfigMap or an annotation sets: a field that nobody reads is a key without effect.
var settings = []string{"l7.Settings", "l7.Policy", "l7/wire.Limits", "sni.Limits", "upstream.Settings",
	"watcher/translate.Process", "watcher/translate.ProxyProtocol"}

// A house is the repository as the rules see it.
type house struct {
	module string         // module path of go.mod
	floors map[string]int // room → floor; "." is the root
	apart  []string       // rooms on floor "-": programs of their own, which import nothing of ours
	files  []string       // every file, sorted; of a nested module its go.mod only
	source []*source      // every Go file outside testdata
	docs   []document     // *.md at the root and in docs
}

type source struct {
	path  string
	room  string // folder; "." for the root
	lines int
	test  bool
	set   *token.FileSet
	*ast.File
}

type document struct {
	path string
	text string
}

// readHouse reads all that the rules look at from a tree whose root holds go.mod and ARCHITECTURE.md.
func readHouse(tree fs.FS) (*house, error) {
	h := &house{floors: map[string]int{}}
	mod, err := fs.ReadFile(tree, "go.mod")
	if err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(mod), "\n")
	h.module = strings.TrimSpace(strings.TrimPrefix(line, "module "))

	plan, err := fs.ReadFile(tree, "ARCHITECTURE.md")
	if err != nil {
		return nil, err
	}
	if err := h.readFloors(string(plan)); err != nil {
		return nil, err
	}
	if err := h.listFiles(tree); err != nil {
		return nil, err
	}
	slices.Sort(h.files)
	for _, name := range h.files {
		if err := h.readFile(tree, name); err != nil {
			return nil, err
		}
	}
	return h, nil
}

var floorLine = regexp.MustCompile(`^(\d+|-)\s+(\S+)\s+\S`)

// readFloors takes rooms and floors from the block that is fenced as "floors".
func (h *house) readFloors(plan string) error {
	_, block, found := strings.Cut(plan, "\n```floors\n")
	block, _, closed := strings.Cut(block, "\n```")
	if !found || !closed {
		return fmt.Errorf("ARCHITECTURE.md: no block fenced as floors")
	}
	for line := range strings.Lines(block) {
		m := floorLine.FindStringSubmatch(line)
		if m == nil {
			return fmt.Errorf("ARCHITECTURE.md: %q is not a floor, a room and what it is for", strings.TrimSpace(line))
		}
		if m[1] == "-" {
			h.apart = append(h.apart, m[2])
			continue
		}
		h.floors[m[2]], _ = strconv.Atoi(m[1])
	}
	return nil
}

// listFiles walks the tree, past hidden folders, build output and modules of their own.
func (h *house) listFiles(tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			h.files = append(h.files, name)
			return nil
		}
		if name == "." {
			return nil
		}
		if base := path.Base(name); base[0] == '_' || base[0] == '.' && base != ".ci" || name == "bin" {
			return fs.SkipDir
		}
		if _, err := fs.Stat(tree, name+"/go.mod"); err == nil {
			h.files = append(h.files, name+"/go.mod") // it may be named, but is not ours to judge
			return fs.SkipDir
		}
		return nil
	})
}

func (h *house) readFile(tree fs.FS, name string) error {
	room, ext := path.Dir(name), path.Ext(name)
	isDoc := ext == ".md" && (room == "." || room == "docs" || strings.HasPrefix(room, "docs/"))
	isSource := ext == ".go" && !slices.Contains(strings.Split(room, "/"), "testdata")
	if !isDoc && !isSource {
		return nil
	}
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return err
	}
	if isDoc {
		h.docs = append(h.docs, document{name, string(text)})
		return nil
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	h.source = append(h.source, &source{
		path: name, room: room, lines: bytes.Count(text, []byte("\n")),
		test: strings.HasSuffix(name, "_test.go"), set: set, File: file,
	})
	return nil
}

// imports calls f with each import of each file that is not a test.
func (h *house) imports(f func(s *source, imported string)) {
	for _, s := range h.source {
		if s.test {
			continue
		}
		for _, spec := range s.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			f(s, imported)
		}
	}
}

// program returns the room on floor "-" that holds the folder, or "".
func (h *house) program(folder string) string {
	for _, room := range h.apart {
		if folder == room || strings.HasPrefix(folder, room+"/") {
			return room
		}
	}
	return ""
}

// climbing finds packages without a floor, and imports that do not lead to a lower floor.
func (h *house) climbing() (found []string) {
	homeless := map[string]bool{}
	for _, s := range h.source {
		if _, ok := h.floors[s.room]; !ok && h.program(s.room) == "" && !homeless[s.room] {
			homeless[s.room] = true
			found = append(found, fmt.Sprintf("%s: the floors block of ARCHITECTURE.md has no room %s", s.path, s.room))
		}
	}
	h.imports(func(s *source, imported string) {
		to, ours := strings.CutPrefix(imported, h.module+"/")
		if imported == h.module {
			to, ours = ".", true
		}
		if !ours || homeless[s.room] {
			return
		}
		from, program := h.floors[s.room], h.program(s.room)
		floor, ok := h.floors[to]
		switch {
		case program != "" && h.program(to) == program:
			// a program of its own may have rooms of its own
		case program != "":
			found = append(found, fmt.Sprintf("%s: imports %s; %s imports nothing of the proxy", s.path, to, program))
		case !ok:
			found = append(found, fmt.Sprintf("%s: imports %s, which has no floor", s.path, to))
		case floor >= from:
			found = append(found, fmt.Sprintf("%s: imports %s: floor %d may not import floor %d", s.path, to, from, floor))
		}
	})
	return found
}

// kubernetes finds imports of Kubernetes on the data plane.
func (h *house) kubernetes() (found []string) {
	h.imports(func(s *source, imported string) {
		domain, _, _ := strings.Cut(imported, "/")
		if (domain == "k8s.io" || strings.HasSuffix(domain, ".k8s.io")) && slices.Contains(dataPlane, s.room) {
			found = append(found, fmt.Sprintf("%s: imports %s; Kubernetes ends in watcher/translate", s.path, imported))
		}
	})
	return found
}

// What pure code neither imports nor calls: clocks, sockets, files.
var (
	impureImports = []string{"os", "os/exec", "os/signal", "io/ioutil", "net/http", "syscall", "golang.org/x/sys/unix",
		"github.com/fsnotify/fsnotify"}
	impureCall = regexp.MustCompile(`^(time\.(Now|Since|Until|After|AfterFunc|Sleep|Tick|NewTicker|NewTimer)|` +
		`net\.(Dial|Listen|Lookup|Resolve|Interface)\w*)$`)
)

// impure finds clocks, sockets and files in watcher/translate.
func (h *house) impure() (found []string) {
	const room = "watcher/translate"
	h.imports(func(s *source, imported string) {
		if s.room == room && slices.Contains(impureImports, imported) {
			found = append(found, fmt.Sprintf("%s: imports %s; translate touches no clock, socket or file", s.path, imported))
		}
	})
	for _, s := range h.source {
		if s.room != room || s.test {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && impureCall.MatchString(x.Name+"."+sel.Sel.Name) {
					found = append(found, fmt.Sprintf("%s: %s.%s; translate touches no clock, socket or file",
						s.set.Position(sel.Pos()), x.Name, sel.Sel.Name))
				}
			}
			return true
		})
	}
	return found
}

// unsafe finds files that import unsafe, beyond those that fastpath may have.
func (h *house) unsafe() (found []string) {
	homes := 0
	h.imports(func(s *source, imported string) {
		if imported != "unsafe" {
			return
		}
		if s.room == "fastpath" {
			homes++
		}
		if s.room != "fastpath" || homes > unsafeFilesMax {
			found = append(found, s.path+": imports unsafe, which has its home in two files of fastpath")
		}
	})
	return found
}

// undocumented finds packages that do not open with what they promise.
func (h *house) undocumented() (found []string) {
	docs := map[string]string{} // folder → package comment
	names := map[string]string{}
	for _, s := range h.source {
		if s.test {
			continue
		}
		names[s.room] = s.Name.Name
		docs[s.room] += s.Doc.Text()
	}
	for _, room := range slices.Sorted(maps.Keys(names)) {
		start := "Package " + names[room] + " "
		if names[room] == "main" {
			start = "" // a program may begin as it likes
		}
		if doc := docs[room]; !strings.HasPrefix(doc, start) || !strings.Contains(doc, ".") {
			found = append(found, fmt.Sprintf("%s: package %s has no doc sentence (%q…)", room, names[room], start))
		}
	}
	return found
}

// oversized finds functions and files beyond the sizes that nothing may pass. What is generated is as long as it is.
func (h *house) oversized() (found []string) {
	for _, s := range h.source {
		if ast.IsGenerated(s.File) {
			continue
		}
		if s.lines > fileLinesMax {
			found = append(found, fmt.Sprintf("%s: %d lines; a file has at most %d", s.path, s.lines, fileLinesMax))
		}
		if s.test {
			continue
		}
		for _, decl := range s.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1; n > functionLinesMax {
				found = append(found, fmt.Sprintf("%s: %s has %d lines; a function has at most %d", s.path, f.Name.Name, n,
					functionLinesMax))
			}
		}
	}
	return found
}

var (
	codeSpan = regexp.MustCompile("`([^`\n]+)`")
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fileName = regexp.MustCompile(`^[\w./-]*\w\.(go|md|yaml|yml)$`)
	pathName = regexp.MustCompile(`^[\w./-]+$`)
)

// deadNames finds names of files and folders in the documents that nothing bears. A name is what stands in backticks and
// ends like a file or starts with a folder of ours, and every relative link. Words with *, … or capitals for parts (NAME,
// NNNN) are patterns, not names. Fenced blocks and sections called "Adding things…" show what could be, and are left out.
func (h *house) deadNames() (found []string) {
	for _, d := range h.docs {
		text := bufio.NewScanner(strings.NewReader(d.text))
		text.Buffer(nil, len(d.text)+1)
		fenced, example := false, false
		for n := 1; text.Scan(); n++ {
			line := text.Text()
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				fenced = !fenced
				continue
			}
			if strings.HasPrefix(line, "## ") {
				example = strings.HasPrefix(line, "## Adding things")
			}
			if fenced || example {
				continue
			}
			for _, name := range h.dead(d, line) {
				found = append(found, fmt.Sprintf("%s:%d: %s is named but not there", d.path, n, name))
			}
		}
	}
	return found
}

// dead returns the names in one line of a document that nothing bears.
func (h *house) dead(d document, line string) (names []string) {
	for _, m := range codeSpan.FindAllStringSubmatch(line, -1) {
		file, function, _ := strings.Cut(m[1], ": ") // `l7/serve.go: serve` names both
		words := strings.Fields(file)
		for _, w := range words {
			w = strings.TrimPrefix(w, "./")
			named := fileName.MatchString(w) && len(words) == 1 || pathName.MatchString(w) && h.isOurs(w)
			if named && !placeholder.MatchString(w) && !h.exists(w, path.Dir(d.path)) {
				names = append(names, w)
			}
		}
		if function != "" && fileName.MatchString(file) && !h.declares(file, function) {
			names = append(names, m[1])
		}
	}
	for _, m := range link.FindAllStringSubmatch(line, -1) {
		target, _, _ := strings.Cut(m[1], "#")
		if target == "" || strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
			continue
		}
		if !h.exists(target, path.Dir(d.path)) {
			names = append(names, target)
		}
	}
	return names
}

var placeholder = regexp.MustCompile(`NAME|NNNN|\.\.\.`)

// isOurs tells whether a path with a slash starts with a folder of the repository or a room of the floors block.
func (h *house) isOurs(name string) bool {
	top, _, slash := strings.Cut(name, "/")
	return slash && top != "" && (h.hasFolder(top) || h.later(name))
}

func (h *house) hasFolder(name string) bool {
	i, _ := slices.BinarySearch(h.files, name+"/")
	return i < len(h.files) && strings.HasPrefix(h.files[i], name+"/")
}

// later tells whether a name belongs to a room that is announced and not there yet.
func (h *house) later(name string) bool {
	announced := slices.Concat(slices.Collect(maps.Keys(h.floors)), h.apart, laterFolders)
	return slices.ContainsFunc(announced, func(room string) bool {
		return (name == room || strings.HasPrefix(name, room+"/")) && !h.hasFolder(room)
	})
}

// exists tells whether a name of a document in folder is a file or a folder of the repository: from the root, from the
// document, or, as people write inside a room, by the end of its path.
func (h *house) exists(name, folder string) bool {
	for _, full := range []string{path.Clean(name), path.Join(folder, name)} {
		_, file := slices.BinarySearch(h.files, full)
		if file || h.hasFolder(full) || h.later(full) {
			return true
		}
	}
	return fileName.MatchString(name) && slices.ContainsFunc(h.files, func(f string) bool {
		return strings.HasSuffix(f, "/"+name)
	})
}

// declares tells whether a file has a function or method of that name; files that are not there are reported elsewhere.
func (h *house) declares(file, function string) bool {
	for _, s := range h.source {
		if s.path != file {
			continue
		}
		return slices.ContainsFunc(s.Decls, func(decl ast.Decl) bool {
			f, ok := decl.(*ast.FuncDecl)
			return ok && f.Name.Name == function
		})
	}
	return true
}

// unread finds fields of settings that no code reads. Translate, which sets them, does not count; nor does an assignment.
func (h *house) unread() (found []string) {
	read := map[string]bool{}
	for _, s := range h.source {
		if s.test || s.room == "watcher/translate" {
			continue
		}
		written := map[ast.Expr]bool{}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				for _, to := range n.Lhs {
					written[to] = true
				}
			case *ast.SelectorExpr:
				read[n.Sel.Name] = read[n.Sel.Name] || !written[n]
			}
			return true
		})
	}
	for _, s := range h.source {
		ast.Inspect(s.File, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || s.test || !slices.Contains(settings, s.room+"."+spec.Name.Name) {
				return true
			}
			for _, field := range spec.Type.(*ast.StructType).Fields.List {
				for _, name := range field.Names {
					if !read[name.Name] {
						found = append(found, fmt.Sprintf("%s: %s.%s: nobody reads it", s.set.Position(name.Pos()), spec.Name.Name, name.Name))
					}
				}
			}
			return true
		})
	}
	return found
}

// TestHouseRules shows that a sound house has no finding and that each flaw is found, by its own rule alone.
func TestHouseRules(t *testing.T) {
	if found := findings(t, sound()); len(found) > 0 {
		t.Fatalf("a sound house has findings: %q", found)
	}
	unbuilt := fstest.MapFS{"go.mod": file("module p"), "README.md": file(""), "ARCHITECTURE.md": sound()["ARCHITECTURE.md"], "main.go": sound()["main.go"]}
	if found := findings(t, unbuilt); len(found) > 0 {
		t.Errorf("a house whose rooms are not built yet has findings: %q", found)
	}
	for _, c := range flaws {
		t.Run(c.name, func(t *testing.T) {
			tree := sound()
			tree[c.file] = file(c.text)
			found := findings(t, tree)
			if len(found) != 1 || !strings.Contains(found[0], c.want) {
				t.Errorf("found %q, want one finding with %q", found, c.want)
			}
		})
	}
}

var flaws = []struct{ name, file, text, want string }{
	{"import climbs", "l7/up.go", "package l7\nimport _ `example.org/p/sni`", "floors: l7/up.go: imports sni: floor 2 may not import floor 8"},
	{"import stays on its floor", "sni/a.go", "package sni\nimport _ `example.org/p/admin`", "imports admin: floor 8 may not import floor 8"},
	{"import of the root", "l7/up.go", "package l7\nimport _ `example.org/p`", "imports .: floor 2"},
	{"import of a room without a floor", "sni/a.go", "package sni\nimport _ `example.org/p/util`", "imports util, which has no floor"},
	{"import of a program apart", "main_b.go", "package main\nimport _ `example.org/p/bench`", "imports bench, which has no floor"},
	{"a program apart imports the proxy", "bench/load/up.go", "package load\nimport _ `example.org/p/fastpath`", "imports nothing of the proxy"},
	{"room without a floor", "util/a.go", "// Package util is a drawer.\npackage util", "floors: util/a.go: the floors block"},
	{"kubernetes on the data plane", "fastpath/k.go", "package fastpath\nimport _ `sigs.k8s.io/yaml`", "imports sigs.k8s.io/yaml"},
	{"translate reads a file", "watcher/translate/a.go", "// Package translate translates.\npackage translate\nimport _ `os`", "imports os"},
	{"translate reads a clock", "watcher/translate/a.go", "// Package translate translates.\npackage translate\nvar _ = time.Now()", "a.go:3:9: time.Now"},
	{"unsafe elsewhere", "sni/a.go", "package sni\nimport _ `unsafe`", "sni/a.go: imports unsafe"},
	{"unsafe a third time", "fastpath/third.go", "package fastpath\nimport _ `unsafe`", "fastpath/third.go: imports unsafe"},
	{"no doc sentence", "sni/door.go", "package sni", "sni: package sni has no doc sentence"},
	{"doc sentence of another form", "sni/door.go", "// The door.\npackage sni", "sni: package sni has no doc sentence"},
	{"main without a doc sentence", "main.go", "package main", ".: package main has no doc sentence"},
	{"dead file", "CHANGES.md", "\n\nsee `gone.go`", "CHANGES.md:3: gone.go"},
	{"dead path", "docs/x.md", "`docs/gone.md`", "docs/x.md:1: docs/gone.md"},
	{"dead folder", "docs/x.md", "`l7/gone/`", "l7/gone/"},
	{"dead folder in a command", "docs/x.md", "`go test ./l7/gone -v`", "l7/gone"},
	{"dead function", "docs/x.md", "`l7/serve.go: gone`", "l7/serve.go: gone"},
	{"dead link", "docs/x.md", "[x](gone.md#part)", "gone.md"},
	{"long function", "sni/a.go", "package sni\nfunc f() {\n" + strings.Repeat("\n", 119) + "}", "f has 121 lines"},
	{"setting that nobody reads", "sni/limits.go", "package sni\ntype Limits struct{ Most, Least int }\nfunc f(l Limits) { l.Most = 1; use(l.Least) }",
		"sni/limits.go:2:21: Limits.Most: nobody reads it"},
	{"long file", "sni/a_test.go", "package sni" + strings.Repeat("\n", 1201), "sni/a_test.go: 1201 lines"},
}

// findings returns what all rules find in a tree, each behind its rule's name.
func findings(t *testing.T, tree fs.FS) (found []string) {
	t.Helper()
	h, err := readHouse(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		for _, finding := range r.check(h) {
			found = append(found, r.name+": "+finding)
		}
	}
	return found
}

// sound is a small house without a finding, full of what only looks like one.
func sound() fstest.MapFS {
	return fstest.MapFS{
		"go.mod":          file("module example.org/p\n\ngo 1.26\n"),
		"ARCHITECTURE.md": file(strings.ReplaceAll(plan, "'", "`")),
		"README.md":       file(""),
		"docs/a/b.md":     file("`../../main.go`, `serve.go`, [up](../../ARCHITECTURE.md#p), [out](https://example.org/x.md)"),

		"main.go":               file("// P is.\npackage main\nimport (\n_ `example.org/p/l7`\n_ `k8s.io/api`\n)"),
		"l7/serve.go":           file("// Package l7 serves.\npackage l7\nimport _ `example.org/p/fastpath`\nfunc serve() {}"),
		"l7/serve_test.go":      file("package l7\nimport (\n_ `example.org/p/sni`\n_ `unsafe`\n)\nfunc f() {" + strings.Repeat("\n", 200) + "}"),
		"l7/tables.go":          file("// Code generated by hand. DO NOT EDIT.\n\npackage l7\nfunc f() {" + strings.Repeat("\n", 2000) + "}"),
		"sni/door.go":           file("// Package sni is the door.\npackage sni"),
		"fastpath/raw.go":       file("// Package fastpath moves.\npackage fastpath\nimport _ `unsafe`"),
		"fastpath/shared.go":    file("package fastpath\nimport _ `unsafe`"),
		"watcher/w.go":          file("// Package watcher watches.\npackage watcher\nimport _ `os`\nvar _ = time.Now"),
		"watcher/testdata/x.go": file("package broken {"),
		"bench/main.go":         file("// Bench is.\npackage main\nimport _ `example.org/p/bench/load`"),
		"bench/load/load.go":    file("// Package load loads.\npackage load"),

		"tools/go.mod":  file("module example.org/p/tools"),
		"tools/wild.go": file("package wild\nimport _ `unsafe`"),
		".git/x.go":     file("no Go at all"),
	}
}

// plan is written with ' for `.
const plan = `# P

'''floors
10 .                  main
8  sni                the door
8  admin              not built yet
7  watcher/translate  not built yet
6  watcher            sources
2  l7                 http
1  fastpath           bytes
0  ebpf               not built yet
-  bench              apart
'''

'main.go' calls 'l7/serve.go: serve' by [the door](sni/door.go#L1), see 'README.md'. 'go test ./l7' tests it.
'ebpf/load.go' and 'deploy/' come later. 'shop/web', '/healthz', 'NAME.in.yaml' and 'l7/h_*.go' are no files.

## Adding things

'l7/geo.go'

## After it

'''
'gone.go'
'''
`

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
