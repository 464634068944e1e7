// Sluice is an ingress proxy for Kubernetes: manifests in, traffic out. This package is flags and wiring; ARCHITECTURE.md
// has the plan of the house.
//
//	main.go     the commands
//	flags.go    the command line, a contract; flags_nginx.go: flags of ingress-nginx that do nothing here
//	run.go      opens everything in order, and closes it in reverse; drain.go: how it ends; host.go: what the machine gives
//	signals.go  from the start to the end, as signals lead; upgrade.go: how ports pass from a process to the next
//	probe.go    asks a process that serves how it is
//	doors.go    the listening ports, and what the ConfigMap says to them
//	demo.go     the embedded default, with backends of its own
package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// version is set when a release is linked: -X main.version=v1.2.3.
var version string

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// command is one sub-command.
type command struct {
	name  string
	about string
	run   func(args []string, stdout, stderr io.Writer) error
}

// commands are all but the one without a name, which serves.
func commands() []command {
	return []command{
		{"demo", "serve embedded manifests with backends of its own, to try things", demo},
		{"lint", "say of each Ingress in FILE or DIR what is the same, differs or is refused", lint},
		{"explain", "METHOD URL: which rule and backend take a request, and why the others do not", explain},
		{"probe", "ask a process that serves how it is: exit status 0 if it is well (see --help)", probeCommand},
		{"annotations", "print the reference of annotations and ConfigMap keys as Markdown", printAnnotations},
		{"version", "print the version", printVersion},
		{"help", "print this", printHelp},
	}
}

// execute runs the command that args name and answers the exit status.
func execute(args []string, stdout, stderr io.Writer) int {
	run := serve
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		if run = findCommand(args[0]); run == nil {
			fmt.Fprintf(stderr, "sluice: unknown command %s: `sluice --help` lists all\n", shown(args[0]))
			return exitUsage
		}
		args = args[1:]
	}
	err := run(args, stdout, stderr)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errTold) {
		fmt.Fprintf(stderr, "sluice: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if errors.As(err, &usage{}) {
		return exitUsage
	}
	return exitFailure
}

// errTold ends a command with status 1 that has printed why.
var errTold = errors.New("told already")

func findCommand(name string) func([]string, io.Writer, io.Writer) error {
	for _, c := range commands() {
		if c.name == name {
			return c.run
		}
	}
	return nil
}

// serve is the command without a name.
func serve(args []string, stdout, stderr io.Writer) error {
	o := defaultOptions()
	if err := parseFlags(&o, args, table); err != nil {
		return err
	}
	if o.help {
		return printHelp(nil, stdout, stderr)
	}
	log := newLogger(&o, stderr)
	slog.SetDefault(log) // what packages below say of defects
	p, err := newProxy(o, log, stdout)
	if err != nil {
		return err
	}
	p.program = programPath()
	if p.legacy, err = listen.Inherit(); err != nil {
		return err
	}
	return p.serve()
}

// newLogger makes the log that the flags ask for.
func newLogger(o *options, stderr io.Writer) *slog.Logger {
	var level slog.Level // info
	switch {
	case o.logLevel != "":
		_ = level.UnmarshalText([]byte(o.logLevel)) // one of its own names
	case o.verbosity >= verbosityDebug:
		level = slog.LevelDebug
	}
	h := &slog.HandlerOptions{Level: level}
	if o.logJSON {
		return slog.New(slog.NewJSONHandler(stderr, h))
	}
	return slog.New(slog.NewTextHandler(stderr, h))
}

// verbosityDebug is where ingress-nginx begins to log details.
const verbosityDebug = 3

func printVersion(args []string, stdout, _ io.Writer) error {
	if len(args) > 0 {
		return usage{fmt.Errorf("unexpected argument %q: version takes none", args[0])}
	}
	fmt.Fprintf(stdout, "sluice %s (%s %s/%s)\n", versionText(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// versionText is the version as linked, or as `go install` knows it.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func printAnnotations(args []string, stdout, _ io.Writer) error {
	if len(args) > 0 {
		return usage{fmt.Errorf("unexpected argument %q: annotations takes none", args[0])}
	}
	_, err := io.WriteString(stdout, translate.AnnotationsMarkdown())
	return err
}
