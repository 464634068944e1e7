package route

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluiceproxy/sluice/l7"
	"github.com/sluiceproxy/sluice/upstream"
)

// Store publishes the current Snapshot. Readers load one atomic pointer and never wait; writers wait for each other.
type Store struct {
	current atomic.Pointer[Snapshot]

	lingering atomic.Int64 // clusters that wait for their end

	mu   sync.Mutex
	late map[string]lateEndpoints // by cluster ID: changes that a Snapshot under way may not know
}

// lateEndpoints is an ApplyEndpoints call that was made after a Config which has yet to be swapped in.
type lateEndpoints struct {
	sequence uint64
	list     []upstream.Address
}

var _ l7.Router = (*Store)(nil)

// NewStore makes a store that answers 404 until the first Swap.
func NewStore() *Store {
	s := &Store{late: map[string]lateEndpoints{}}
	s.current.Store(empty())
	return s
}

// Load answers the current Snapshot; never nil.
func (s *Store) Load() *Snapshot { return s.current.Load() }

// Route answers the route of an exchange by its host and path; nil: 404.
func (s *Store) Route(x *l7.Exchange) *l7.Route {
	path := x.Req.Path
	if len(path) == 1 && path[0] == '*' {
		path = root // OPTIONS * asks about the host as a whole
	}
	return s.current.Load().Host(x.Req.Host).Match(path)
}

var root = []byte("/")

// Settings answers the current settings.
func (s *Store) Settings() *l7.Settings { return s.current.Load().settings }

// Swap publishes a Snapshot, once, that was compiled with the current one as its previous. Clusters take their changed settings
// and endpoints before it is visible, so that no route leads to an empty cluster; those that it does not name any
// more are closed some time after.
func (s *Store) Swap(next *Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range next.clusterChanges {
		c.live.setSettings(c.source.Settings)
		if _, newer := s.lateFor(c.source.ID, next.sequence); !newer {
			c.live.setEndpoints(c.source.Endpoints)
		}
		if i%yieldEvery == yieldEvery-1 {
			runtime.Gosched()
		}
	}
	for id, l := range s.late {
		c := next.clusters[id]
		list := l.list
		if l.sequence <= next.sequence {
			delete(s.late, id)
			if c != nil {
				list = c.source.Endpoints // newer, also where the Config's pointer is the one it was before the call
			}
		}
		if c != nil {
			c.live.setEndpoints(list)
		}
	}
	s.current.Store(next)
	for _, live := range next.clustersRemoved {
		s.retire(live)
	}
}

func (s *Store) lateFor(id string, sequence uint64) (lateEndpoints, bool) {
	l, ok := s.late[id]
	return l, ok && l.sequence > sequence
}

// retire closes a cluster when the exchanges that know it are over.
func (s *Store) retire(l *liveCluster) {
	if s.lingering.Load() >= lingerMax {
		l.control.Close()
		return
	}
	s.lingering.Add(1)
	time.AfterFunc(clusterLinger, func() {
		l.control.Close()
		s.lingering.Add(-1)
	})
}

// ApplyEndpoints replaces the endpoints of one cluster without a compile, and answers the Problems of those that may not
// be dialled. The list is the cluster's from now on. A Config whose Sequence is older does not undo it, and a cluster
// that only comes with a Snapshot under way gets it then.
func (s *Store) ApplyEndpoints(clusterID string, list []upstream.Address) []Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.late[clusterID]; known || len(s.late) < lateMax {
		s.late[clusterID] = lateEndpoints{sequence: NextSequence(), list: list}
	}
	c := s.Load().clusters[clusterID]
	if c == nil {
		return nil
	}
	c.live.setEndpoints(list)
	return c.problems()
}

// Problems are all that are known now: those of the last compile, and the endpoints that may not be dialled.
func (s *Store) Problems() []Problem {
	current := s.Load()
	list := append([]Problem(nil), current.problems...)
	for _, c := range current.clusterList {
		list = append(list, c.problems()...)
	}
	return list
}

var sequence atomic.Uint64

// NextSequence orders Configs and ApplyEndpoints calls in time; see Config.Sequence.
func NextSequence() uint64 { return sequence.Add(1) }

// Own answers the route of a host and path as Route does, but nil for names that only the catch-all serves.
func (s *Store) Own(host, path []byte) *l7.Route {
	current := s.current.Load()
	if h := current.Host(host); h != current.catchAll {
		return h.Match(path)
	}
	return nil
}
