package main

import (
	"fmt"
	"io"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// lint prints what is wrong with the manifests, one line each, and ends with status 1 if anything is.
func lint(args []string, stdout, stderr io.Writer) error {
	o := defaultOptions()
	if err := parseFlags(&o, args, table); err != nil {
		return err
	}
	if o.help {
		return printHelp(nil, stdout, stderr)
	}
	spec, err := sourceOf(&o)
	if err != nil {
		return err
	}
	source, err := watcher.Open(spec, newLogger(&o, stderr))
	if err != nil {
		return err
	}
	state, err := source.Load()
	if err != nil {
		return err
	}
	problems := watcher.Check(state, translate.New(translateOptions(&o)), route.Env{NewCluster: lintCluster})
	for _, p := range problems {
		fmt.Fprintln(stdout, p)
	}
	if len(problems) > 0 {
		return errTold
	}
	fmt.Fprintf(stdout, "%d Ingresses: no problem\n", len(state.Objects.Ingresses))
	return nil
}

// lintCluster makes a cluster that nobody connects to.
func lintCluster(id string, s upstream.Settings) *upstream.Cluster {
	return upstream.NewCluster(id, &upstream.Env{}, s)
}
