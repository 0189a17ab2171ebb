-- SPDX-License-Identifier: Apache-2.0
-- A sandbox in this process for one test, and calls to it signed by a few lines of the test's own.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local vm = require "eirun.core.vm"

local M = {}
local Client = {}
Client.__index = Client

local function sorted_names(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function encode(text) return (tostring(text):gsub("[^%w%-_%.~]", function(c) return ("%%%02X"):format(c:byte()) end)) end

function M.query(params)
  local parts = {}
  for i, name in ipairs(sorted_names(params or {})) do parts[i] = encode(name) .. "=" .. encode(params[name]) end
  return table.concat(parts, "&")
end

local function sign(headers, method, path, query, body, key)
  headers["x-acs-content-sha256"] = headers["x-acs-content-sha256"] or crypto.hex(crypto.sha256(body))
  local names, lines = {}, {}
  for _, name in ipairs(sorted_names(headers)) do
    if name == "host" or name == "content-type" or name:find "^x%-acs%-" then names[#names + 1] = name end
  end
  for i, name in ipairs(names) do lines[i] = name .. ":" .. headers[name] .. "\n" end
  local signed = table.concat(names, ";")
  local canonical = table.concat({ method, path, query, table.concat(lines), signed, crypto.hex(crypto.sha256(body)) }, "\n")
  local signature = crypto.hex(crypto.hmac_sha256(key.secret, "ACS3-HMAC-SHA256\n" .. crypto.hex(crypto.sha256(canonical))))
  headers.authorization = ("ACS3-HMAC-SHA256 Credential=%s,SignedHeaders=%s,Signature=%s"):format(key.id, signed, signature)
end

local function date(seconds) return os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(seconds)) end

-- options: { host=, method=, path=, query={}, body=table|string, action=, version=, headers={}, key={id,secret,token} }
-- -> status, decoded body, reply
function Client:call(options)
  local method, path, query = options.method or "POST", options.path or "/", M.query(options.query)
  local body = type(options.body) == "table" and json.encode(options.body) or options.body or ""
  local headers = { host = options.host, ["x-acs-action"] = options.action, ["x-acs-version"] = options.version,
    ["x-acs-date"] = date(task.now() + (options.skew or 0)), ["x-acs-signature-nonce"] = crypto.hex(crypto.random(16)) }
  if body ~= "" then headers["content-type"] = "application/json; charset=utf-8" end
  local key = options.key or self.key
  if key.token then headers["x-acs-security-token"] = key.token end
  for name, value in pairs(options.headers or {}) do headers[name] = value end
  sign(headers, method, path, query, body, key)
  headers.host = nil
  local url = (options.scheme or "https") .. "://" .. options.host .. path .. (query ~= "" and "?" .. query or "")
  local reply, err = self.http:request { method = method, url = url, headers = headers,
    body = options.send or (body ~= "" and body or nil), timeout = options.timeout }
  if not reply then return nil, err end
  return reply.status, reply.body ~= "" and json.decode(reply.body) or nil, reply
end

function Client:cs(method, path, options)
  options = options or {}
  options.host, options.method, options.path = "cs.cn-hangzhou.aliyuncs.com", method, path:gsub("CID", self.info.cluster_id)
  options.action, options.version = options.action or "Any", "2015-12-15"
  return self:call(options)
end

local products = { ecs = { "ecs.cn-hangzhou.aliyuncs.com", "2014-05-26" }, ess = { "ess.aliyuncs.com", "2022-02-22" },
  sts = { "sts.aliyuncs.com", "2015-04-01" }, vpc = { "vpc.cn-hangzhou.aliyuncs.com", "2016-04-28" },
  ram = { "ram.aliyuncs.com", "2015-05-01" } }

function Client:rpc(product, action, query, options)
  options = options or {}
  options.host, options.version, options.action, options.query = products[product][1], products[product][2], action, query or {}
  return self:call(options)
end

-- Polls until check() gives something; fails after some seconds of the run's clock.
function Client:wait(what, check, limit)
  local deadline = task.now() + (limit or 20)
  while task.now() < deadline do
    local result = check()
    if result then return result end
    task.sleep(0.02)
  end
  error("waited in vain for " .. what, 2)
end

function Client:wait_task(id)
  return self:wait("task " .. tostring(id), function()
    local _, task_info = self:cs("GET", "/tasks/" .. id)
    return task_info.state ~= "running" and task_info
  end)
end

function Client:control(method, path, body)
  local record = json.decode(fs.read(self.dir .. "/credentials.json"))
  local reply, err = self.http:request { method = method, url = "http://sandbox.eirun.invalid" .. path,
    headers = { ["x-sandbox-token"] = record.control_token }, body = body and json.encode(body) }
  return reply and reply.status, reply and json.decode(reply.body) or err
end

function Client:stop()
  if self.http then self.http:close() end
  self.http = nil
  if self.vm then self.vm:stop() end
  self.vm = nil
  http.routes {} -- the tests after this one talk to servers of their own
end

-- The log, for a test that fails.
function Client:log() return fs.read(self.dir .. "/sandbox.log") or "" end

Client.__close = function(self)
  self:stop()
  if not self.keep then fs.remove(self.dir, { recursive = true }) end
end

-- options: { dir=, lag_scale=, lag=, seed=, keep=, kubeconfig=, parts={module names} }
function M.start(options)
  options = options or {}
  local dir = options.dir or assert(fs.mkdtemp "/tmp/eirun-test-")
  local state = vm.start { entry = "sandbox.main", args = json.encode { dir = dir, mode = options.mode or "inprocess",
    parts = options.parts, addons = options.addons,
    kubeconfig = options.kubeconfig, seed = options.seed or 1, lag_scale = options.lag_scale or 0.001, lag = options.lag } }
  local text, err = state:ready()
  if not text then error(err) end
  local info = json.decode(text)
  info.routes.closed = true
  http.routes(info.routes)
  return setmetatable({ dir = dir, vm = state, info = info, keep = options.keep, http = http.client { ca_file = info.ca_file },
    key = { id = info.access_key_id, secret = info.access_key_secret } }, Client)
end

return M
