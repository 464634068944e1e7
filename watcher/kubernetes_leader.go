package watcher

import (
	"cmp"
	"context"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
)

// leaseNamespace is where the Lease stands: the pod's own namespace, else that of the kubeconfig's context, else that of
// --configmap.
func leaseNamespace(c *clusterSource) string {
	configMap, _ := parseName(c.ConfigMap)
	return cmp.Or(c.Status.PodNamespace, c.clients.namespace, configMap.namespace, metav1.NamespaceDefault)
}

// lead makes this replica the leader whenever the Lease lets it, until ctx ends or leave is called.
func (s *statusWriter) lead(ctx context.Context) {
	defer close(s.led)
	ctx, cancel := context.WithCancel(klog.NewContext(ctx, logr.Discard())) // what matters is told here
	defer cancel()
	go func() {
		select {
		case <-ctx.Done():
		case <-s.resign:
			cancel()
		}
	}()
	if s.NoElection {
		s.setLeading(true)
		<-ctx.Done()
		s.setLeading(false)
		return
	}
	lock := &leaseLock{log: s.log, Interface: &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: s.lease.namespace, Name: s.lease.name},
		Client:     s.clients.coordination,
		LockConfig: resourcelock.ResourceLockConfig{Identity: identity(s.Pod)},
	}}
	for ctx.Err() == nil {
		// Whoever cannot renew the Lease stops leading before another one may take it: after a RetryPeriod, a RenewDeadline in
		// which it tries, and a second one in which it tries to give the Lease back.
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock:            lock,
			LeaseDuration:   s.ElectionTTL,
			RenewDeadline:   s.ElectionTTL / 4,
			RetryPeriod:     s.ElectionTTL / 6,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { s.setLeading(true) },
				OnStoppedLeading: func() { s.setLeading(false) },
			},
		})
		if err != nil {
			s.log.Error("statuses are not written: --election-ttl does not fit", "error", err)
			return
		}
		elector.Run(ctx)
	}
}

func (s *statusWriter) setLeading(is bool) {
	select {
	case <-s.resign:
		is = false
	default:
	}
	if s.leading.Swap(is) == is {
		return
	}
	s.log.Info("leadership", "leader", is, "lease", s.lease.namespace+"/"+s.lease.name)
	if is {
		s.events.forget()
		poke(s.kick)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		s.cancel() // whoever leads now writes; and a process that ends does not wait for a round of thousands
	}
}

// identity tells replicas apart, also two of one pod one after the other.
func identity(pod string) string {
	host, _ := os.Hostname()
	return cmp.Or(pod, host, "sluice") + "_" + strconv.Itoa(os.Getpid())
}

// leaseLock is a Lease that tells the log, once, when it may not be written.
type leaseLock struct {
	resourcelock.Interface
	log  *slog.Logger
	told atomic.Bool
}

func (l *leaseLock) note(err error) {
	switch {
	case apierrors.IsForbidden(err):
		if !l.told.Swap(true) {
			l.log.Warn("the Lease may not be written, so this replica writes no statuses and no Events; it serves on: grant get, create and update on leases",
				"lease", l.Describe(), "error", err)
		}
	case err == nil:
		l.told.Store(false)
	}
}

// Get implements resourcelock.Interface.
func (l *leaseLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if err != nil {
		l.note(err)
	}
	return record, raw, err
}

// Create implements resourcelock.Interface.
func (l *leaseLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Create(ctx, r)
	l.note(err)
	return err
}

// Update implements resourcelock.Interface.
func (l *leaseLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	err := l.Interface.Update(ctx, r)
	l.note(err)
	return err
}
