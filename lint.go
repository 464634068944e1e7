package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/upstream"
	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

// lint says of each Ingress what is the same as in ingress-nginx, what differs and what is refused, with the line of
// documentation; then what is wrong with the manifests, one line each. It ends with status 1 if anything is.
func lint(args []string, stdout, stderr io.Writer) error {
	paths, rest := splitPaths(args)
	o := defaultOptions()
	if err := parseFlags(&o, rest, table); err != nil {
		return err
	}
	if o.help {
		return printHelp(nil, stdout, stderr)
	}
	files, err := descend(paths, stderr)
	if err != nil {
		return err
	}
	o.manifests = append(o.manifests, files...)
	state, err := loadState(&o, stderr)
	if err != nil {
		return err
	}
	t := translate.New(translateOptions(&o))
	problems := watcher.Check(state, t, route.Env{NewCluster: lintCluster})
	for _, ing := range state.Objects.Ingresses {
		printVerdicts(stdout, state, t, ing)
	}
	for _, p := range problems {
		fmt.Fprintln(stdout, p)
	}
	if len(problems) > 0 {
		return errTold
	}
	fmt.Fprintf(stdout, "%d Ingresses: no problem\n", len(state.Objects.Ingresses))
	return nil
}

// lintFilesMax bounds the manifests of all directories that are named.
const lintFilesMax = 10_000

// descend is the manifests of files and directories, and of the directories in these, in the order of their names; what is
// left out is said. The flag --manifests names directories as the proxy reads them, without those in them.
func descend(paths []string, stderr io.Writer) (files []string, err error) {
	others := 0
	for _, root := range paths {
		if real, err := filepath.EvalSymlinks(root); err == nil {
			root = real // a link that is named is meant
		}
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case path != root && e.IsDir() && e.Name()[0] == '.':
				fmt.Fprintf(stderr, "%s is skipped: a hidden directory\n", path)
				return fs.SkipDir
			case e.IsDir():
				return nil
			case e.Type()&fs.ModeSymlink != 0 && isDirectory(path):
				fmt.Fprintf(stderr, "%s is skipped: a link to a directory\n", path)
				return nil
			case path == root || watcher.IsManifest(e.Name()):
				files = append(files, path)
			default:
				others++
				return nil
			}
			if len(files) > lintFilesMax {
				return fmt.Errorf("more than %d manifests are too many: name fewer directories", lintFilesMax)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(paths) > 0 && len(files) == 0 {
		return nil, fmt.Errorf("%s: there is no manifest (*.yaml, *.yml, *.json)", strings.Join(paths, ", "))
	}
	if others > 0 {
		fmt.Fprintf(stderr, "skipped, since not *.yaml, *.yml or *.json: %d\n", others)
	}
	return files, nil
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// splitPaths takes the files and directories out of the arguments.
func splitPaths(args []string) (paths, rest []string) {
	for i, arg := range args {
		if strings.HasPrefix(arg, "-") || i > 0 && isFlagBefore(args[i-1]) {
			rest = append(rest, arg) // a flag, or its value
		} else {
			paths = append(paths, arg)
		}
	}
	return paths, rest
}

// loadState reads the configuration that the flags name, once.
func loadState(o *options, stderr io.Writer) (*watcher.State, error) {
	spec, err := sourceOf(o)
	if err != nil {
		return nil, err
	}
	spec.Paths = slices.DeleteFunc(spec.Paths, func(path string) bool {
		info, err := os.Stat(path)
		file := spec.Scheme == "file" && err == nil && info.Mode().IsRegular()
		if file {
			spec.Files = append(spec.Files, path)
		}
		return file
	})
	source, err := watcher.Open(spec, newLogger(o, stderr))
	if err != nil {
		return nil, err
	}
	return source.Load()
}

// printVerdicts lists an Ingress's annotations; nothing for one that has none, or is another controller's.
func printVerdicts(stdout io.Writer, s *watcher.State, t *translate.Translator, ing *networkingv1.Ingress) {
	list, mine := t.Annotations(ing.Namespace, ing.Name)
	if !mine || len(list) == 0 {
		return
	}
	where := ""
	if s.Where != nil {
		if at := s.Where(route.Object{Kind: "Ingress", Namespace: ing.Namespace, Name: ing.Name}); at != "" {
			where = " (" + at + ")"
		}
	}
	fmt.Fprintf(stdout, "Ingress %s/%s%s\n", ing.Namespace, ing.Name, where)
	for i := range list {
		a := &list[i]
		verdict, why := a.Verdict, a.Note
		if a.Problem != "" {
			verdict, why = "refused", a.Problem
		}
		line := fmt.Sprintf("  %-9s %s: %q", verdict, a.Key, a.Value)
		if a.Line > 0 {
			line += fmt.Sprintf(" [docs/annotations.md:%d]", a.Line)
		}
		if why != "" {
			line += "\n            " + strings.ReplaceAll(why, "\n", " ")
		}
		fmt.Fprintln(stdout, line)
	}
}

// lintCluster makes a cluster that nobody connects to.
func lintCluster(id string, s upstream.Settings) *upstream.Cluster {
	s.Check = upstream.Check{} // nor asks for its health
	return upstream.NewCluster(id, &upstream.Env{}, s)
}
