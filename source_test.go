package main

import (
	"strings"
	"testing"
	"time"
)

// TestClusterFlags: how often things are done anew reaches the watcher of a cluster; with manifests the log tells that it
// means nothing.
func TestClusterFlags(t *testing.T) {
	o := defaultOptions()
	if err := parseFlags(&o, strings.Fields("--kubeconfig=f --sync-period=10m --status-update-interval=30"), table); err != nil {
		t.Fatal(err)
	}
	spec, err := sourceOf(&o)
	if c := spec.Cluster; err != nil || c.SyncPeriod != 10*time.Minute || c.Status.Interval != 30*time.Second {
		t.Errorf("%v, statuses %v, %v", c.SyncPeriod, c.Status.Interval, err)
	}
	o.kubeconfig, o.manifests = "", []string{"d"}
	if _, err := sourceOf(&o); err != nil {
		t.Fatal(err)
	}
	const why = " does nothing here: manifests are read, and no cluster is watched"
	if got := strings.Join(o.ignored, ";"); got != "--status-update-interval"+why+";--sync-period"+why {
		t.Errorf("the log tells %s", got)
	}
}
