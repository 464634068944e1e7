// Package fastpath is everything that moves bytes: epoll loops, connections, timers, TLS records, splice(2) and tunnels.
// It knows no HTTP and no Kubernetes.
//
// A Loop is one epoll instance on one locked OS thread, and all that it owns. A Conn belongs to one loop from the moment
// its descriptor is adopted until it is closed; every method of Conn, Tunnel and Splicer is called on that loop only, and
// none of them blocks, locks or (once warm) allocates. Other goroutines reach a loop by Post and Ticket.Resume.
//
// Input is read where it is wanted: Fill puts bytes into the loop's one shared read buffer and Buffered shows them. What
// is still unread when the turn ends is stashed into a pooled buffer of the connection's own, so an idle connection
// holds no memory and nobody may keep a view of the shared buffer. Output is staged by Write and leaves by one
// system call, after the turn or a few turns later with that of others; Room says how much may be staged, and 0 means: wait for OnWritable. So nothing is unbounded.
package fastpath
