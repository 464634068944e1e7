package watcher

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// directory is one that --manifests names.
type directory struct {
	shown, path string // as named, and absolute
	only        string // the one file that is read of it; "": all manifests
	seen        bool   // it could be read once
	err         error  // why it cannot be read now; its files stay as they were
	names       []string
	files       map[string]*file // by names
}

// file is one manifest.
type file struct {
	shown, path string
	link        bool
	stamp       stamp
	racy        bool // it was read so soon after its change that another one may hide behind the same stamp
	sum         [sha256.Size]byte
	read        bool
	writing     time.Time // since when it has been seen in the middle of being written; zero: it is complete

	good   *manifest // the last version without a fault; without any yet, what is good of the present one
	sound  bool      // good is a whole version
	faults []fault   // of the present version

	counted *manifest // the version that the source's tally counts
}

// stamp is what tells that a file is another one, or has other content. ctime changes with every write, whatever copies
// and archives do to mtime.
type stamp struct {
	device, inode uint64
	size          int64
	mtime, ctime  int64
}

func stampOf(i fs.FileInfo) stamp {
	s := stamp{size: i.Size(), mtime: i.ModTime().UnixNano()}
	if t, ok := i.Sys().(*syscall.Stat_t); ok {
		s.device, s.inode, s.ctime = uint64(t.Dev), t.Ino, t.Ctim.Nano()
	}
	return s
}

// scanMode says what a scan reads.
type scanMode uint8

const (
	scanStart   scanMode = iota // everything, whether or not it is being written
	scanChanged                 // files whose stamp is new, or was taken too soon
	scanAll                     // everything
)

// scan brings all directories up to date. changed: the state is another one; settled: no file has to be looked at again.
func (f *fileSource) scan(how scanMode) (changed, settled bool) {
	settled = true
	for _, d := range f.roots {
		c, s := f.scanDirectory(d, how)
		changed, settled = changed || c, settled && s
	}
	return changed, settled
}

func (f *fileSource) scanDirectory(d *directory, how scanMode) (changed, settled bool) {
	names, err := f.list(d)
	if changed = (err == nil) != (d.err == nil); err != nil {
		if d.err == nil || d.err.Error() != err.Error() {
			f.log.Error("a directory of manifests cannot be read: what it said last stays in force", "directory", d.shown, "error", err)
		}
		d.err = err
		return changed, true
	}
	d.err, d.seen, settled = nil, true, true
	present := make(map[string]*file, len(names))
	d.names = names[:0]
	for _, name := range names {
		m := d.files[name]
		if m == nil {
			m = &file{shown: filepath.Join(d.shown, name), path: filepath.Join(d.path, name)}
		}
		c, exists := f.scanFile(m, how)
		if !exists {
			continue
		}
		changed, settled = changed || c, settled && m.writing.IsZero()
		present[name] = m
		d.names = append(d.names, name)
	}
	for name, m := range d.files {
		if present[name] == nil {
			changed = changed || m.read
			f.tally.exchange(m, nil)
		}
	}
	d.files = present
	return changed, settled
}

// list names the manifests of a directory, in order.
func (f *fileSource) list(d *directory) (names []string, err error) {
	if d.only != "" {
		if _, err := os.Stat(filepath.Join(d.path, d.only)); err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(d.shown, d.only), bare(err))
		}
		return []string{d.only}, nil
	}
	entries, err := os.ReadDir(d.path)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%s is a file: name its directory", d.shown)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.shown, bare(err))
	}
	for _, e := range entries {
		if e.IsDir() && e.Name()[0] != '.' {
			f.tell("a directory within a directory of manifests is not read; name it with another --manifests",
				"directory", filepath.Join(d.shown, e.Name()))
		}
		if !e.IsDir() && IsManifest(e.Name()) {
			names = append(names, e.Name())
		}
	}
	if len(names) > filesMax {
		return nil, fmt.Errorf("%s has %d manifests; at most %d are read: put more objects into a file", d.shown, len(names), filesMax)
	}
	return names, nil
}

// tell logs that something is left out, once.
func (f *fileSource) tell(message, key, value string) {
	if !f.told[message+value] && len(f.told) < toldMax {
		f.told[message+value] = true
		f.log.Info(message, key, value)
	}
}

