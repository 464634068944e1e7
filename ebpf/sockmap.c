//go:build ignore

// The verdict program: it moves what a socket of a joined tunnel receives to the tunnel's other socket, or leaves it to
// user space. `go generate ./ebpf` compiles it. It needs linux/bpf.h and libbpf's bpf_helpers.h, and no other kernel header:
// the few fields of the kernel's structs that it reads are found by BTF when it is loaded (CO-RE).
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

// Some helpers are only for programs under a licence that the kernel takes for compatible with its own. So this file, unlike the
// rest of Sluice, may be used under the MIT licence or the GPL 2 as well (docs/decisions/0080-sockmap-program.md).
char _license[] SEC("license") = "Dual MIT/GPL";

struct sock {
	int sk_wmem_queued;
	int sk_sndbuf;
} __attribute__((preserve_access_index));

struct tcp_sock {
	__u32 write_seq;
	__u32 snd_una;
	__u32 copied_seq;
} __attribute__((preserve_access_index));

// What the program sees of a segment beyond __sk_buff. cb begins with TCP's sequence number of the first byte (struct tcp_skb_cb).
struct sk_buff {
	char cb[48];
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;

// One direction of a tunnel. sockmap.go has the same struct.
struct direction {
	__u64 bytes;    // given to the other socket
	__u32 base;     // write_seq of the other socket before the first of them
	__u32 limit;    // the most that may be queued: not yet sent, or not yet acknowledged
	__u32 started;  // base is set
	__u32 released; // not 0: user space moves this direction, for good; the value says why
	__u64 name;     // the owner's, of the source
	__u32 owner;    // whom to tell of the release
	__u32 repeats;  // the most that a segment may repeat
	__u32 next;     // sequence number of the first byte of the source that the program has not seen
	__u32 begun;    // next is set
};

// Why a direction was released. sockmap.go has the same numbers.
enum { RELEASED_LIMIT = 2, RELEASED_GONE = 3, RELEASED_REFUSED = 4, RELEASED_LOST = 5 };

// Sockets by the cookie of the socket whose peer they are. No program is attached here.
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2);
	__type(key, __u64);
	__type(value, __u64);
} peers SEC(".maps");

// Sockets by their own cookie: the program is attached here, so this map is filled last.
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2);
	__type(key, __u64);
	__type(value, __u64);
} sources SEC(".maps");

// Directions by the cookie of their source.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2);
	__type(key, __u64);
	__type(value, struct direction);
} directions SEC(".maps");

// Names and owners of the sources whose directions were released, for user space to wake up.
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} releases SEC(".maps");

// Bytes that came again and were taken off, of all directions.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

// What fresh found.
enum { FRESH = 0, NOTHING_NEW = 1, LOST = 2 };

// fresh takes off what the source has received before. TCP queues a retransmission whole that begins with bytes which came
// already; recvmsg skips those, but the kernel's reader for sockmaps does not. Without this they would arrive twice.
// NOTHING_NEW: no byte is left; the segment was queued for its FIN. LOST: it could not, for want of memory, and the stream
// has a hole.
static __always_inline int fresh(struct __sk_buff *skb, struct direction *d)
{
	struct sk_buff *k = bpf_cast_to_kern_ctx(skb);
	__u32 seq = *(__u32 *)k->cb;
	__u32 len = skb->len;

	if (!d->begun) {
		struct bpf_sock *sk = skb->sk;
		struct tcp_sock *tp = sk ? bpf_skc_to_tcp_sock(sk) : 0;
		d->next = tp ? tp->copied_seq : seq;
		d->begun = 1;
	}
	__s32 seen = d->next - seq;
	if (seen <= 0) {
		d->next = seq + len;
		return FRESH;
	}
	__u32 off = seen;
	if (off >= len)
		off = len;
	else
		d->next = seq + len;
	if (off > d->repeats)
		return LOST;
	__u32 left = off;
	for (int i = 0; i < 256 && left > 0; i++) { // the kernel takes off so much at once and no more
		__u32 n = left > 0xfff ? 0xfff : left;
		if (bpf_skb_pull_data(skb, n) || bpf_skb_adjust_room(skb, -(__s32)n, 0, 0))
			return LOST;
		left -= n;
	}
	if (left > 0)
		return LOST;
	__u32 zero = 0;
	__u64 *repeated = bpf_map_lookup_elem(&counters, &zero);
	if (repeated)
		__sync_fetch_and_add(repeated, off);
	return off < len ? FRESH : NOTHING_NEW;
}

// A released direction never comes back: bytes behind the first that user space got have to follow it there.
static __always_inline int release(struct direction *d, __u32 why)
{
	d->released = why;
	bpf_ringbuf_output(&releases, &d->name, sizeof(d->name) + sizeof(d->owner), 0);
	return SK_PASS;
}

// full tells whether n bytes more would queue too much at the other socket. What was redirected lies first with the
// kernel's worker, then in the socket's send queue; both count. It must fit into the send buffer as well: the worker's
// queue is shared with what the socket received, so a direction that waits there would hold up the other one.
static __always_inline int full(struct direction *d, struct tcp_sock *tp, __u32 n)
{
	struct sock *sk = (struct sock *)tp;
	__u32 written = tp->write_seq;

	if (!d->started) {
		d->base = written;
		d->started = 1;
	}
	__u32 waiting = (__u32)d->bytes - (written - d->base) + n;
	if (waiting + (written - tp->snd_una) > d->limit)
		return 1;
	return (__u64)sk->sk_wmem_queued + waiting > (__u64)sk->sk_sndbuf;
}

SEC("sk_skb/stream_verdict")
int sluice_verdict(struct __sk_buff *skb)
{
	if (skb->len == 0) // a bare FIN: redirected, it would end the other socket's sending side with an error
		return SK_DROP;
	__u64 source = bpf_get_socket_cookie(skb);
	struct direction *d = bpf_map_lookup_elem(&directions, &source);
	if (!d)
		return SK_PASS;
	if (d->released == RELEASED_LOST) // what follows a hole goes nowhere
		return SK_DROP;
	switch (fresh(skb, d)) {
	case NOTHING_NEW:
		return SK_DROP;
	case LOST:
		release(d, RELEASED_LOST);
		return SK_DROP;
	}
	if (d->released)
		return SK_PASS;
	struct bpf_sock *peer = bpf_map_lookup_elem(&peers, &source);
	if (!peer)
		return release(d, RELEASED_GONE);
	struct tcp_sock *tp = bpf_skc_to_tcp_sock(peer);
	int stop = !tp || full(d, tp, skb->len);
	bpf_sk_release(peer);
	if (stop)
		return release(d, RELEASED_LIMIT);
	if (bpf_sk_redirect_hash(skb, &peers, &source, 0) != SK_PASS)
		return release(d, RELEASED_REFUSED);
	d->bytes += skb->len;
	return SK_PASS;
}
