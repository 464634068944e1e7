package main

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluiceproxy/sluice/watcher/translate"
)

// TestDialectIsTested holds the tables of annotations, keys and flags against docs/dialect-tests.md: what works has its
// tests' names there, and each of these tests exists; what is not built yet is listed.
func TestDialectIsTested(t *testing.T) {
	flags := ""
	for _, f := range table {
		flags += "| `--" + f.name + "` | own | x |\n"
	}
	for _, wrong := range untested(translate.AnnotationsMarkdown()+"## Flags\n"+flags, readPage(t, "docs/dialect-tests.md")) {
		t.Error(wrong)
	}
}

var (
	verdictOfRow = regexp.MustCompile(`\| (same|differs|own|not yet) \|`)
	quirkLead    = regexp.MustCompile(`^\*\*(.+?)\*\*`)
)

// translated are the tests that hold translations, and no effects.
var translated = map[string]bool{"translate.TestGolden": true, "translate.TestEveryKeyHasItsGolden": true, "translate.TestConfigMapDefaults": true}

// untested tells what the page of tests lacks, and what it has too much.
func untested(tables, page string) (wrong []string) {
	rows, oracles, notYet := rowsOf(page)
	later := map[string]bool{}
	section := ""
	for line := range strings.Lines(tables) {
		if strings.HasPrefix(line, "## ") {
			section, _, _ = strings.Cut(strings.TrimSpace(line[3:]), " ")
		}
		verdict := verdictOfRow.FindStringSubmatch(line)
		if !strings.HasPrefix(line, "| `") || verdict == nil {
			continue
		}
		names, _, _ := strings.Cut(line[2:], " |")
		row := section + " " + names
		if verdict[1] == "not yet" {
			name := strings.TrimPrefix(section+" ", "Annotations ") + strings.Trim(names, "`")
			if later[name] = true; !slices.Contains(notYet, name) {
				wrong = append(wrong, "not built yet, and not listed: "+name)
			}
			continue
		}
		tests, ok := rows[row]
		switch {
		case !ok:
			wrong = append(wrong, "no row for "+row)
		default:
			if missing := checkTests(os.DirFS("."), tests); missing != "" {
				wrong = append(wrong, row+": "+missing)
			} else if !slices.ContainsFunc(strings.Split(tests, ", "), func(name string) bool { return !translated[strings.Trim(name, "`")] }) {
				wrong = append(wrong, row+": no test shows its effect, only how it is translated")
			} else if missing := checkOracle(os.DirFS("."), oracles[row]); missing != "" {
				wrong = append(wrong, row+": "+missing)
			}
			delete(rows, row)
		}
	}
	for _, name := range notYet {
		if !later[name] {
			wrong = append(wrong, "listed as not built yet, and no longer so: "+name)
		}
	}
	for row, tests := range rows {
		if quirk, ok := strings.CutPrefix(row, "Quirks "); !ok {
			wrong = append(wrong, "there is no key for the row "+row)
		} else if missing := checkQuirk(quirk, tests); missing != "" {
			wrong = append(wrong, row+": "+missing)
		} else if missing := checkOracle(os.DirFS("."), oracles[row]); missing != "" {
			wrong = append(wrong, row+": "+missing)
		}
	}
	if !slices.IsSorted(notYet) {
		wrong = append(wrong, "the list of what is not built yet is not sorted")
	}
	return wrong
}

// rowsOf reads the page: second and third cells by section and first cell, and the list of keys that are not built yet.
func rowsOf(page string) (rows, oracles map[string]string, notYet []string) {
	rows, oracles = map[string]string{}, map[string]string{}
	section := ""
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "## ") {
			section = line[3:]
		}
		if item, ok := strings.CutPrefix(line, "- "); ok && section == "Not yet" {
			notYet = append(notYet, strings.Trim(item, "`"))
		}
		cells := strings.Split(strings.TrimSuffix(strings.TrimPrefix(line, "| "), " |"), " | ")
		if strings.HasPrefix(line, "| ") && len(cells) == 3 && cells[0] != "---" && cells[1] != "tests" {
			rows[section+" "+cells[0]], oracles[section+" "+cells[0]] = cells[1], cells[2]
		}
	}
	return rows, oracles, notYet
}

var (
	noOracle    = regexp.MustCompile(`^none: \S+ .*\S$`) // with a reason
	asksNginx   = regexp.MustCompile(`\b((nginx|nginxStream|startNginx|runOracle)\(t\b|oracle(Streams|Processes)\b)`)
	differsHow  = regexp.MustCompile(` \(differs: [^()]+\)$`)
	oracleTests = regexp.MustCompile(`^(` + "`[^`]+`" + `(, |$))+$`)
)

