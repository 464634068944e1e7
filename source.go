package main

import (
	"cmp"
	"errors"
	"net"
	"os"
	"strconv"

	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

var (
	errTwoSources    = usage{errors.New("--manifests and --kubeconfig are two sources: give one of them")}
	errTwoNamespaces = usage{errors.New("--watch-namespace and --watch-namespace-selector are two ways to name namespaces: give one of them")}
	errNoSource      = usage{errors.New("nothing to serve: give --manifests=DIR, or --kubeconfig=FILE (or $KUBECONFIG) for a cluster, " +
		"or run inside one; `sluice demo` serves an example")}
)

// serviceAccountToken tells, with its variable, that the process runs in a pod.
const serviceAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// sourceOf is where the configuration comes from. A flag wins over the environment.
func sourceOf(o *options) (watcher.Spec, error) {
	if len(o.manifests) > 0 {
		if o.kubeconfig != "" {
			return watcher.Spec{}, errTwoSources
		}
		o.ignored = append(o.ignored, clusterOnly(o)...)
		return watcher.Spec{Scheme: "file", Paths: o.manifests}, nil
	}
	if o.watchNamespace != "" && o.watchSelector != "" {
		return watcher.Spec{}, errTwoNamespaces
	}
	kubeconfig := cmp.Or(o.kubeconfig, os.Getenv("KUBECONFIG"))
	if kubeconfig == "" {
		if _, err := os.Stat(serviceAccountToken); err != nil || os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
			return watcher.Spec{}, errNoSource
		}
	}
	return watcher.Spec{Scheme: "kubernetes", Cluster: clusterOf(o, kubeconfig)}, nil
}

// clusterOnly names the flags that were given and mean something with a cluster only.
func clusterOnly(o *options) (list []string) {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"watch-namespace", o.watchNamespace != ""}, {"watch-namespace-selector", o.watchSelector != ""},
		{"publish-service", o.publishService != ""}, {"publish-status-address", o.publishAddresses != nil},
		{"report-node-internal-ip-address", o.reportInternalIP}, {"disable-leader-election", o.noElection},
		{"status-update-interval", o.statusInterval != 0}, {"sync-period", o.syncPeriod != 0},
	} {
		if f.given {
			list = append(list, "--"+f.name+" does nothing here: manifests are read, and no cluster is watched")
		}
	}
	return list
}

// clusterOf is what the flags say about a cluster.
func clusterOf(o *options, kubeconfig string) watcher.Cluster {
	return watcher.Cluster{
		Kubeconfig:         kubeconfig,
		Namespace:          o.watchNamespace,
		NamespaceSelector:  o.watchSelector,
		AnnotationsPrefix:  o.annotationsPrefix,
		ConfigMap:          o.configMap,
		DefaultCertificate: o.defaultCertificate,
		DefaultBackend:     o.defaultBackend,
		TCPServices:        o.tcpServices,
		UDPServices:        o.udpServices,
		SyncPeriod:         o.syncPeriod,
		Status: watcher.Status{
			Off:              !o.updateStatus,
			PublishService:   o.publishService,
			PublishAddresses: o.publishAddresses,
			InternalIP:       o.reportInternalIP,
			KeepOnShutdown:   !o.updateStatusOnShutdown,
			ElectionID:       o.electionID,
			ElectionTTL:      o.electionTTL,
			NoElection:       o.noElection,
			Interval:         o.statusInterval,
			Pod:              os.Getenv("POD_NAME"),
			PodNamespace:     os.Getenv("POD_NAMESPACE"),
		},
	}
}

// translateOptions are the flags that decide what objects mean.
func translateOptions(o *options) translate.Options {
	return translate.Options{
		IngressClass:             o.ingressClass,
		ControllerClass:          o.controllerClass,
		IngressClassByName:       o.classByName,
		WatchIngressWithoutClass: o.withoutClass,
		DefaultBackendService:    o.defaultBackend,
		DefaultSSLCertificate:    o.defaultCertificate,
		ConfigMap:                o.configMap,
		TCPServices:              o.tcpServices,
		UDPServices:              o.udpServices,
		OwnPorts:                 ownPorts(o),
		EnableSSLPassthrough:     o.passthrough,
		AnnotationsPrefix:        o.annotationsPrefix,
		AllowLoopback:            len(o.manifests) > 0, // who writes files here may name what listens here
		DisableCatchAll:          o.disableCatchAll,
		DisableSVCExternalName:   o.disableExternalName,
		HTTPSPort:                o.httpsPort,
	}
}

// ownPorts are those that flags name for this process itself, with the flags.
func ownPorts(o *options) (list []translate.OwnPort) {
	for _, a := range ownAddresses(o) {
		if port := portOf(a.address); port != 0 {
			list = append(list, translate.OwnPort{Port: uint16(port), Flag: a.flag})
		}
	}
	return list
}

// An ownAddress is where a flag has this process listen, as HOST:PORT; whatever else it says is of no interest here.
type ownAddress struct{ flag, address string }

func ownAddresses(o *options) []ownAddress {
	host := ""
	if o.bind.IsValid() {
		host = o.bind.String()
	}
	return []ownAddress{
		{"--http-port", net.JoinHostPort(host, strconv.Itoa(o.httpPort))}, {"--https-port", net.JoinHostPort(host, strconv.Itoa(o.httpsPort))},
		{"--admin-address", o.adminAddress}, {"--metrics-address", o.metricsAddress}, {"--validating-webhook", o.webhookAddress},
	}
}

// portOf is the port of HOST:PORT; 0: there is none, or the system chooses.
func portOf(address string) uint32 {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0 // the path of a socket
	}
	return uint32(n)
}
