-- SPDX-License-Identifier: Apache-2.0
-- The bytes of each request, made once before the run, and the address they go to.
local core_load = require "eirun.core.load"
local core_secret = require "eirun.core.secret"
local errors = require "eirun.errors"
local form = require "eirun.load.form"
local fs = require "eirun.core.fs"
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
  if not scheme then
    local bare = url:find("^[%w.%[%]:-]+[:/]?") and not url:find("://", 1, true) and not url:find("[%s%c]")
    local meant = bare and ("; did you mean http://%s?"):format(url) or ""
    spec.fail("load.run", ("url '%s' is not like http://host:port/path%s"):format(url, meant))
  end
  scheme = scheme:lower()
  if not default_port[scheme] then spec.fail("load.run", ("url '%s': only http and https are spoken here, not %s"):format(url, scheme)) end
  local host, port = parse_authority(authority, url)
  port = port or default_port[scheme]
  if port < 1 or port > 65535 then spec.fail("load.run", ("url '%s': a port is between 1 and 65535"):format(url)) end
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  return { scheme = scheme, host = host, port = port, authority = authority, path = path }
end

-- Addresses that belong to this machine or to a private network: RFC 1918, 6598, 3927, 4193, 4291. Connecting to the address that
-- names none leads to this machine.
local function is_private(address)
  address = address:lower():match "^::ffff:(%d+%.%d+%.%d+%.%d+)$" or address
  if address == "0.0.0.0" or address == "::" then return true end
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
  local place = errors.check(core_load.resolve(host, port))
  place.host = host:lower()
  return place
end

local function all_private(addresses)
  for _, address in ipairs(addresses) do
    if not is_private(address) then return false end
  end
  return true
end

---Where the requests go. Sockets of this machine are ours; other addresses must be private or allowed.
---@param opts table
---@param target table the parts of its URL; gets unix, or addresses and port
---Raises kind "invalid", "denied", "not_found" or "network" (the name cannot be resolved).
function M.locate(opts, target)
  local place = place_of(opts, target)
  target.unix, target.addresses, target.port = place.unix, place.addresses, place.port
  local ours = place.routed or place.unix or all_private(place.addresses)
  local host = place.host or target.host
  if not ours and not allowed(opts.allow, target.host) and not allowed(opts.allow, host) then
    errors.raise("denied", ("%s is a public address: a load test needs an allowance for it"):format(host),
      { code = "guard", hint = ("where it is yours to load, say allow = { \"%s\" }, or --allow %s"):format(host, host) })
  end
end

