// Package watcher keeps the configuration current. A Source is where the desired state comes from; a Controller leads each
// state that a source tells through translate and route.Compile to the Store, beside the traffic and never in its way.
//
//	source, err := watcher.Open(watcher.Spec{Scheme: "file", Paths: []string{"manifests"}}, log)
//	controller := watcher.NewController(watcher.ControllerConfig{Source: source, Store: store, …})
//	go controller.Run(ctx)
//	<-controller.Ready() // a first state is served
//
// The way of a change, from a file to the traffic:
//
//	fsnotify ── file.go: gathers events until it is quiet ── file_scan.go: reads what changed ── manifest*.go: decodes
//	                                                                                                 │ State
//	Store ◄── ApplyEndpoints, or Compile and Swap ── translate ── controller.go: one state under way, one pending
//
// What is wrong with the state costs only itself: it becomes a route.Problem, is logged when it appears and when it has
// gone, and is shown by the admin page.
package watcher
