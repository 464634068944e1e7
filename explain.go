package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// explain tells which Ingress, rule and backend would take a request, and why no other one.
func explain(args []string, stdout, stderr io.Writer) error {
	q, asJSON, rest := questionOf(args)
	o := defaultOptions()
	if err := parseFlags(&o, rest, table); err != nil {
		return err
	}
	if o.help {
		return printHelp(nil, stdout, stderr)
	}
	if q.Method == "" && !watcher.AsksService(q.URL) || q.URL == "" {
		return usage{errors.New("say which request: sluice explain [--manifests=DIR] METHOD URL [-H 'Name: value'] [--json], or which port: tcp://:9000, udp://:53")}
	}
	state, err := loadState(&o, stderr)
	if err != nil {
		return err
	}
	e, err := watcher.Explain(state, translate.New(translateOptions(&o)), route.Env{NewCluster: lintCluster}, q)
	if err != nil {
		return usage{err}
	}
	if asJSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		return encoder.Encode(e)
	}
	_, err = io.WriteString(stdout, explainText(e))
	return err
}

// questionOf takes the request out of the arguments; the flags are left.
func questionOf(args []string) (q watcher.Question, asJSON bool, rest []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		switch {
		case arg == "-H" && i+1 < len(args):
			i++
			q.Fields = append(q.Fields, args[i])
		case strings.HasPrefix(arg, "-H") && len(arg) > 2:
			q.Fields = append(q.Fields, arg[2:])
		case arg == "--json":
			asJSON = true
		case i > 0 && isFlagBefore(args[i-1]):
			rest = append(rest, arg)
		case !strings.HasPrefix(arg, "-") && q.Method == "" && strings.ToUpper(arg) == arg && !strings.ContainsAny(arg, "/.:"):
			q.Method = arg
		case strings.Contains(arg, "://") && q.URL == "" && !strings.HasPrefix(arg, "-"):
			q.URL = arg
		default:
			rest = append(rest, arg)
		}
	}
	return q, asJSON, rest
}

// isFlagBefore tells whether what follows an argument is its value.
func isFlagBefore(arg string) bool {
	name, isFlag := flagName(arg)
	f := findFlag(name, [][]option{table})
	return isFlag && f != nil && f.value != ""
}

// explainText is an explanation for a terminal.
func explainText(e *watcher.Explained) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", e.Request)
	if e.Refused != "" {
		fmt.Fprintf(&b, "  is refused: %s\n", e.Refused)
		return b.String()
	}
	if s := e.Service; s != nil {
		fmt.Fprintf(&b, "  entry     %s of %s\n  cluster   %s\n  endpoints %s\n", s.Port, s.Owner, s.Cluster, orNone(strings.Join(e.Endpoints, " ")))
		if s.ProxyFrom {
			b.WriteString("  clients   send PROXY headers\n")
		}
		if s.ProxyTo != 0 {
			fmt.Fprintf(&b, "  backends  get PROXY headers, version %d\n", s.ProxyTo)
		}
		section(&b, "problems", len(e.Problems), func(i int) string { return e.Problems[i] })
		return b.String()
	}
	host := e.Host
	if host == "" {
		host = "(any)"
	}
	fmt.Fprintf(&b, "  host      %s, by %s", host, e.HostBy)
	if e.Regex {
		b.WriteString("; its paths are regular expressions")
	}
	fmt.Fprintf(&b, "\n  path      %s\n  outcome   %s\n", e.Path, e.Outcome)
	if e.Passthrough != "" {
		fmt.Fprintf(&b, "  https     is passed through to %s: what follows is for plain http\n", e.Passthrough)
	}
	if r := e.Rule; r != nil {
		fmt.Fprintf(&b, "  rule      %s (%s) of Ingress %s\n", r.Path, r.Type, r.Ingress)
		if r.Denied != "" {
			fmt.Fprintf(&b, "  denied    503: %s\n", r.Denied)
		}
		if r.Service != "" {
			fmt.Fprintf(&b, "  backend   %s:%s, cluster %s\n", r.Service, r.Port, e.Cluster)
		}
		if len(r.Filters) > 0 {
			fmt.Fprintf(&b, "  filters   %s\n", strings.Join(r.Filters, ", "))
		}
	}
	if e.Canary != "" {
		fmt.Fprintf(&b, "  canary    %s\n", e.Canary)
	}
	if e.Rule != nil && e.Cluster != "" {
		fmt.Fprintf(&b, "  endpoints %s\n", orNone(strings.Join(e.Endpoints, " ")))
	}
	section(&b, "annotations", len(e.Annotations), func(i int) string {
		a := &e.Annotations[i]
		text := fmt.Sprintf("%s: %q (%s)", a.Key, a.Value, a.Verdict)
		if a.Problem != "" {
			text += ": " + a.Problem
		}
		return text
	})
	section(&b, "settings", len(e.Settings), func(i int) string {
		s := &e.Settings[i]
		return fmt.Sprintf("%s %s, from the %s", s.Name, orNone(s.Value), s.From)
	})
	section(&b, "other rules of the host", len(e.Others), func(i int) string {
		l := &e.Others[i]
		return fmt.Sprintf("%s (%s) of Ingress %s: %s", l.Path, l.Type, l.Ingress, l.Why)
	})
	section(&b, "problems of the Ingress", len(e.Problems), func(i int) string { return e.Problems[i] })
	return b.String()
}

func section(b *strings.Builder, title string, n int, line func(int) string) {
	if n == 0 {
		return
	}
	fmt.Fprintf(b, "\n  %s\n", title)
	for i := range n {
		fmt.Fprintf(b, "    %s\n", line(i))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