local function header_list(headers)
  local list = {}
  for key, value in pairs(headers) do
    if type(key) == "number" and type(value) ~= "table" then
      spec.fail("load.run", ("headers[%d] must be { name, value }, got a %s"):format(key, type(value)))
    end
    list[#list + 1] = type(key) == "number" and { value[1], value[2] } or { key, value }
  end
  if #headers == 0 then table.sort(list, function(a, b) return a[1] < b[1] end) end
  return list
end

local function check_header(name, value)
  if type(name) ~= "string" or not name:find("^[%w!#$%%&'*+.^_`|~-]+$") then
    spec.fail("load.run", ("header name '%s' is not a token"):format(tostring(name)))
  end
  if type(value) ~= "string" and type(value) ~= "userdata" then
    spec.fail("load.run", ("header %s must have a string or a secret, got %s"):format(name, type(value)))
  end
  if type(value) == "string" and value:find("[\r\n\0]") then spec.fail("load.run", ("header %s holds a line end"):format(name)) end
end

-- Given ones win over ours, whatever their case.
local function all_headers(opts, target, body_length, content_type)
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
    if content_type and seen["content-type"] then spec.fail("load.run", "Content-Type follows from the form") end
    add("Content-Type", content_type or "application/json")
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

local function one_request(opts, target, body, content_type)
  local method = opts.method or (body and "POST" or "GET")
  local parts = { method, " ", target.path, " HTTP/1.1\r\n" }
  for _, header in ipairs(all_headers(opts, target, body and #body, content_type)) do
    for _, part in ipairs { header[1], ": ", header[2], "\r\n" } do parts[#parts + 1] = part end
  end
  parts[#parts + 1] = "\r\n"
  if body then parts[#parts + 1] = body end
  return join(parts)
end

local largest_file = 64 << 20

---The bytes of a file that is sent as a body.
---@param path string
---@return string
---Raises what reading it raises.
function M.file(path)
  return errors.check(fs.read(path, largest_file))
end

---The complete bytes of every request, taken in turn by the engine.
---@param opts table
---@param target table
---@return any[] requests strings, or secrets where a part of them is one
function M.build(opts, target)
  local given = (opts.body ~= nil and 1 or 0) + (opts.bodies and 1 or 0) + (opts.body_file and 1 or 0) + (opts.form and 1 or 0)
  if given > 1 then spec.fail("load.run", "give one of body, bodies, body_file and form") end
  if opts.form then return { one_request(opts, target, form.build(opts.form)) } end
  if opts.body_file then return { one_request(opts, target, M.file(opts.body_file)) } end
  if opts.bodies and #opts.bodies == 0 then spec.fail("load.run", "bodies is empty") end
  if not opts.bodies then return { one_request(opts, target, opts.body) } end
  local requests = {}
  for i, body in ipairs(opts.bodies) do
    if type(body) ~= "string" then spec.fail("load.run", ("bodies[%d] must be a string, got %s"):format(i, type(body))) end
    requests[i] = one_request(opts, target, body)
  end
  return requests
end

local made_fields = {
  method = { type = "string", match = "^%u+$", says = "a method in capitals" },
  path = { type = "string", match = "^/[^%s%c]*$", says = "a path" },
  headers = { type = "table" }, body = { type = "string" }, target = { type = "any" },
}

local function target_of(made, targets, i)
  if made.target == nil then return nil end
  for index, target in ipairs(targets) do
    if made.target == index or made.target == target.name then return index end
  end
  spec.fail(("load.run.request(%d)"):format(i), ("target '%s' is neither a number nor a name of one"):format(tostring(made.target)))
end

---The bytes of the request that `run.request(i)` describes; what it leaves out is as in the options.
---@param run {request: function, targets: table[], turns?: integer[]}
---@param i integer from 1 on
---@return string|eirun.Secret
---@return integer target
---Raises what the function raises, and kind "invalid" for a request that is none.
function M.make(run, i)
  local made = spec.check(("load.run.request(%d)"):format(i), run.request(i), made_fields)
  local index = target_of(made, run.targets, i) or run.turns and run.turns[(i - 1) % #run.turns + 1] or 1
  local target = run.targets[index]
  local opts = setmetatable({ method = made.method, headers = made.headers }, { __index = target.opts })
  return one_request(opts, setmetatable({ path = made.path }, { __index = target }), made.body or target.opts.body), index
end

local most_targets = 64
local target_rules = {
  url = { type = "string", required = true }, name = { type = "string" }, weight = { type = "integer", min = 1, max = 1000 },
  method = { type = "string", match = "^%u+$", says = "a method in capitals" }, headers = { type = "table" }, body = { type = "string" },
  bodies = { type = "list" }, body_file = { type = "string" }, form = { type = "list" }, connect_to = { type = "string" },
}

---The targets of a run, each with what its own entry says and the run's options behind it.
---@param opts table with url or targets
---@return table[] targets with name, url, weight, opts and the parts of the URL
---Raises kind "invalid".
function M.targets(opts)
  if (opts.url == nil) == (opts.targets == nil) then spec.fail("load.run", "give url or targets") end
  if opts.targets and #opts.targets == 0 then spec.fail("load.run", "targets is empty") end
  if opts.targets and #opts.targets > most_targets then
    spec.fail("load.run", ("%d targets are more than %d"):format(#opts.targets, most_targets))
  end
  local list = {}
  for i, given in ipairs(opts.targets or { { url = opts.url } }) do
    spec.check(("load.run.targets[%d]"):format(i), given, target_rules)
    local target = M.parse_url(given.url)
    target.name, target.url, target.weight = given.name or given.url, given.url, given.weight or 1
    target.opts = setmetatable(given.url == opts.url and {} or given, { __index = opts })
    list[i] = target
  end
  return list
end

---A round of turns in which each target has as many as it weighs, as evenly mixed as can be (smooth weighted round robin).
---@param targets {weight: integer}[]
---@return integer[]|nil turns nil for one target
---Example: `request.turns { { weight = 2 }, { weight = 1 } } --> { 1, 2, 1 }`. Raises nothing.
function M.turns(targets)
  if #targets < 2 then return nil end
  local credit, total, turns = {}, 0, {}
  for i, target in ipairs(targets) do credit[i], total = 0, total + target.weight end
  for n = 1, total do
    local best = 1
    for i, target in ipairs(targets) do
      credit[i] = credit[i] + target.weight
      if credit[i] > credit[best] then best = i end
    end
    credit[best] = credit[best] - total
    turns[n] = best
  end
  return turns
end

return M
