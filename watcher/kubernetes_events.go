package watcher

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/sluiceproxy/sluice/route"
)

// eventWriter writes an Event on an object for each of its Problems, so that `kubectl describe` shows them. An Event's
// name follows from its Problem: the same Problem told again, by this leader or the next, is the same Event seen again.
type eventWriter struct {
	log     *slog.Logger
	clients *clients
	uid     func(route.Object) types.UID // "": the object is not there
	host    string
	queue   chan route.Problem
	limit   flowcontrol.RateLimiter
	denied  atomic.Bool

	mu   sync.Mutex
	told map[route.Problem]bool
}

func newEventWriter(c *clusterSource) *eventWriter {
	return &eventWriter{log: c.log, clients: c.clients, uid: c.uid, host: identity(c.Status.Pod),
		queue: make(chan route.Problem, eventsWaitingMax), limit: flowcontrol.NewTokenBucketRateLimiter(eventsPerSecond, eventsBurst),
		told: map[route.Problem]bool{}}
}

// tell queues the Problems that are new. Those that find no room come again with the next call.
func (e *eventWriter) tell(problems []route.Problem) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := make(map[route.Problem]bool, len(problems))
	for _, p := range problems {
		if e.told[p] {
			now[p] = true
			continue
		}
		if now[p] {
			continue
		}
		select {
		case e.queue <- p:
			now[p] = true
		default:
		}
	}
	e.told = now
}

// forget makes every Problem new again: who begins to lead does not know what was told before.
func (e *eventWriter) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.told = map[route.Problem]bool{}
}

func (e *eventWriter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case p := <-e.queue:
			if e.limit.Wait(ctx) != nil {
				return
			}
			e.write(ctx, p)
		}
	}
}

// Reasons of Events.
const (
	reasonAnnotation = "AnnotationProblem"
	reasonProblem    = "Problem"
	annotationsField = "metadata.annotations"
)

// write creates a Problem's Event, or says that it was seen again.
func (e *eventWriter) write(ctx context.Context, p route.Problem) {
	uid := e.uid(p.Object)
	if uid == "" {
		return
	}
	event := eventOf(p, uid, e.host, metav1.Now())
	events := e.clients.core.Events(event.Namespace)
	_, err := events.Create(ctx, event, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		patch := fmt.Appendf(nil, `{"lastTimestamp":%q}`, event.LastTimestamp.UTC().Format(time.RFC3339))
		_, err = events.Patch(ctx, event.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	switch {
	case err == nil || ctx.Err() != nil || apierrors.IsNotFound(err):
	case apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		if !e.denied.Swap(true) {
			e.log.Warn("Events may not be written: grant create and patch on events", "error", err)
		}
	default:
		e.log.Debug("an Event could not be written", "object", p.Object, "error", err)
	}
}

func eventOf(p route.Problem, uid types.UID, host string, now metav1.Time) *corev1.Event {
	namespace, reason, message := p.Object.Namespace, reasonProblem, p.Reason
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	if p.Field != "" {
		message = p.Field + ": " + message
	}
	if strings.HasPrefix(p.Field, annotationsField) {
		reason = reasonAnnotation
	}
	if len(message) > eventMessageMax {
		message = strings.ToValidUTF8(message[:eventMessageMax], "") + "…"
	}
	sum := fnv.New64a()
	fmt.Fprintf(sum, "%s\x00%s\x00%s\x00%s", uid, p.Object.Kind, p.Field, p.Reason)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%.200s.%016x", p.Object.Name, sum.Sum64())},
		InvolvedObject: corev1.ObjectReference{Kind: p.Object.Kind, APIVersion: apiVersionOf(p.Object), Namespace: p.Object.Namespace,
			Name: p.Object.Name, UID: uid},
		Type: corev1.EventTypeWarning, Reason: reason, Message: message,
		Source:              corev1.EventSource{Component: eventComponent},
		ReportingController: eventComponent, ReportingInstance: host,
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
}

const eventComponent = "sluice"

// uid is that of an object that a feed holds.
func (c *clusterSource) uid(o route.Object) types.UID {
	n := name{o.Namespace, o.Name}
	switch o.Kind {
	case "Ingress":
		return uidIn(n, c.ingresses)
	case "IngressClass":
		return uidIn(n, c.classes)
	case "Service":
		return uidIn(n, c.services...)
	case "EndpointSlice":
		return uidIn(n, c.slices...)
	case "ConfigMap":
		return uidIn(n, feedsOf(c.configMaps)...)
	case "Secret":
		return uidIn(n, feedsOf(c.secrets)...)
	}
	return ""
}

func uidIn[T clusterObject](n name, feeds ...*feed[T]) types.UID {
	for _, f := range feeds {
		if e, ok := f.get(n); ok {
			return e.object.GetUID()
		}
	}
	return ""
}
