package main

import (
	"context"
	"log"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const heartbeatEvery = 10 * time.Second

// heartbeat keeps the Node there and ready.
func (k *kubelet) heartbeat(ctx context.Context) {
	ticker := time.NewTicker(heartbeatEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := k.register(ctx); err != nil && ctx.Err() == nil {
				log.Printf("node: %v", err)
			}
		}
	}
}

// register makes the Node and says that it is ready.
func (k *kubelet) register(ctx context.Context) error {
	nodes := k.client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, k.node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node, err = nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.node, Labels: map[string]string{
			corev1.LabelHostname: k.node, corev1.LabelOSStable: "linux", corev1.LabelTopologyZone: "zone-a",
		}}}, metav1.CreateOptions{})
	}
	if err != nil {
		return err
	}
	if node, err = k.untaint(ctx, node); err != nil {
		return err
	}
	now := metav1.Now()
	s := &node.Status
	s.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: k.network.gateway4.Addr().String()},
		{Type: corev1.NodeHostName, Address: k.node},
	}
	if k.externalIP != "" {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: k.externalIP})
	}
	s.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: now, LastTransitionTime: now}}
	s.NodeInfo.KubeletVersion = "v1.37.2-localkubelet"
	s.DaemonEndpoints.KubeletEndpoint.Port = k.logPort
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// untaint takes away the taint with which the API server makes every Node, as the node lifecycle controller does once a
// Node is ready: DaemonSets keep off a Node that has it.
func (k *kubelet) untaint(ctx context.Context, node *corev1.Node) (*corev1.Node, error) {
	kept := slices.DeleteFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeNotReady })
	if len(kept) == len(node.Spec.Taints) {
		return node, nil
	}
	node.Spec.Taints = kept
	return k.client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
}

const graceDefault = 30 * time.Second

// seen takes a Pod's newest state: it is bound, run or ended.
func (k *kubelet) seen(ctx context.Context, p *corev1.Pod) {
	switch p.Spec.NodeName {
	case "":
		if p.DeletionTimestamp == nil && len(p.Spec.SchedulingGates) == 0 {
			go k.bind(ctx, p)
		}
		return
	case k.node:
	default:
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	known := k.pods[string(p.UID)]
	if known == nil {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			return
		}
		known = newPod(k, p)
		k.pods[string(p.UID)] = known
		if p.DeletionTimestamp != nil {
			known.ending = true
			go known.terminate(ctx, 0)
			return
		}
		go known.run(ctx)
		return
	}
	if p.DeletionTimestamp != nil && !known.ending {
		known.ending = true
		grace := graceDefault
		if s := p.DeletionGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		go known.terminate(ctx, grace)
	}
}

// bind puts a Pod on this node, once its host ports are free there.
func (k *kubelet) bind(ctx context.Context, p *corev1.Pod) {
	if by := k.portConflict(p); by != "" {
		log.Printf("%s/%s: stays Pending: %s has a host port that it wants", p.Namespace, p.Name, by)
		return
	}
	err := k.client.CoreV1().Pods(p.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, UID: p.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: k.node},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && ctx.Err() == nil {
		log.Printf("%s/%s: bind: %v", p.Namespace, p.Name, err)
	}
}

// portConflict names the Pod of this node that has one of p's host ports; "" if there is none.
func (k *kubelet) portConflict(p *corev1.Pod) string {
	wanted := hostPorts(p)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, other := range k.pods {
		for port := range hostPorts(other.Pod) {
			if wanted[port] {
				return other.title()
			}
		}
	}
	return ""
}

func hostPorts(p *corev1.Pod) map[int32]bool {
	ports := map[int32]bool{}
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.HostPort != 0 {
				ports[port.HostPort] = true
			}
		}
	}
	return ports
}

// gone forgets a Pod that the API has no more, and looks whether others waited for its ports.
func (k *kubelet) gone(ctx context.Context, p *corev1.Pod) {
	k.mu.Lock()
	known := k.pods[string(p.UID)]
	delete(k.pods, string(p.UID))
	k.mu.Unlock()
	if known == nil {
		return
	}
	known.kill()
	k.network.release(known.address4)
	if len(hostPorts(p)) == 0 {
		return
	}
	pending, err := k.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName="})
	if err != nil {
		log.Printf("pending pods: %v", err)
		return
	}
	for i := range pending.Items {
		k.seen(ctx, &pending.Items[i])
	}
}
