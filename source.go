package main

import (
	"errors"
	"os"

	"github.com/sluiceproxy/sluice/watcher"
	"github.com/sluiceproxy/sluice/watcher/translate"
)

var (
	errTwoSources = usage{errors.New("--manifests and --kubeconfig are two sources: give one of them")}
	errNoSource   = usage{errors.New("nothing to serve: give --manifests=DIR, or --kubeconfig=FILE (or $KUBECONFIG) for a cluster, " +
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
		return watcher.Spec{Scheme: "file", Paths: o.manifests}, nil
	}
	if o.kubeconfig != "" {
		return watcher.Spec{Scheme: "kubernetes", Paths: []string{o.kubeconfig}}, nil
	}
	if path := os.Getenv("KUBECONFIG"); path != "" {
		return watcher.Spec{Scheme: "kubernetes", Paths: []string{path}}, nil
	}
	if _, err := os.Stat(serviceAccountToken); err == nil && os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return watcher.Spec{Scheme: "kubernetes"}, nil
	}
	return watcher.Spec{}, errNoSource
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
		EnableSSLPassthrough:     o.passthrough,
		AnnotationsPrefix:        o.annotationsPrefix,
		AllowLoopback:            len(o.manifests) > 0, // who writes files here may name what listens here
		DisableCatchAll:          o.disableCatchAll,
		DisableSVCExternalName:   o.disableExternalName,
	}
}
