-- Given to wrk by the harness. The URL carries the host name, so that SNI and Host are right; the name is not in
-- any DNS, so it is resolved to the loopback address here. At the end one line is printed for the harness.

function wrk.resolve(host, service)
   wrk.addrs = wrk.lookup("127.0.0.1", service)
end

function done(summary, latency, requests)
   local e = summary.errors
   io.write(string.format(
      "bench: requests=%d bytes=%d p50=%d p90=%d p99=%d p999=%d connect=%d read=%d write=%d timeout=%d status=%d\n",
      summary.requests, summary.bytes, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9),
      e.connect, e.read, e.write, e.timeout, e.status))
end
