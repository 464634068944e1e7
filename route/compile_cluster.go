package route

import "slices"

// compileClusters finds the living cluster of each of the Config's, or makes it. Settings and endpoints of those that live
// already are changed by Store.Swap, not here: a Snapshot that is never swapped in changes nothing.
func (k *compiler) compileClusters() {
	if slices.Equal(k.config.Clusters, k.previous.config.Clusters) && len(k.previous.clusterList) == len(k.config.Clusters) {
		k.next.clusters, k.next.clusterList = k.previous.clusters, k.previous.clusterList
		return
	}
	k.next.clusters = make(map[string]*cluster, len(k.config.Clusters))
	k.next.clusterList = make([]*cluster, 0, len(k.config.Clusters))
	k.added = map[string]bool{}
	for _, source := range k.config.Clusters {
		switch {
		case source == nil:
		case source.ID == "":
			k.problem(source.Owner, "", "a cluster without an ID cannot be served")
		default:
			k.compileCluster(source)
		}
		k.worked(1)
	}
	k.findRemoved()
}

func (k *compiler) compileCluster(source *Cluster) {
	old := k.clusterBefore(source)
	c := old
	if old == nil || old.source != source {
		c = &cluster{source: source}
		if old != nil {
			c.live = old.live
		}
	}
	if k.next.clusters[source.ID] != nil {
		k.problem(source.Owner, "", "cluster %s is there twice; the first one counts", source.ID)
		return
	}
	k.next.clusters[source.ID] = c
	if c.live == nil {
		living := k.env.NewCluster(source.ID, source.Settings)
		c.live = &liveCluster{upstream: living, control: k.env.control(living), settings: source.Settings}
		k.added[source.ID] = true
	}
	if c != old {
		k.next.clusterChanges = append(k.next.clusterChanges, c)
	}
	k.next.clusterList = append(k.next.clusterList, c)
}

// clusterBefore finds what the Snapshot before has by the ID of source. Most often it stands where the last one was
// followed by, or one further, and is not looked up.
func (k *compiler) clusterBefore(source *Cluster) *cluster {
	list := k.previous.clusterList
	for i := k.clusterAt; i < min(k.clusterAt+2, len(list)); i++ {
		if list[i].source == source {
			k.clusterAt = i + 1
			return list[i]
		}
	}
	return k.previous.clusters[source.ID]
}

// findRemoved notes the clusters that are no more.
func (k *compiler) findRemoved() {
	if len(k.next.clusterList)-len(k.added) == len(k.previous.clusterList) {
		return // every other one was there before, so none of those is missing
	}
	k.removed = map[*liveCluster]bool{}
	for _, c := range k.previous.clusterList {
		if k.next.clusters[c.source.ID] == nil {
			k.removed[c.live] = true
			k.next.clustersRemoved = append(k.next.clustersRemoved, c.live)
		}
		k.worked(1)
	}
}