// IsManifest tells by its name whether a file is read. Hidden files are drafts of editors.
func IsManifest(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// scanFile brings one file up to date. It exists no more if its name was taken away meanwhile.
func (f *fileSource) scanFile(m *file, how scanMode) (changed, exists bool) {
	info, err := os.Lstat(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false
	}
	m.link = err == nil && info.Mode()&fs.ModeSymlink != 0
	if m.link {
		info, err = os.Stat(m.path)
	}
	switch {
	case err != nil:
		return f.refuse(m, fmt.Sprintf("cannot be read: %v", bare(err))), true
	case info.IsDir():
		return false, false
	case !info.Mode().IsRegular():
		return f.refuse(m, "is no regular file"), true
	case info.Size() > fileBytesMax:
		return f.refuse(m, fmt.Sprintf("has %d bytes; at most %d are read: split it", info.Size(), fileBytesMax)), true
	}
	stamp := stampOf(info)
	if how == scanChanged && m.read && stamp == m.stamp && !m.racy {
		return false, true
	}
	if how != scanStart && f.beingWritten(m, stamp) {
		return false, true
	}
	return f.readFile(m, how), true
}

// beingWritten tells whether a file has changed so recently that there is probably more to come. Its version before
// stays in force meanwhile, but not for long.
func (f *fileSource) beingWritten(m *file, s stamp) bool {
	now := f.now()
	if s == m.stamp || m.writing != (time.Time{}) && now.Sub(m.writing) > settleMax {
		return false
	}
	quiet := quietAfter
	if s.size == 0 && m.good != nil && len(m.good.objects) > 0 {
		quiet = emptyMax // emptied first, filled later
	}
	age := now.Sub(time.Unix(0, s.ctime))
	if age < 0 || age >= quiet { // less than 0: somebody has set the clock back
		return false
	}
	if m.writing.IsZero() {
		m.writing = now
	}
	return true
}

// readFile reads a file and takes its content if it is another one.
func (f *fileSource) readFile(m *file, how scanMode) (changed bool) {
	text, before, after, err := readStable(m.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false // the next look finds it gone
		}
		return f.refuse(m, fmt.Sprintf("cannot be read: %v", bare(err)))
	}
	now := f.now()
	if how != scanStart && before != after && (m.writing.IsZero() || now.Sub(m.writing) <= settleMax) {
		if m.writing.IsZero() {
			m.writing = now
		}
		return false
	}
	m.writing = time.Time{}
	m.stamp, m.racy = after, now.Sub(time.Unix(0, after.ctime)) < racyWindow
	sum := sha256.Sum256(text)
	if m.read && sum == m.sum {
		return false
	}
	m.read, m.sum = true, sum
	f.takeVersion(m, text)
	return true
}

// takeVersion makes text the file's present version. A version with a fault changes nothing but the fault, unless none
// without has been there yet.
func (f *fileSource) takeVersion(m *file, text []byte) {
	var known map[documentKey]*decoded
	if m.good != nil {
		known = m.good.known
	}
	next := decodeManifest(m.shown, text, known)
	for _, kind := range next.ignored {
		f.tell("objects of this kind are ignored", "kind", kind)
	}
	m.faults = next.faults
	if len(next.faults) == 0 || !m.sound {
		m.good, m.sound = next, len(next.faults) == 0
	}
}

// refuse notes why a file cannot be read at all. The last good version stays.
func (f *fileSource) refuse(m *file, reason string) (changed bool) {
	changed = len(m.faults) != 1 || m.faults[0].reason != reason
	m.faults = []fault{{reason: reason}}
	m.read, m.sum, m.writing = true, [sha256.Size]byte{}, time.Time{}
	m.stamp, m.racy = stamp{}, true
	return changed
}

// readStable reads a file with the stamps before and after.
func readStable(path string) (text []byte, before, after stamp, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, before, after, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, before, after, err
	}
	before = stampOf(info)
	if text, err = io.ReadAll(io.LimitReader(f, fileBytesMax+1)); err != nil {
		return nil, before, after, err
	}
	if len(text) > fileBytesMax {
		return nil, before, after, fmt.Errorf("it has more than %d bytes", fileBytesMax)
	}
	if info, err = f.Stat(); err != nil {
		return nil, before, after, err
	}
	return text, before, stampOf(info), nil
}

// bare is a file error without operation and path, which the message around it has.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
