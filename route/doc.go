// Package route keeps what is served: the desired state as plain data (Config), and the same state compiled for look-up
// (Snapshot). Compile makes a Snapshot from a Config; a Store publishes it through one atomic pointer and answers the data
// path's questions. Readers never wait and never allocate; a Snapshot is immutable, and nobody but Compile makes one.
//
// # Which host
//
// A name leads to the host of exactly that name, else to the wildcard of its parent domain ("*.shop.example" takes one
// label: "a.shop.example", neither "a.b.shop.example" nor "shop.example"), else to the catch-all host. A known host whose
// paths do not match never falls to another host's rules: its requests go to Config.DefaultBackend, or are answered 404.
//
// # Which path
//
// A host's rules behave as the nginx locations that ingress-nginx makes of them:
//
//	Exact "/foo"                   takes /foo
//	Prefix "/foo"                  takes /foo and /foo/…, by path element; "/" takes everything
//	Prefix "/foo/"                 takes /foo/ and /foo/…
//	ImplementationSpecific "/foo"  takes whatever begins with /foo: /foobar too
//	any type, "/foo/"              answers 301 to /foo/ for /foo, when no rule has the path /foo itself
//
// A host that ignores the slash (VirtualHost.IgnoreSlash) has no such 301: there Prefix "/foo/" takes /foo as well, as the
// Ingress API says, and the other types do not.
//
// The longest path text that takes a request wins. On equal text: Exact for the path itself; between Prefix and
// ImplementationSpecific the one that stands first (the oldest); of two rules of the same text and type the first, and
// the second is a Problem. When a Prefix stands before an ImplementationSpecific of the same text, the latter still has
// what the Prefix leaves: /foobar.
//
// In a host in regex mode all of this gives way to nginx's regular expressions: every path becomes `(?i)^<path>`, tried
// longest text first, then by text descending; the first that matches wins. Path types, and the 301, mean nothing there. The
// syntax is Go's (RE2): time linear in the path, but no look-around and no back-references.
//
// # What outlives a compile
//
// Clusters by ID, filter states by owner object, statistics by Ingress and Service: all go from one Snapshot to the next,
// with their settings beside them. A whole Host goes over when its *VirtualHost is the same pointer and the clusters that
// it names are the same objects, so that a compile costs what has changed.
package route