// checkOracle wants a test that asks nginx the same, or why there is none.
func checkOracle(tree fs.FS, cell string) string {
	if noOracle.MatchString(cell) {
		return ""
	}
	cell = differsHow.ReplaceAllString(cell, "")
	if !oracleTests.MatchString(cell) {
		return "neither an oracle nor why nginx has no such thing: " + cell
	}
	if missing := checkTests(tree, cell); missing != "" {
		return missing
	}
	for _, n := range testName.FindAllStringSubmatch(cell, -1) {
		files, _ := fs.Glob(tree, path.Join(path.Clean(n[1]), "*_test.go"))
		if !slices.ContainsFunc(files, func(f string) bool {
			b, _ := fs.ReadFile(tree, f)
			_, body, found := strings.Cut(string(b), "\nfunc "+n[2]+"(")
			body, _, _ = strings.Cut(body, "\nfunc ")
			return found && asksNginx.MatchString(body)
		}) {
			return n[0] + " does not ask nginx"
		}
	}
	return ""
}

// checkQuirk wants a test whose name says the quirk: the words that its row begins with.
func checkQuirk(quirk, tests string) string {
	if missing := checkTests(os.DirFS("."), tests); missing != "" {
		return missing
	}
	words := quirkLead.FindStringSubmatch(quirk)
	if words == nil {
		return "it does not begin with the quirk's name in bold"
	}
	plain := func(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }
	if !strings.Contains(plain(tests), plain(words[1])) {
		return "no test's name says " + words[1]
	}
	return ""
}

// TestDialectIsRead: the reader of the two pages complains where it has to.
func TestDialectIsRead(t *testing.T) {
	const tables = "## Annotations\n| `a` | x | low | same | does |\n| `b`, `c` | x | low | differs | does |\n| `d` | x | low | not yet | does |\n" +
		"| `e` | x | low | refused | never |\n## ConfigMap\n| `a` | x | not yet | does |\n"
	const good = "## Annotations\n| key | tests | nginx 1.22 |\n| --- | --- | --- |\n| `a` | `TestDialect/app-root` | `TestOracleRedirects` (differs: so) |\n| `b`, `c` | `TestDialect` | none: no module |\n" +
		"## Quirks\n| **oldest wins**: x | `TestQuirks/oldest wins` | none: no request sees it |\n## Not yet\n- `ConfigMap a`\n- `d`\n"
	for _, c := range []struct{ old, new, want string }{
		{"", "", ""},
		{"| `a` | `TestDialect/app-root` | `TestOracleRedirects` (differs: so) |\n", "", "no row for Annotations `a`"},
		{"none: no module", "none:", "Annotations `b`, `c`: neither an oracle nor why nginx has no such thing: none:"},
		{"none: no module", "", "Annotations `b`, `c`: neither an oracle nor why nginx has no such thing: "},
		{"`TestOracleRedirects` (differs: so)", "`TestDialect`", "Annotations `a`: `TestDialect` does not ask nginx"},
		{"`TestOracleRedirects` (differs: so)", "`TestOracleNobody`", "Annotations `a`: there is no `TestOracleNobody`"},
		{"`TestOracleRedirects` (differs: so)", "`TestOracleTLS/nonsense`", "Annotations `a`: TestOracleTLS has no row nonsense"},
		{"none: no request sees it", "nothing", "Quirks **oldest wins**: x: neither an oracle nor why nginx has no such thing: nothing"},
		{"app-root", "nonsense", "Annotations `a`: TestDialect has no row nonsense"},
		{"`TestDialect` |", "`TestNobody` |", "Annotations `b`, `c`: there is no `TestNobody`"},
		{"`TestDialect` |", "`translate.TestGolden`, `translate.TestEveryKeyHasItsGolden` |", "Annotations `b`, `c`: no test shows its effect, only how it is translated"},
		{"`TestDialect` |", " |", "Annotations `b`, `c`: no test is named"},
		{"- `d`\n", "", "not built yet, and not listed: d"},
		{"- `d`\n", "- `d`\n- `e`\n", "listed as not built yet, and no longer so: e"},
		{"- `ConfigMap a`\n- `d`\n", "- `d`\n- `ConfigMap a`\n", "the list of what is not built yet is not sorted"},
		{"## Quirks", "| `z` | `TestDialect` | none: it is not |\n## Quirks", "there is no key for the row Annotations `z`"},
		{"TestQuirks/oldest wins", "TestDialect", "Quirks **oldest wins**: x: no test's name says oldest wins"},
		{"TestQuirks/oldest wins", "TestQuirks/youngest wins", "Quirks **oldest wins**: x: TestQuirks has no row youngest wins"},
		{"**oldest wins**", "oldest wins", "Quirks oldest wins: x: it does not begin with the quirk's name in bold"},
	} {
		if got := strings.Join(untested(tables, strings.Replace(good, c.old, c.new, 1)), "; "); got != c.want {
			t.Errorf("%q for %q: %q, want %q", c.new, c.old, got, c.want)
		}
	}
}
