package main

import (
	"context"
	"log"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const statusTriesMax = 5 // of a write that meets another one

// writeStatus tells the API how the pod is.
func (p *pod) writeStatus(ctx context.Context, ready bool) {
	if p.stopped() {
		return // a pod that ends is ready or not as it was: the endpoint controller looks at its deletion
	}
	p.mu.Lock()
	p.ready = ready
	p.mu.Unlock()
	pods := p.kubelet.client.CoreV1().Pods(p.Namespace)
	for range statusTriesMax {
		now, err := pods.Get(ctx, p.Name, metav1.GetOptions{})
		if err != nil || now.UID != p.UID {
			return
		}
		p.fillStatus(&now.Status, ready)
		_, err = pods.UpdateStatus(ctx, now, metav1.UpdateOptions{})
		if err == nil || apierrors.IsNotFound(err) || ctx.Err() != nil {
			return
		}
		if !apierrors.IsConflict(err) {
			log.Printf("%s: status: %v", p.title(), err)
		}
	}
}

func (p *pod) fillStatus(s *corev1.PodStatus, ready bool) {
	now := metav1.Now()
	node := p.kubelet.network.gateway4.Addr().String()
	s.Phase = corev1.PodRunning
	s.HostIP, s.HostIPs = node, []corev1.HostIP{{IP: node}}
	s.PodIP, s.PodIPs = "", nil
	if p.address4.IsValid() {
		s.PodIP = p.address4.String()
		s.PodIPs = []corev1.PodIP{{IP: s.PodIP}}
	}
	if p.address6.IsValid() {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: p.address6.String()})
	}
	if s.StartTime == nil {
		s.StartTime = &now
	}
	truth := map[bool]corev1.ConditionStatus{true: corev1.ConditionTrue, false: corev1.ConditionFalse}
	s.Conditions = nil
	for _, c := range []struct {
		name corev1.PodConditionType
		is   bool
	}{{corev1.PodScheduled, true}, {corev1.PodInitialized, true}, {corev1.ContainersReady, ready}, {corev1.PodReady, ready}} {
		s.Conditions = append(s.Conditions, corev1.PodCondition{Type: c.name, Status: truth[c.is], LastTransitionTime: now})
	}
	s.ContainerStatuses = nil
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.Spec.Containers {
		c := &p.Spec.Containers[i]
		started := true
		one := corev1.ContainerStatus{Name: c.Name, Image: c.Image, ImageID: c.Image, Ready: ready, Started: &started,
			State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}}
		if pr := p.containers[c.Name]; pr != nil {
			one.RestartCount = pr.restarts
		}
		s.ContainerStatuses = append(s.ContainerStatuses, one)
	}
}
