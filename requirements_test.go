package main

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestRequirements holds docs/hardening.md, section 3, against docs/hardening-tests.md: each rule has its tests' names
// there, and each of these tests exists.
func TestRequirements(t *testing.T) {
	rules, table := readPage(t, "docs/hardening.md"), readPage(t, "docs/hardening-tests.md")
	tested := testedRules(table)
	for section, list := range rulesOf(rules) {
		for _, rule := range list {
			if _, ok := tested[section][rule]; !ok {
				t.Errorf("docs/hardening-tests.md, section %s, has no row for the rule: %s", section, rule)
			}
		}
		for rule := range tested[section] {
			if !contains(list, rule) {
				t.Errorf("docs/hardening-tests.md, section %s: docs/hardening.md has no rule: %s", section, rule)
			}
		}
	}
	for _, rows := range tested {
		for rule, tests := range rows {
			if wrong := checkTests(os.DirFS("."), tests); wrong != "" {
				t.Errorf("docs/hardening-tests.md: %s: %s", rule, wrong)
			}
		}
	}
}

func readPage(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

var (
	sectionTitle = regexp.MustCompile(`^#{2,3} (3\.\d) `)
	boldLead     = regexp.MustCompile(`^(?:\d\. |- )?\*\*(.+?)\.?\*\*`)
	testName     = regexp.MustCompile("`(?:([a-z0-9/]+)\\.)?((?:Test|Fuzz)[A-Za-z0-9]*)(?:/([^`]*))?`")
)

// rulesOf lists the rules of section 3 by their sections: the first cells of its tables, and what its paragraphs and lists
// begin with in bold.
func rulesOf(page string) map[string][]string {
	rules, section := map[string][]string{}, ""
	for _, line := range strings.Split(page, "\n") {
		if strings.HasPrefix(line, "#") {
			section = ""
			if m := sectionTitle.FindStringSubmatch(line); m != nil {
				section = m[1]
			}
		}
		switch first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | "); {
		case section == "":
		case strings.HasPrefix(line, "| "):
			if first != "---" && first != "input" && first != "what" && first != "rule" {
				rules[section] = append(rules[section], first)
			}
		default:
			if m := boldLead.FindStringSubmatch(line); m != nil {
				rules[section] = append(rules[section], m[1])
			}
		}
	}
	return rules
}

// testedRules gives the second cells of the table, by section and first cell. What is outside section 3 is "".
func testedRules(page string) map[string]map[string]string {
	tested, section := map[string]map[string]string{}, ""
	for _, line := range strings.Split(page, "\n") {
		if strings.HasPrefix(line, "#") {
			section = ""
			if m := sectionTitle.FindStringSubmatch(line); m != nil {
				section = m[1]
			}
		}
		cells := strings.Split(strings.TrimSuffix(line, " |"), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) != 2 || cells[0] == "| ---" || cells[1] == "tests" {
			continue
		}
		if tested[section] == nil {
			tested[section] = map[string]string{}
		}
		tested[section][strings.TrimPrefix(cells[0], "| ")] = cells[1]
	}
	return tested
}

// checkTests tells what is wrong with a row's tests; "": all are there.
func checkTests(tree fs.FS, tests string) string {
	if later, ok := strings.CutPrefix(tests, "later: "); ok {
		if file := map[string]string{"HTTP/2": "l7/http2.go"}[later]; file == "" {
			return "nobody knows what is later: " + later
		} else if _, err := fs.Stat(tree, file); !errors.Is(err, fs.ErrNotExist) {
			return file + " is there, so that its tests have to be named"
		}
		return ""
	}
	names := testName.FindAllStringSubmatch(tests, -1)
	if len(names) == 0 {
		return "no test is named"
	}
	for _, n := range names {
		folder := path.Clean(n[1])
		if inner := map[string]string{"wire": "l7/wire", "filter": "l7/filter", "translate": "watcher/translate"}[folder]; inner != "" {
			folder = inner
		}
		if !declaresTest(tree, folder, n[2]) {
			return "there is no " + n[0]
		}
		has := tablesOfTests[n[2]]
		if table := oracleTables[n[2]]; table != nil {
			has = func(row string) bool { _, ok := withKeys(table())[row]; return ok }
		}
		if has != nil && n[3] != "" && !has(n[3]) {
			return n[2] + " has no row " + n[3]
		}
	}
	return ""
}

// tablesOfTests tell whether a test has a row of that name.
var tablesOfTests = map[string]func(row string) bool{
	"TestWire":          func(row string) bool { return wireTable()[row] != nil },
	"TestDialect":       func(row string) bool { _, ok := dialectTable()[row]; return ok },
	"TestQuirks":        func(row string) bool { return quirks[row] != nil },
	"TestOracleStream":  func(row string) bool { return oracleStreams[row] != nil },
	"TestOracleProcess": func(row string) bool { return oracleProcesses[row] != nil },
	"TestOracleLogs":    func(row string) bool { _, ok := oracleLogs[row]; return ok },
}

// declaresTest tells whether a folder's tests have a function of that name.
func declaresTest(tree fs.FS, folder, name string) bool {
	files, _ := fs.Glob(tree, path.Join(folder, "*_test.go"))
	for _, f := range files {
		if b, err := fs.ReadFile(tree, f); err == nil && strings.Contains(string(b), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}

// TestRequirementsAreRead: the reader of the two pages sees what it has to, and complains where it has to.
func TestRequirementsAreRead(t *testing.T) {
	rules := rulesOf("### 3.1 A\n1. **First.** x\n2. **Second** y\n### 3.2 B\n| input | answer |\n| --- | --- |\n| an `a` | 400 |\n**Paths.** z\n## 4 C\n- **Not a rule.**\n")
	if got := strings.Join(rules["3.1"], ",") + ";" + strings.Join(rules["3.2"], ","); got != "First,Second;an `a`,Paths" || len(rules) != 2 {
		t.Errorf("rules: %q", rules)
	}
	for tests, want := range map[string]string{
		"`TestRequirements`, `l7.TestChaos`": "",
		"`TestWire/websocket`":               "",
		"`TestWire/nonsense`":                "TestWire has no row nonsense",
		"`l7.TestNobody`":                    "there is no `l7.TestNobody`",
		"`TestChaos`":                        "there is no `TestChaos`",
		"":                                   "no test is named",
		"later: HTTP/9":                      "nobody knows what is later: HTTP/9",
	} {
		if got := checkTests(os.DirFS("."), tests); got != want {
			t.Errorf("%s: %q, want %q", tests, got, want)
		}
	}
}
