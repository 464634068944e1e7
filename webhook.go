package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/net/netutil"

	"github.com/sluiceproxy/sluice/listen"
	"github.com/sluiceproxy/sluice/route"
	"github.com/sluiceproxy/sluice/watcher"
)

// The validating webhook: the API server asks here before it takes an Ingress. The answer is computed in this process, from
// what it serves; no configuration is written, nothing is started (docs/decisions/0072-validating-webhook.md).

// What an API server, or who poses as one, may cost.
const (
	reviewBytesMax       = 8 << 20 // an object of the API has at most 3 MiB, and an update brings two
	reviewHeadMax        = 16 << 10
	reviewTimeout        = 10 * time.Second
	reviewIdle           = 90 * time.Second
	reviewConnectionsMax = 64
	reviewStreamsMax     = 16 // of a connection
	reviewsMax           = 4  // at a time, with their objects in memory; they are computed one after another
	reviewWait           = 3 * time.Second
	reviewRead           = time.Second // for the object of who has a place: it comes from an API server in one piece
	reviewWarningsMax    = 20
	reviewWarningMax     = 250 // API servers may cut warnings of more than 256 characters
	reviewCertificateAge = 10 * time.Second
)

// webhook answers AdmissionReviews (admission.k8s.io/v1).
type webhook struct {
	reviewer    *watcher.Reviewer
	certificate fileCertificate
	http        http.Server
	socket      *listen.Socket // nil: not open
	door        net.Listener
	accepted    chan struct{} // closed once nothing more is accepted
	places      chan struct{} // of reviews
	mu          sync.Mutex
	states      map[net.Conn]http.ConnState // of the open connections
	log         *slog.Logger
}

// openWebhook begins to answer API servers.
func (p *proxy) openWebhook() error {
	if p.webhookAddress == "" {
		return nil
	}
	w := &webhook{log: p.log, reviewer: watcher.NewReviewer(p.controller.State, p.newTranslator,
		route.Env{NewCluster: lintCluster, Loops: 1, StatsByHost: false})}
	w.certificate.certFile, w.certificate.keyFile = p.webhookCertificate, p.webhookKey
	if _, err := w.certificate.get(nil); err != nil {
		return fmt.Errorf("--validating-webhook: %w", err)
	}
	socket, err := listen.Open(listen.Options{Name: "webhook", Address: p.webhookAddress, Share: p.reusePort, Legacy: p.legacy})
	if err != nil {
		return fmt.Errorf("%w: choose another --validating-webhook", err)
	}
	ln, err := socket.Listener()
	if err != nil {
		_ = socket.Close()
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	w.socket = socket
	w.http = http.Server{
		Handler: w, ReadTimeout: reviewTimeout, WriteTimeout: reviewTimeout, IdleTimeout: reviewIdle, MaxHeaderBytes: reviewHeadMax,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: w.certificate.get},
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: reviewStreamsMax},
		ErrorLog:  slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ConnState: w.noteState,
	}
	w.states, w.places = map[net.Conn]http.ConnState{}, make(chan struct{}, reviewsMax)
	w.door, w.accepted = netutil.LimitListener(ln, reviewConnectionsMax), make(chan struct{})
	go func() {
		defer close(w.accepted)
		if err := w.http.ServeTLS(w.door, "", ""); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			p.log.Error("the validating webhook stopped: Ingresses are not reviewed any more; restart the process", "error", err)
		}
	}()
	p.webhook = w
	p.webhookPort.Store(portOf(socket.String()))
	p.log.Info("the validating webhook is open", "address", socket.String())
	return nil
}

func (p *proxy) closeWebhook(ctx context.Context) {
	if p.webhook == nil {
		return
	}
	p.webhook.finish(ctx)
	if err := p.webhook.http.Shutdown(ctx); err != nil {
		p.log.Warn("the validating webhook did not close in time", "error", err)
	}
	_ = p.webhook.socket.Close()
	p.webhook = nil
}

// finish lets nobody begin a connection any more, and waits for the reviews of those who have. Shutdown alone would not: who has
// connected, and whose request is still to come, it does not answer.
func (w *webhook) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, newcomerWait)
	defer cancel()
	_ = w.door.Close()
	<-w.accepted
	for w.busy() && sleep(ctx, drainPoll) {
	}
}

func (w *webhook) noteState(c net.Conn, s http.ConnState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s == http.StateClosed || s == http.StateHijacked {
		delete(w.states, c)
		return
	}
	w.states[c] = s
}

// busy tells whether a review is under way, or may be.
func (w *webhook) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.states {
		if s != http.StateIdle {
			return true
		}
	}
	return false
}

