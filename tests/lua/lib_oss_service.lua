-- SPDX-License-Identifier: Apache-2.0
-- The object store without its sockets: requests are tables, bodies go through real files.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local oss_sign = require "sandbox.oss.sign"
local oss = require "sandbox.oss"
local times = require "sandbox.times"
local world = require "sandbox.world"
local xml = require "sandbox.oss.xml"

local M = {}

local host = "eirun-sandbox-models.oss-cn-hangzhou.aliyuncs.com"

local function header_list(list)
  function list:get(name)
    for _, pair in ipairs(self) do
      if pair[1]:lower() == name:lower() then return pair[2] end
    end
  end
  return list
end

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function fake_request(given)
  local path, query = given.target:match "^([^?]*)%??(.*)$"
  local req = { method = given.method, path = path, headers = header_list(given.headers), reply = nil }
  function req:query_list()
    local list = {}
    for name, value in query:gmatch "([^&=]+)=?([^&]*)" do list[#list + 1] = { decode(name), decode(value) } end
    return list
  end
  function req:body() return given.body or "" end
  function req:abort() self.aborted = true end
  function req:body_to_file(file_path, options)
    if given.cut or #given.body > options.max then return nil, { kind = "network", message = "cut" } end
    fs.write(file_path, given.body or "", { atomic = false })
    return { size = #given.body, md5 = crypto.md5(given.body), crc64 = crypto.crc64(given.body) }
  end
  function req:respond(status, headers, body)
    if self.aborted then return end
    self.reply = { status = status, headers = header_list(headers), body = body }
  end
  function req:respond_file(status, headers, file_path, offset, length)
    self:respond(status, headers, fs.read(file_path):sub(offset + 1, offset + length))
  end
  return req
end

-- A store in a world of its own; `ask` signs with V1 and answers { status, headers, body }.
local function service()
  local ctx = world.new { dir = fs.mkdtemp "/tmp/eirun-test-oss-" }
  local handle = oss.handler(ctx)
  local self = { ctx = ctx }
  function self.ask(method, target, options)
    options = options or {}
    local headers = { { "Host", options.host or host }, { "x-oss-date", times.http(ctx.now()) } }
    for name, value in pairs(options.headers or {}) do headers[#headers + 1] = { name, value } end
    if options.body then headers[#headers + 1] = { "Content-Length", tostring(#options.body) } end
    local req = fake_request { method = method, target = target, headers = headers, body = options.body, cut = options.cut }
    local bucket = options.bucket
    if bucket == nil then bucket = (options.host or host):match "^([^.]+)%.oss%-" end
    local key = decode(req.path:sub(2))
    if options.path_style then bucket, key = req.path:match "^/([^/]+)/?(.*)$" end
    local text = oss_sign.canonical_v1({ method = method, bucket = bucket or nil, key = key, query = req:query_list(), headers = headers },
      times.http(ctx.now()))
    local secret = options.secret or ctx.access_key_secret
    if not options.anonymous then
      headers[#headers + 1] = { "Authorization", "OSS " .. (options.id or ctx.access_key_id) .. ":"
        .. crypto.base64(crypto.hmac_sha1(secret, text)) }
    end
    handle(req)
    return req.reply
  end
  function self.close()
    ctx.store:close()
    fs.remove(ctx.dir, { recursive = true })
  end
  return self
end

local function with_service(fn)
  return function()
    local s = service()
    local ok, err = xpcall(fn, function(e) return type(e) == "string" and debug.traceback(e) or e end, s)
    s.close()
    if not ok then error(err, 0) end
  end
end

local function code_of(reply) return xml.text(xml.parse(reply.body), "Code") end
local function put(s, key, body, headers) return s.ask("PUT", "/" .. key, { body = body, headers = headers }) end

M.host, M.with_service, M.code_of, M.put, M.decode = host, with_service, code_of, put, decode

return M
