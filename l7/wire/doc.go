// Package wire is HTTP/1.1 and HTTP/2 as bytes: strict parsers and canonical serialisers, used by servers, clients, health checks
// and tests alike. It knows no routes, no sockets, no clocks and no policy.
//
// What it promises:
//
//   - Parse strictly, hold a typed model, serialise anew. A message that is accepted has exactly one reading, and no byte
//     of a sender's start line, field line or chunk line reaches the other side except as the value of a typed member
//     that a table here has allowed. docs/hardening.md names the rule of every input; there is no lenient switch.
//   - The serialiser asserts what the parsers promise, so that a filter's slip is an answer 500 and never a second
//     request (ErrSerialise).
//   - The same bytes give the same result, however they are cut into segments.
//   - Nothing allocates once warm, errors included: every error is a package-level value, one for each cause.
//
// A server's loop over one connection's buffer b:
//
//	skip, n, err := wire.RequestHeadEnd(b, scanned, lim) // n == 0: read more, then scanned = len(b)
//	head := arena.Copy(b[skip : skip+n])                 // the request owns its head from here on
//	err = request.Parse(head, arena, lim)
//	b = b[skip+n:]                                       // the body, by request.Framing
//
// The way back is AppendResponse; the way to a backend AppendRequest, ResponseHeadEnd and Response.Parse. Chunked bodies
// go through ChunkReader one way and AppendChunkHeader the other.
//
// HTTP/2 (h2_*.go) has the same model at its ends. The way through a connection's buffer, of a server or a client:
//
//	h := wire.ParseH2Head(b)                             // H2HeadBytes of it
//	err := h.Check(wire.H2FrameMax)                      // then Length bytes of payload: Block, Unpad, EachH2Setting …
//	err = decoder.Decode(block, list, arena, lim)        // HEADERS and its CONTINUATIONs, joined
//	malformed, err := list.Request(request, arena, end)  // or Response, or Trailers
//
// and back by H2Encoder and the Append functions of frames. Streams, windows and what a breach of the framing leads to are
// the owner's.
package wire
