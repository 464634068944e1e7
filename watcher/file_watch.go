package watcher

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// watches are the directories whose events concern us: those named, their parents (they may be replaced as a whole, or
// come later), and those that symbolic links lead to.
type watches struct {
	log      *slog.Logger
	inotify  *fsnotify.Watcher // nil: none is to be had
	on       map[string]bool
	names    map[string]bool // what matters in them beside manifests
	complete bool            // everything is watched that should be
	told     bool
}

func watch(log *slog.Logger) *watches {
	w := &watches{log: log, on: map[string]bool{}}
	inotify, err := fsnotify.NewWatcher()
	if err != nil {
		w.cannot("", err)
		return w
	}
	w.inotify = inotify
	return w
}

// cannot says, once, that events are missing. A directory that went away a moment ago is no reason.
func (w *watches) cannot(path string, err error) {
	if !w.told && !os.IsNotExist(err) {
		w.told = true
		w.log.Warn("manifests cannot be watched and are looked at every second: make their directories readable, "+
			"or raise fs.inotify.max_user_instances and fs.inotify.max_user_watches", "directory", path, "error", err)
	}
}

func (w *watches) close() {
	if w.inotify != nil {
		_ = w.inotify.Close()
	}
}

// lost gives up watching: there will be no more events.
func (w *watches) lost() {
	w.close()
	w.inotify, w.on, w.complete = nil, map[string]bool{}, false
	w.cannot("", fsnotify.ErrClosed)
}

func (w *watches) events() chan fsnotify.Event {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Events
}

func (w *watches) errors() chan error {
	if w.inotify == nil {
		return nil
	}
	return w.inotify.Errors
}

// concerns tells whether an event may change a manifest. A busy parent directory must not make us look.
func (w *watches) concerns(e fsnotify.Event) bool {
	name := filepath.Base(e.Name)
	// Mounts of ConfigMaps and Secrets change by replacing the link "..data".
	return IsManifest(name) || strings.HasPrefix(name, "..") || w.names[name] || w.on[e.Name]
}

// follow watches what the directories ask for now, and nothing else. Watching again what is watched costs little and
// finds directories that were replaced. It answers whether something was not watched before.
func (w *watches) follow(roots []*directory) (added bool) {
	wanted := map[string]bool{}
	w.names = map[string]bool{}
	for _, d := range roots {
		w.want(wanted, d)
	}
	if w.complete = w.inotify != nil && len(wanted) <= watchesMax; !w.complete {
		return false
	}
	for path := range w.on {
		if !wanted[path] {
			_ = w.inotify.Remove(path) // its error says that the directory is gone, and the watch with it
			delete(w.on, path)
		}
	}
	for path := range wanted {
		if err := w.inotify.Add(path); err != nil {
			w.complete = false
			delete(w.on, path)
			w.cannot(path, err)
			continue
		}
		added = added || !w.on[path]
		w.on[path] = true
	}
	return added
}

// want adds what one directory asks for.
func (w *watches) want(wanted map[string]bool, d *directory) {
	w.wantPath(wanted, d.path, 0)
	if info, err := os.Stat(d.path); err == nil && info.IsDir() {
		wanted[d.path] = true
	}
	for _, m := range d.files {
		if m.link {
			w.wantPath(wanted, m.path, 0)
		}
	}
}

// wantPath watches the directory that holds path, or the nearest one above it that exists, and follows path if it is a
// link.
func (w *watches) wantPath(wanted map[string]bool, path string, hops int) {
	for parent := filepath.Dir(path); ; parent = filepath.Dir(parent) {
		w.names[filepath.Base(path)] = true
		if info, err := os.Stat(parent); err == nil && info.IsDir() {
			wanted[parent] = true
			break
		}
		if parent == filepath.Dir(parent) {
			return
		}
		path = parent
	}
	target, err := os.Readlink(path)
	if err != nil || hops >= linkHopsMax {
		return
	}
	if !filepath.IsAbs(target) {
		target = filepath.Join(filepath.Dir(path), target)
	}
	w.wantPath(wanted, target, hops+1)
}