// ServeHTTP implements http.Handler. Any path will do, as with ingress-nginx.
func (w *webhook) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		out.Header().Set("Allow", http.MethodPost)
		http.Error(out, "this is a validating webhook: POST an AdmissionReview", http.StatusMethodNotAllowed)
		return
	}
	if !w.enter(r.Context()) {
		http.Error(out, "too many reviews at a time; ask again", http.StatusServiceUnavailable)
		return
	}
	defer func() { <-w.places }()
	_ = http.NewResponseController(out).SetReadDeadline(time.Now().Add(reviewRead)) // a recorder of tests has none
	body, err := io.ReadAll(http.MaxBytesReader(out, r.Body, reviewBytesMax))
	if err != nil {
		http.Error(out, "the AdmissionReview is too large, or did not come whole", http.StatusBadRequest)
		return
	}
	review := admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, &review); err != nil || review.Request == nil || review.APIVersion != admissionv1.SchemeGroupVersion.String() {
		http.Error(out, "that is no AdmissionReview of admission.k8s.io/v1 with a request", http.StatusBadRequest)
		return
	}
	answer, ready := w.answer(review.Request)
	if !ready {
		http.Error(out, "nothing is served yet by which to judge", http.StatusServiceUnavailable)
		return
	}
	answer.UID = review.Request.UID
	out.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(out).Encode(admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: answer})
}

// enter takes a place, which the caller gives back; false: none became free in time.
func (w *webhook) enter(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, reviewWait)
	defer cancel()
	select {
	case w.places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// answer judges what a request brings; false: it cannot yet. All but Ingresses that come or change is allowed.
func (w *webhook) answer(r *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, bool) {
	if r.Kind.Group != networkingv1.GroupName || r.Kind.Kind != "Ingress" || r.Operation != admissionv1.Create && r.Operation != admissionv1.Update {
		return &admissionv1.AdmissionResponse{Allowed: true}, true
	}
	ing := &networkingv1.Ingress{}
	if err := json.Unmarshal(r.Object.Raw, ing); err != nil {
		return refusal("the Ingress cannot be read: " + err.Error()), true
	}
	if ing.Namespace == "" {
		ing.Namespace = r.Namespace
	}
	if r.Operation == admissionv1.Update && !ing.DeletionTimestamp.IsZero() && servedAlike(r.OldObject.Raw, ing) {
		return &admissionv1.AdmissionResponse{Allowed: true}, true // the end of a finalizer, without which the Ingress would stay
	}
	verdict, ready := w.reviewer.Review(ing)
	if !ready {
		return nil, false
	}
	if len(verdict.Refused) > 0 {
		text := verdict.Refused[0].String()
		if n := len(verdict.Refused); n > 1 {
			text += fmt.Sprintf("; and %d more: %s", n-1, verdict.Refused[1])
		}
		return refusal(text), true
	}
	answer := &admissionv1.AdmissionResponse{Allowed: true}
	for i, p := range verdict.Warnings {
		if i == reviewWarningsMax {
			break
		}
		answer.Warnings = append(answer.Warnings, cutWarning(p.Field+": "+p.Reason))
	}
	return answer, true
}

// servedAlike tells whether an Ingress means what the one before it did.
func servedAlike(before []byte, ing *networkingv1.Ingress) bool {
	old := &networkingv1.Ingress{}
	return json.Unmarshal(before, old) == nil && equality.Semantic.DeepEqual(old.Spec, ing.Spec) && maps.Equal(old.Annotations, ing.Annotations)
}

// cutWarning shortens a text to what API servers take, between two characters.
func cutWarning(text string) string {
	if len(text) <= reviewWarningMax {
		return text
	}
	end := reviewWarningMax - len("...")
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "..."
}

func refusal(why string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Result: &metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity, Message: why}}
}

// fileCertificate is a certificate in two files, which are looked at again now and then: cert-manager renews them.
type fileCertificate struct {
	certFile, keyFile string

	mu      sync.Mutex
	looked  time.Time
	changed [2]time.Time // of the files, when they were read
	pair    *tls.Certificate
}

// get is for tls.Config. Files that cannot be read, or do not fit, leave the last certificate in place.
func (c *fileCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.pair != nil && now.Sub(c.looked) < reviewCertificateAge {
		return c.pair, nil
	}
	c.looked = now
	var changed [2]time.Time
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			changed[i] = info.ModTime()
		}
	}
	if c.pair != nil && changed == c.changed {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		if c.pair != nil {
			return c.pair, nil
		}
		return nil, fmt.Errorf("the certificate of --validating-webhook-certificate and --validating-webhook-key: %w", err)
	}
	c.pair, c.changed = &pair, changed
	return c.pair, nil
}
