package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// The README's results section: what a reader needs to judge, with the two pictures that say most. The whole report
// lies in bench/results.

const (
	resultsBegin = "<!-- results:begin -->\n"
	resultsEnd   = "<!-- results:end -->"
)

// readmePictures are the pictures that the section shows, by their suffix. They are written under names without a
// time, so that the next run replaces them.
var readmePictures = []string{"cost", "latency-rate", "routes"}

var errNoMarkers = errors.New("there is no results section to rewrite")

// rewrite replaces the results section of a Markdown file and leaves all else as it is.
func (r *report) rewrite(file, out string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, begun := bytes.Cut(text, []byte(resultsBegin))
	_, after, ended := bytes.Cut(rest, []byte(resultsEnd))
	if !begun || !ended {
		return fmt.Errorf("%s: %w: it needs the lines %s and %s", file, errNoMarkers, strings.TrimSpace(resultsBegin), resultsEnd)
	}
	links, err := r.readmeLinks(filepath.Dir(file), out)
	if err != nil {
		return err
	}
	section := r.section(links)
	return os.WriteFile(file, []byte(string(before)+resultsBegin+section+resultsEnd+string(after)), 0o644)
}

// readmeLinks writes the section's pictures beside the report and answers the Markdown that shows them.
func (r *report) readmeLinks(base, out string) (string, error) {
	var links strings.Builder
	for _, p := range r.pictures() {
		for _, suffix := range readmePictures {
			if p.suffix != suffix {
				continue
			}
			file := filepath.Join(out, "latest-"+suffix+".svg")
			if err := os.WriteFile(file, []byte(p.svg), 0o644); err != nil {
				return "", err
			}
			if relative, err := filepath.Rel(base, file); err == nil {
				file = relative
			}
			fmt.Fprintf(&links, "![%s](%s)\n\n", p.about, filepath.ToSlash(file))
		}
	}
	return links.String(), nil
}

// section is the text between the markers.
func (r *report) section(links string) string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "Taken on %s with `make compare`: %s, %d cores, %.0f GiB, Linux %s%s; %s; %s of %g s. ",
		r.Time.UTC().Format("2006-01-02"), m.CPU, m.Cores, float64(m.MemoryMiB)/1024, m.Kernel, m.sharing(), strings.Join(r.versions(), ", "), r.rounds(), r.Seconds)
	if loudest := r.loudest(); loudest >= loudFrom {
		fmt.Fprintf(&b, "**The machine was not quiet**: other programs used up to %.0f %% of it, so treat these as directions. ", loudest)
	}
	if n := r.setAside(); n > 0 {
		fmt.Fprintf(&b, "%d rounds in which others had %d %% or more of the machine were measured again. ", n, loudFrom)
	}
	b.WriteString("Sluice's figure divided by the rival's; smaller is better, except for requests/s.\n\n")
	r.musts(&b)
	if absent := r.absent(); absent != "" {
		fmt.Fprintf(&b, "Not built yet, as the rows found out by asking: %s.\n\n", absent)
	}
	b.WriteString(links)
	return b.String()
}

// loudFrom is the share of the machine, in percent, from which on others' work is worth a warning.
const loudFrom = 10

// loudest is the most of the machine that others used in a round, as a median over each proxy's rounds.
func (r *report) loudest() float64 {
	most := 0.0
	for _, row := range r.Rows {
		for _, c := range row.Proxies {
			most = max(most, c.spread(func(m measurement) float64 { return m.Others }).Median)
		}
	}
	return most
}

// absent names the rows that the subject cannot do yet.
func (r *report) absent() string {
	var names []string
	for i := range r.Rows {
		if c := r.Rows[i].column(subject); c != nil && c.Skipped != "" {
			names = append(names, r.Rows[i].Name)
		}
	}
	return strings.Join(names, ", ")
}
