-- SPDX-License-Identifier: Apache-2.0
-- One request through the ingress: find its upstream, hand it to the next endpoint, answer, write the access log.
local hosts = require "sandbox.hosts"
local routes = require "sandbox.ingress.routes"
local times = require "sandbox.times"

local Proxy = {}
Proxy.__index = Proxy
local M = {}

local connect_timeout, read_timeout = 5, 60 -- proxy-connect-timeout, proxy-read-timeout
local most_tries = 3 -- proxy-next-upstream-tries
local largest_body = 20 << 20 -- proxy-body-size, as the managed controller sets it
local head_estimate = 160 -- bytes of request line and usual headers that the log's request_length counts

local reasons = { [308] = "Permanent Redirect", [404] = "Not Found", [413] = "Request Entity Too Large", [499] = "Client Closed Request",
  [502] = "Bad Gateway", [503] = "Service Temporarily Unavailable", [504] = "Gateway Time-out" }
local html_headers = { { "Content-Type", "text/html" } }
local pages = {}

local function page(status)
  pages[status] = pages[status] or ("<html>\r\n<head><title>%d %s</title></head>\r\n<body>\r\n<center><h1>%d %s</h1></center>\r\n"
    .. "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"):format(status, reasons[status], status, reasons[status])
  return pages[status]
end

-- Round robin; the place in the round is kept when endpoints come and go.
local function next_endpoint(self, upstream)
  local list = upstream.endpoints
  local turn = (self.turns[upstream.name] or 0) + 1
  self.turns[upstream.name] = turn
  return list[(turn - 1) % #list + 1]
end

local failures = { timeout = 504, unreachable = 504, reset = 502, refused = 502 }
local sent_nothing = { refused = true, unreachable = true }

-- Tries further endpoints only while nothing was sent: a POST is not repeated.
local function forward(self, upstream, request, record)
  local tries, statuses, addresses = math.min(most_tries, #upstream.endpoints), {}, {}
  for _ = 1, tries do
    local endpoint = next_endpoint(self, upstream)
    local reply, why = self.network:call(endpoint.ip, endpoint.port, request, connect_timeout, read_timeout)
    addresses[#addresses + 1] = endpoint.text
    statuses[#statuses + 1] = reply and reply.status or failures[why]
    record.upstream_addr, record.upstream_status = table.concat(addresses, ", "), table.concat(statuses, ", ")
    if reply then
      record.upstream_response_length = #reply.body
      return reply
    end
    if not sent_nothing[why] then break end
  end
  return { status = statuses[#statuses], headers = html_headers, body = page(statuses[#statuses]) }
end

local function plain(status, headers)
  return { status = status, headers = headers or html_headers, body = page(status) }
end

local function redirect(req, host)
  return plain(308, { { "Content-Type", "text/html" }, { "Location", "https://" .. host .. req.target } })
end

local function answer(self, req, host, record)
  local location, server = routes.find(self.tables, host, req.path)
  if not location then return plain(404) end
  if server.redirect and not req.tls then return redirect(req, host) end
  local upstream = location.upstream
  if not upstream then return plain(503) end
  record.proxy_upstream_name = upstream.name
  local body = req:body(largest_body)
  if not body then return plain(req:closed() and 499 or 413) end
  record.request_length = record.request_length + #body
  if #upstream.endpoints == 0 then return plain(503) end
  local began = self.now()
  local reply = forward(self, upstream, { method = req.method, path = req.path, query = req.query_string, body = body }, record)
  record.upstream_response_time = self.now() - began
  return reply
end

-- [05/Jan/2026:08:00:00 +0000] is written once a second, not once a request.
local function log_time(self, now)
  local second = math.floor(now)
  if second ~= self.second then
    local p = times.parts(second)
    self.second = second
    self.second_text = ("%02d/%s/%d:%02d:%02d:%02d +0000"):format(p.day, M.months[p.month], p.year, p.hour, p.min, p.sec)
  end
  return self.second_text
end

M.months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

-- The fields of the controller's access log, as the log service's default configuration names them.
local function new_record(self, req, host)
  self.count = self.count + 1
  return { client_ip = "127.0.0.1", x_forward_for = "127.0.0.1", remote_user = "-", method = req.method, url = req.target,
    version = "HTTP/" .. (req.version or "1.1"), http_referer = "-", http_user_agent = req.headers:get "user-agent" or "-",
    request_length = head_estimate + #req.target, proxy_upstream_name = "upstream-default-backend", upstream_addr = "-",
    upstream_response_length = 0, upstream_response_time = 0, upstream_status = "-", host = host,
    req_id = ("%s%016x"):format(self.id_prefix, self.count), proxy_alternative_upstream_name = "" }
end

---Answers one request.
function Proxy:handle(req)
  local began = self.now()
  local host = hosts.bare(req.headers:get "host") or "_"
  local record = new_record(self, req, host)
  local reply = answer(self, req, host, record)
  local status = req:closed() and 499 or reply.status
  if status ~= 499 then req:respond(reply.status, reply.headers, reply.body) end
  record.status, record.body_bytes_sent = status, status ~= 499 and #reply.body or 0
  local now = self.now()
  record.request_time, record.time, record.at = now - began, log_time(self, now), now
  self.emit("ingress.access", record)
end

---@param options {network: table, now: function, emit: function, id_prefix: string}
function M.new(options)
  return setmetatable({ network = options.network, now = options.now, emit = options.emit, id_prefix = options.id_prefix, count = 0,
    turns = {}, tables = { servers = {}, upstreams = {} } }, Proxy)
end

return M
