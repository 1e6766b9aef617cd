-- What wrk sends (from the environment, as wrk reads scripts before its arguments), and its results as one line of JSON.
-- Where requests differ from each other, wrk calls `request` for each; elsewhere nothing is defined that it would call.

local size = tonumber(os.getenv("BENCH_BODY") or "0")
if size > 0 then
  wrk.method = "POST"
  wrk.body = string.rep("x", size)
end
if os.getenv("BENCH_CLOSE") == "1" then
  wrk.headers["Connection"] = "close"
end

-- Requests that differ: what does so is made of a number that never comes again, as a proxy or a browser would write it.
local traffic = {}
local count = 0

local function number()
  count = count + 1
  return count * 2654435761 % 4294967296
end

local agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/%d.0"
local usual = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
  .. "Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"

-- One of 12 fields, five of which and the path differ each time, on connections that a proxy keeps.
local proxied = "GET /any/%d?page=%d HTTP/1.1\r\nHost: shop.example.org\r\nX-Real-IP: %s\r\nX-Forwarded-For: %s\r\n"
  .. "X-Forwarded-Proto: https\r\nX-Request-Id: %08x%08x%08x%08x\r\nUser-Agent: " .. agent:format(128) .. "\r\n" .. usual
  .. "Referer: https://shop.example.org/any/%d\r\nCookie: session=%08x%08x; theme=dark\r\n\r\n"

function traffic.proxied()
  local n = number()
  local client = string.format("203.%d.%d.%d", n / 65536 % 256, n / 256 % 256, n % 256)
  return proxied:format(n, count, client, client, n, count, n, count, count, n, count)
end

-- Forty clients, each with a cookie and an agent of its own.
local clients = {}
for each = 1, 40 do
  local cookies = {}
  for part = 1, 24 + each % 24 do
    cookies[part] = string.format("k%d=%08x%08x%08x%08x", part, each * part, number(), number(), each)
  end
  clients[each] = " HTTP/1.1\r\nHost: shop.example.org\r\nConnection: keep-alive\r\nUser-Agent: " .. agent:format(each)
    .. "\r\n" .. usual .. "Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
    .. "Sec-Fetch-Site: same-origin\r\nCookie: " .. table.concat(cookies, "; ") .. "\r\nReferer: https://shop.example.org/any/"
end

function traffic.browser()
  local n = number()
  return string.format("GET /any/%d?page=%d", n, count) .. clients[count % 40 + 1] .. count .. "\r\n\r\n"
end

local posted = "POST /json HTTP/1.1\r\nHost: api.example.org\r\nUser-Agent: python-requests/2.32.3\r\n"
  .. "Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
  .. "Content-Length: %d\r\nX-Request-Id: %08x%08x\r\n\r\n%s"

function traffic.json()
  local n = number()
  local body = string.format('{"id": %d, "number": %d, "text": "', count, n)
  body = body .. string.rep("x", size - #body - 2) .. '"}'
  return posted:format(size, n, count, body)
end

request = traffic[os.getenv("BENCH_TRAFFIC") or ""]

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "seconds": %.6f, "bytes": %d, "p50": %.6f, "p99": %.6f, '
    .. '"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    latency:percentile(50) / 1e6, latency:percentile(99) / 1e6,
    e.connect, e.read, e.write, e.status, e.timeout))
end
