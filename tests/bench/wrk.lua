-- What wrk sends (from the environment, as wrk reads scripts before its arguments), and its results as one line of JSON.
-- Nothing is defined that wrk would call for each request.

local size = tonumber(os.getenv("BENCH_BODY") or "0")
if size > 0 then
  wrk.method = "POST"
  wrk.body = string.rep("x", size)
end
if os.getenv("BENCH_CLOSE") == "1" then
  wrk.headers["Connection"] = "close"
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "seconds": %.6f, "bytes": %d, "p50": %.6f, "p99": %.6f, '
    .. '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    e.connect, e.read, e.write, e.status, e.timeout))
end
