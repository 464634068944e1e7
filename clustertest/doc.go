// Package clustertest shows Sluice in a cluster: its tests run the program against a real kube-apiserver, etcd and
// kube-controller-manager, with a node whose pods are local processes (testcluster/). They stand behind the build tag
// "cluster": `make test` and `make test-cluster` build those programs into bin/ and run the tests; `go test -tags cluster`
// without the programs, or where no namespaces can be made, skips each test and says so, unless $SLUICE_KUBE is "required".
//
// The test binary starts itself again inside `controlplane --netns`, once for all tests: a network namespace in which
// ports are free and pods have addresses. Each test makes a namespace of its own and an ingress class of its own, so that
// tests do not see each other. cluster_test.go and proxy_test.go are what tests stand on.
package clustertest
