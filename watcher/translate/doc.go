// Package translate turns Kubernetes objects into a route.Config: pure functions, which touch no clock, no socket and no
// file. The same objects always give the same Config and the same Problems.
//
//	t := translate.New(options)
//	config, problems := t.Translate(objects)
//
// A Translator remembers its last call. It finds what changed by comparing pointers, so sources must hand over an
// unchanged object as the same pointer and never write to one. What did not change comes back as the same pointer too:
// *route.VirtualHost, *route.Cluster, *route.Certificate, *l7.Settings; route.Compile then has little to do.
//
// The way of one Ingress:
//
//	Ingress ── class.go: ours? ── ingress.go: fragment ──┬── host.go: its rules, merged with others' of the same host
//	              annotation.go: the table of annotations ┤
//	              nginx_*.go: one dialect file a family   └── cluster.go: its backends ── endpoints.go, certificate.go
//
// ingress-nginx's ConfigMap is configmap.go; configmap_keys.go is the table of its keys. A table is the only place where
// a key is named: AnnotationsMarkdown and ConfigMapMarkdown print docs/annotations.md from the tables.
//
// Whatever is refused or ignored becomes a route.Problem that names object, field and remedy; the rest is served.
package translate
