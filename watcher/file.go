package watcher

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/sluiceproxy/sluice/watcher/translate"
)

// fileSource reads manifests from directories and watches them. Only the goroutine of Run or Load touches it.
//
//	event ──► pending ── 20 ms without another, 200 ms at most ──► look ──► scan ── something changed? ──► apply
//	30 s without an event, SIGHUP ──────────────────────────────────┘ ▲        └── a file is being written ──┐
//	                                                                  └──────────── soon again ──────────────┘
type fileSource struct {
	roots  []*directory
	log    *slog.Logger
	told   map[string]bool // kinds and folders that the log has said we ignore
	now    func() time.Time
	rescan chan struct{}

	tally tally
	last  translate.Objects // of the last state
}

func openFiles(s Spec, log *slog.Logger) (Source, error) {
	if len(s.Paths)+len(s.Files) == 0 {
		return nil, errors.New("no directory of manifests is named")
	}
	f := &fileSource{log: log, told: map[string]bool{}, now: time.Now, rescan: make(chan struct{}, 1)}
	named := map[string]bool{}
	for _, path := range s.Paths {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if !named[absolute] { // named twice, it is still there once
			named[absolute] = true
			f.roots = append(f.roots, &directory{shown: filepath.Clean(path), path: absolute, files: map[string]*file{}})
		}
	}
	for _, path := range s.Files {
		absolute, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if !named[absolute] {
			named[absolute] = true
			f.roots = append(f.roots, &directory{shown: filepath.Dir(filepath.Clean(path)), path: filepath.Dir(absolute),
				only: filepath.Base(absolute), files: map[string]*file{}})
		}
	}
	return f, nil
}

// Rescan implements Source.
func (f *fileSource) Rescan() {
	select {
	case f.rescan <- struct{}{}:
	default: // one is pending
	}
}

// Load implements Source. A directory that cannot be read is an error here: nobody waits for it.
func (f *fileSource) Load() (*State, error) {
	f.scan(scanStart)
	for _, d := range f.roots {
		if d.err != nil {
			return nil, d.err
		}
	}
	return f.state(), nil
}

// Run implements Source. The first state comes as soon as every directory was there once.
func (f *fileSource) Run(ctx context.Context, apply func(*State)) error {
	w := watch(f.log)
	defer w.close()
	l := looker{fileSource: f, watches: w, apply: apply}
	l.look(scanStart)

	timer := time.NewTimer(l.wait())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-w.events():
			if !open {
				w.lost()
			}
			if !open || w.concerns(event) {
				l.noticed()
			}
		case err, open := <-w.errors():
			if open {
				f.log.Warn("some changes of manifests may have been missed; all are looked at again", "error", err)
			} else {
				w.lost()
			}
			l.noticed()
		case <-f.rescan:
			l.look(scanAll)
		case <-timer.C:
			l.look(scanChanged)
		}
		timer.Reset(l.wait())
	}
}

// looker decides when to look.
type looker struct {
	*fileSource
	watches *watches
	apply   func(*State)
	applied bool
	first   time.Time // first event since the last look; zero: none
	next    time.Time // when to look again
}

// noticed moves the next look: soon, when it has become quiet.
func (l *looker) noticed() {
	now := l.now()
	if l.first.IsZero() {
		l.first = now
	}
	l.next = now.Add(quietAfter)
	if latest := l.first.Add(quietMax); l.next.After(latest) {
		l.next = latest
	}
}

func (l *looker) wait() time.Duration { return max(l.next.Sub(l.now()), 0) }

// look reads what changed, and tells it. Watches are set before reading, so that no change falls between the two; when
// reading showed that more has to be watched, it looks once more.
func (l *looker) look(how scanMode) {
	l.first = time.Time{}
	l.watches.follow(l.roots)
	changed, settled := l.scan(how)
	if l.watches.follow(l.roots) {
		settled = false
	}
	switch {
	case !settled:
		l.next = l.now().Add(quietAfter)
	case !l.watches.complete:
		l.next = l.now().Add(pollEvery)
	default:
		l.next = l.now().Add(rescanEvery)
	}
	if (changed || !l.applied) && l.complete() {
		l.applied = true
		l.apply(l.state())
	}
}

// complete tells whether every directory was there once. Before, an open port would deny what is served a moment later.
func (f *fileSource) complete() bool {
	for _, d := range f.roots {
		if !d.seen {
			return false
		}
	}
	return true
}
