// Command vulndb makes a directory that govulncheck reads (-db=file://DIR) of the reports in golang.org/x/vulndb, a Go
// module: where the public database cannot be reached, the module proxy often can.
//
//	vulndb MODULE-DIRECTORY OUTPUT-DIRECTORY
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// report is what the index needs of an OSV report.
type report struct {
	ID       string
	Affected []struct {
		Package struct{ Name string }
		Ranges  []struct {
			Events []struct{ Fixed string }
		}
	}
}

// module and vuln are entries of index/modules.json (https://go.dev/doc/security/vuln/database#api).
type module struct {
	Path  string `json:"path"`
	Vulns []vuln `json:"vulns"`
}

type vuln struct {
	ID       string `json:"id"`
	Modified string `json:"modified"`
	Fixed    string `json:"fixed,omitempty"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vulndb MODULE-DIRECTORY OUTPUT-DIRECTORY")
		os.Exit(2)
	}
	if err := build(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "vulndb:", err)
		os.Exit(1)
	}
}

func build(from, to string) error {
	files, err := filepath.Glob(filepath.Join(from, "data", "osv", "GO-*.json"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s holds no data/osv/GO-*.json", from)
	}
	for _, d := range []string{"ID", "index"} {
		if err := os.MkdirAll(filepath.Join(to, d), 0o755); err != nil {
			return err
		}
	}
	now := time.Now().UTC().Format(time.RFC3339)
	modules := map[string]*module{}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		var r report
		if err := json.Unmarshal(text, &r); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		if err := os.WriteFile(filepath.Join(to, "ID", r.ID+".json"), text, 0o644); err != nil {
			return err
		}
		r.index(modules, now)
	}
	list := make([]*module, 0, len(modules))
	for _, m := range modules {
		list = append(list, m)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Path < list[j].Path })
	if err := write(filepath.Join(to, "index", "modules.json"), list); err != nil {
		return err
	}
	return write(filepath.Join(to, "index", "db.json"), map[string]string{"modified": now})
}

// index notes a report with the modules that it is about.
func (r *report) index(modules map[string]*module, now string) {
	for _, a := range r.Affected {
		m := modules[a.Package.Name]
		if m == nil {
			m = &module{Path: a.Package.Name}
			modules[a.Package.Name] = m
		}
		v := vuln{ID: r.ID, Modified: now}
		for _, g := range a.Ranges {
			for _, e := range g.Events {
				if e.Fixed != "" {
					v.Fixed = e.Fixed
				}
			}
		}
		if n := len(m.Vulns); n == 0 || m.Vulns[n-1].ID != r.ID {
			m.Vulns = append(m.Vulns, v)
		}
	}
}

func write(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}
