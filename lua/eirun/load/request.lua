-- SPDX-License-Identifier: Apache-2.0
-- The bytes of each request, made once before the run, and the address they go to.
local core_load = require "eirun.core.load"
local core_secret = require "eirun.core.secret"
local errors = require "eirun.errors"
local spec = require "eirun.spec"

local M = {}

local default_port = { http = 80, https = 443 }

local function parse_authority(authority, url)
  local host, port = authority:match("^%[([%x:.]+)%]:?(%d*)$")
  if not host then host, port = authority:match("^([%w_.-]+):?(%d*)$") end
  if not host then spec.fail("load.run", ("url '%s' has no readable host"):format(url)) end
  return host:lower(), port ~= "" and math.tointeger(tonumber(port)) or nil
end

---Takes a URL apart.
---@param url string
---@return {scheme: string, host: string, port: integer, authority: string, path: string}
---Raises kind "invalid".
function M.parse_url(url)
  local scheme, authority, path = url:match("^(%a+)://([^/?#%s]+)([^#%s%c]*)$")
  if not scheme then spec.fail("load.run", ("url '%s' is not like http://host:port/path"):format(url)) end
  scheme = scheme:lower()
  if not default_port[scheme] then spec.fail("load.run", ("url '%s': only http and https are spoken here, not %s"):format(url, scheme)) end
  local host, port = parse_authority(authority, url)
  port = port or default_port[scheme]
  if port < 1 or port > 65535 then spec.fail("load.run", ("url '%s': a port is between 1 and 65535"):format(url)) end
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  return { scheme = scheme, host = host, port = port, authority = authority, path = path }
end

-- Addresses that belong to this machine or to a private network: RFC 1918, 6598, 3927, 4193, 4291.
local function is_private(address)
  local a, b = address:match("^(%d+)%.(%d+)%.")
  a, b = tonumber(a), tonumber(b)
  if a then
    return a == 127 or a == 10 or (a == 172 and b >= 16 and b < 32) or (a == 192 and b == 168) or (a == 100 and b >= 64 and b < 128)
      or (a == 169 and b == 254)
  end
  return address == "::1" or address:find("^f[cd]%x%x:") ~= nil or address:find("^fe[89ab]%x:") ~= nil
end

local function allowed(allow, host)
  if allow == true then return true end
  for _, name in ipairs(type(allow) == "table" and allow or {}) do
    if name:lower() == host then return true end
  end
  return false
end

-- Where somebody said they go, or where the name leads. A closed route table lets nothing pass it.
local function place_of(opts, target)
  if not opts.connect_to then return errors.check(core_load.resolve(target.host, target.port)) end
  local path = opts.connect_to:match("^unix:(.+)$")
  if path then return { unix = path } end
  local host, port = opts.connect_to:match("^%[?([%w.:-]-)%]?:(%d+)$")
  port = host and math.tointeger(tonumber(port))
  if not port or port < 1 or port > 65535 then
    spec.fail("load.run", ("connect_to '%s' is neither unix:/path nor address:port"):format(opts.connect_to))
  end
  return errors.check(core_load.resolve(host, port))
end

---Where the requests go. Sockets of this machine are ours; other addresses must be private or allowed.
---@param opts table
---@param target table the parts of its URL; gets unix, or address and port
---Raises kind "invalid", "denied", "not_found" or "network" (the name cannot be resolved).
function M.locate(opts, target)
  local place = place_of(opts, target)
  target.unix, target.address, target.port = place.unix, place.address, place.port
  if not place.routed and not place.unix and not is_private(place.address) and not allowed(opts.allow, target.host) then
    errors.raise("denied", ("%s is a public address: a load test needs an allowance for it"):format(target.host),
      { hint = ("where it is yours to load, say allow = { \"%s\" }, or --allow %s"):format(target.host, target.host) })
  end
end

local function header_list(headers)
  local list = {}
  for key, value in pairs(headers) do
    list[#list + 1] = type(key) == "number" and { value[1], value[2] } or { key, value }
  end
  if #headers == 0 then table.sort(list, function(a, b) return a[1] < b[1] end) end
  return list
end

local function check_header(name, value)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    spec.fail("load.run", ("header name '%s' is not a token"):format(tostring(name)))
  end
  if type(value) == "string" and value:find("[\r\n\0]") then spec.fail("load.run", ("header %s holds a line end"):format(name)) end
end

-- Given ones win over ours, whatever their case.
local function all_headers(opts, target, body_length)
  local given, seen = header_list(opts.headers or {}), {}
  for _, header in ipairs(given) do
    check_header(header[1], header[2])
    seen[header[1]:lower()] = true
  end
  local list = {}
  local function add(name, value)
    if not seen[name:lower()] then list[#list + 1] = { name, value } end
  end
  add("Host", target.authority)
  add("User-Agent", "eirun-load")
  if body_length then
    if seen["content-length"] or seen["transfer-encoding"] then
      spec.fail("load.run", "Content-Length and Transfer-Encoding follow from the body")
    end
    add("Content-Type", "application/json")
    add("Content-Length", tostring(body_length))
  end
  if not opts.keep_alive then add("Connection", "close") end
  table.move(given, 1, #given, #list + 1, list)
  return list
end

local function join(parts)
  for _, part in ipairs(parts) do
    if type(part) ~= "string" then return core_secret.concat(table.unpack(parts)) end
  end
  return table.concat(parts)
end

local function one_request(opts, target, body)
  local method = opts.method or (body and "POST" or "GET")
  local parts = { method, " ", target.path, " HTTP/1.1\r\n" }
  for _, header in ipairs(all_headers(opts, target, body and #body)) do
    for _, part in ipairs { header[1], ": ", header[2], "\r\n" } do parts[#parts + 1] = part end
  end
  parts[#parts + 1] = "\r\n"
  if body then parts[#parts + 1] = body end
  return join(parts)
end

---The complete bytes of every request, taken in turn by the engine.
---@param opts table
---@param target table
---@return any[] requests strings, or secrets where a part of them is one
function M.build(opts, target)
  if opts.body ~= nil and opts.bodies then spec.fail("load.run", "give body or bodies, not both") end
  if opts.bodies and #opts.bodies == 0 then spec.fail("load.run", "bodies is empty") end
  if not opts.bodies then return { one_request(opts, target, opts.body) } end
  local requests = {}
  for i, body in ipairs(opts.bodies) do requests[i] = one_request(opts, target, body) end
  return requests
end

local made_fields = {
  method = { type = "string", match = "^%u+$", says = "a method in capitals" }, path = { type = "string", match = "^/", says = "a path" },
  headers = { type = "table" }, body = { type = "string" },
}

---The bytes of the request that `opts.request(i)` describes; what it leaves out is as in the options.
---@param opts table
---@param target table
---@param i integer from 1 on
---@return string|eirun.Secret
---Raises what the function raises, and kind "invalid" for a request that is none.
function M.make(opts, target, i)
  local made = spec.check(("load.run.request(%d)"):format(i), opts.request(i), made_fields)
  local full = setmetatable({ method = made.method, headers = made.headers }, { __index = opts })
  return one_request(full, setmetatable({ path = made.path }, { __index = target }), made.body or opts.body)
end

return M
