package watcher

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"

	"github.com/go-logr/logr"
)

// A feed holds the objects of one kind, of one namespace or all, as client-go's reflector brings them: it is the
// reflector's store, so that nothing is held twice (docs/decisions/0041-reflector-with-our-own-store.md). Objects are
// trimmed to what is read, and one that is the same as before, as far as it is read, stays the same pointer: heartbeats,
// statuses and foreign annotations are no changes.
type feed[T clusterObject] struct {
	what    string // for people: "Ingresses", "ConfigMap shop/settings"
	lister  cache.ListerWatcher
	example T
	trim    func(T)         // drops what is not read; the object is ours alone, and may be trimmed already
	passed  func(name, T)   // sees every object before it is trimmed, nil if it has gone; may be nil
	noticed func(time.Time) // hears of every change; called with the lock held
	synced  chan struct{}   // closed once everything was listed

	mu      sync.Mutex
	objects map[name]entry[T]
	changed map[name]struct{} // since list was made
	list    []T               // sorted by name
	names   []name            // of list
}

type clusterObject interface {
	comparable
	metav1.Object
	runtime.Object
}

// name names an object of a kind.
type name struct{ namespace, name string }

func nameOf(o metav1.Object) name { return name{o.GetNamespace(), o.GetName()} }

func (n name) compare(o name) int {
	return cmp.Or(cmp.Compare(n.namespace, o.namespace), cmp.Compare(n.name, o.name))
}

// entry is an object and its version, which the object itself does not tell any more.
type entry[T any] struct {
	object  T
	version string
}

func newFeed[T clusterObject](what string, lister cache.ListerWatcher, example T, trim func(T), noticed func(time.Time)) *feed[T] {
	return &feed[T]{what: what, lister: lister, example: example, trim: trim, noticed: noticed,
		synced: make(chan struct{}), objects: map[name]entry[T]{}, changed: map[name]struct{}{}}
}

// run lists and watches until ctx ends. What fails is tried again, with pauses that grow to retryMax.
func (f *feed[T]) run(ctx context.Context, log *slog.Logger) {
	quiet := logr.Discard() // what goes wrong is told here, once
	r := cache.NewReflectorWithOptions(f.lister, f.example, f, cache.ReflectorOptions{Name: f.what, Logger: &quiet,
		Backoff: &wait.Backoff{Duration: retryFirst, Cap: retryMax, Steps: retrySteps, Factor: 2, Jitter: 0.5}})
	var told string
	for pause := retryFirst; ctx.Err() == nil; {
		began := time.Now()
		err := r.ListAndWatchWithContext(ctx)
		switch {
		case err == nil || ctx.Err() != nil:
			told, pause = "", retryFirst
		case apierrors.IsResourceExpired(err) || apierrors.IsGone(err):
			pause = retryFirst // what we knew is too old for the server: everything is listed again
		case apierrors.ReasonForError(err) != metav1.StatusReasonUnknown && err.Error() != told: // it answers, and says no
			told = err.Error()
			log.Error("a kind of object cannot be watched; what is known of it stays, and it is tried again", "what", f.what, "error", err)
		}
		if time.Since(began) > retryForget {
			pause = retryFirst
		}
		sleepContext(ctx, pause)
		pause = min(2*pause, retryMax)
	}
}

func sleepContext(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// Transformer implements cache.TransformingStore: what streams in is trimmed before the list is complete.
func (f *feed[T]) Transformer() cache.TransformFunc {
	return func(o any) (any, error) {
		object, ok := o.(T)
		if !ok {
			return o, nil
		}
		object.SetManagedFields(nil)
		if f.passed == nil {
			f.trim(object)
		}
		return object, nil
	}
}

// Add implements cache.ReflectorStore.
func (f *feed[T]) Add(o any) error { return f.put(o) }

// Update implements cache.ReflectorStore.
func (f *feed[T]) Update(o any) error { return f.put(o) }

var errForeign = errors.New("an object of another kind")

func (f *feed[T]) put(o any) error {
	object, ok := o.(T)
	if !ok {
		return errForeign
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set(nameOf(object), object)
	return nil
}

// set takes an object's newest version; the caller holds the lock.
func (f *feed[T]) set(n name, o T) {
	version := o.GetResourceVersion()
	if f.passed != nil {
		f.passed(n, o)
	}
	o.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // some ways of coming leave it out
	o.SetResourceVersion("")
	o.SetManagedFields(nil)
	o.SetSelfLink("")
	f.trim(o)
	old, known := f.objects[n]
	if known && reflect.DeepEqual(old.object, o) {
		f.objects[n] = entry[T]{old.object, version}
		return
	}
	f.objects[n] = entry[T]{o, version}
	f.changed[n] = struct{}{}
	f.noticed(time.Now())
}

// Delete implements cache.ReflectorStore.
func (f *feed[T]) Delete(o any) error {
	object, ok := o.(T)
	if !ok {
		return errForeign
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(nameOf(object))
	return nil
}

func (f *feed[T]) drop(n name) {
	if _, known := f.objects[n]; !known {
		return
	}
	if f.passed != nil {
		var none T
		f.passed(n, none)
	}
	delete(f.objects, n)
	f.changed[n] = struct{}{}
	f.noticed(time.Now())
}

// Replace implements cache.ReflectorStore: a whole list, after a start or when the watch was lost.
func (f *feed[T]) Replace(list []any, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	there := make(map[name]struct{}, len(list))
	for _, o := range list {
		object, ok := o.(T)
		if !ok {
			return errForeign
		}
		n := nameOf(object)
		there[n] = struct{}{}
		if version := object.GetResourceVersion(); version == "" || version != f.objects[n].version {
			f.set(n, object)
		}
	}
	for n := range f.objects {
		if _, ok := there[n]; !ok {
			f.drop(n)
		}
	}
	select {
	case <-f.synced:
	default:
		close(f.synced)
		f.noticed(time.Now())
	}
	return nil
}

// Resync implements cache.ReflectorStore; nothing ever comes out of step here.
func (f *feed[T]) Resync() error { return nil }

// take is the list of all objects, sorted by name, and whether it is another one than at the last call. Nobody writes to
// it again.
func (f *feed[T]) take() (list []T, changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.changed) == 0 {
		return f.list, false
	}
	dirty := slices.SortedFunc(maps.Keys(f.changed), name.compare)
	clear(f.changed)
	names, objects := make([]name, 0, len(f.objects)), make([]T, 0, len(f.objects))
	at := 0 // what is before it is copied or gone
	for _, n := range dirty {
		i, found := slices.BinarySearchFunc(f.names[at:], n, name.compare)
		names, objects = append(names, f.names[at:at+i]...), append(objects, f.list[at:at+i]...)
		at += i
		if found {
			at++
		}
		if e, ok := f.objects[n]; ok {
			names, objects = append(names, n), append(objects, e.object)
		}
	}
	f.names, f.list = append(names, f.names[at:]...), append(objects, f.list[at:]...)
	return f.list, true
}

// get is an object and its version.
func (f *feed[T]) get(n name) (entry[T], bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.objects[n]
	return e, ok
}

// isSynced tells whether everything was listed once.
func (f *feed[T]) isSynced() bool {
	select {
	case <-f.synced:
		return true
	default:
		return false
	}
}
