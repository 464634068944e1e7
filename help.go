package main

import (
	"fmt"
	"io"
	"strings"
)

const helpHead = `Sluice is an ingress proxy for Kubernetes.

  sluice --manifests=DIR [flags]   serve the manifests in DIR, and follow their changes
`

const helpTail = `
Flags take their values as --flag=value or --flag value; switches also plainly, as --switch. Those of ingress-nginx that
mean nothing here are accepted, and named in the log. What is not a flag is a key of the ConfigMap or an annotation.

SIGTERM and SIGINT end the process when the requests under way have been answered; a second one ends it at once.
SIGHUP reads all manifests again. SIGUSR1 opens the access log's files again. SIGUSR2 starts the program anew, as it
then is, and passes it the ports; this process serves until that one does, and ends then. The access log goes to
standard output, or where the ConfigMap's access-log-path says; everything else goes to standard error.
`

func printHelp(_ []string, stdout, _ io.Writer) error {
	var b strings.Builder
	b.WriteString(helpHead)
	for _, c := range commands() {
		fmt.Fprintf(&b, "  sluice %-25s %s\n", c.name, c.about)
	}
	for _, t := range [][]option{table, demoFlags} {
		for _, f := range t {
			writeFlag(&b, f)
		}
	}
	b.WriteString(helpTail)
	_, err := io.WriteString(stdout, b.String())
	return err
}

// helpColumn is where the text about a flag begins.
const helpColumn = 42

func writeFlag(b *strings.Builder, f option) {
	if f.group != "" {
		fmt.Fprintf(b, "\n%s:\n", f.group)
	}
	form := "  --" + f.name
	if len(f.name) == 1 {
		form = "  -" + f.name
	}
	if f.value != "" {
		form += "=" + f.value
	}
	indent := strings.Repeat(" ", helpColumn)
	if len(form) >= helpColumn {
		fmt.Fprintf(b, "%s\n%s", form, indent)
	} else {
		fmt.Fprintf(b, "%-*s", helpColumn, form)
	}
	for i, line := range wrapText(f.about, 120-helpColumn) {
		if i > 0 {
			b.WriteString(indent)
		}
		b.WriteString(line + "\n")
	}
}

// wrapText breaks a text at its blanks into lines of at most width bytes, longer words excepted.
func wrapText(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}
