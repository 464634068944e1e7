// Package testcluster is a Kubernetes cluster for tests, made of plain local processes and built from Go modules alone:
//
//	controlplane   etcd, kube-apiserver and kube-controller-manager in one program, started on loopback
//	localkubelet   one node: scheduler, kubelet and container runtime in one, pods as local processes
//	kubectl        the client
//	echo           a backend
//
// It is a module of its own, so that the graph of Kubernetes' servers stays out of Sluice's go.mod. `make kube-bin` builds
// the programs into bin/; the first build takes ten minutes or more, later ones seconds.
package testcluster
