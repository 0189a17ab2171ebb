-- SPDX-License-Identifier: Apache-2.0
-- The environment's proxy for an API server, by kubectl's rules: HTTPS_PROXY and HTTP_PROXY, NO_PROXY with names, addresses, networks and
-- ports, and never for this machine. By the server's own name, also where the certificate is checked against another one.
local config = require "eirun.kube.config"
local os_core = require "eirun.core.os"

local M = {}

local function environment(name)
  for _, spelled in ipairs { name, name:lower() } do
    local value = os_core.getenv(spelled)
    if value and value ~= "" then return value end
  end
end

local function address_of(text)
  local a, b, c, d = text:match "^(%d+)%.(%d+)%.(%d+)%.(%d+)$"
  return a and (tonumber(a) << 24 | tonumber(b) << 16 | tonumber(c) << 8 | tonumber(d))
end

local function in_network(host, text)
  local network, bits = text:match "^([%d.]+)/(%d+)$"
  local address, base = address_of(host), network and address_of(network)
  if not address or not base then return false end
  local shift = 32 - tonumber(bits)
  return address >> shift == base >> shift
end

-- `example.com` is it and what is below it, `.example.com` and `*.example.com` only what is below.
local function is_named(host, text)
  local below = text:match "^%*?(%..+)$"
  if below then return host:sub(-#below) == below end
  return host == text or host:sub(-#text - 1) == "." .. text
end

local function is_spared(host, port)
  for entry in (environment "NO_PROXY" or ""):lower():gmatch "[^%s,]+" do
    local name, only = entry:match "^%[?([^%]]-)%]?:(%d+)$"
    if not name or name:find ":" and not entry:find "^%[" then name, only = entry:match "^%[?([^%]]*)", nil end
    if entry == "*" or (not only or only == port) and (in_network(host, name) or is_named(host, name)) then return true end
  end
  return false
end

---The proxy to go through to a server, nil for none.
---@param server string a URL
---@return string|nil url
---Example: `proxy.of "https://10.0.0.1:6443"`. Raises nothing.
function M.of(server)
  local scheme, rest = server:match "^(https?)://([^/]+)"
  if not scheme or config.is_loopback(server) then return nil end
  local host, port = rest:match "^%[?([^%]]-)%]?:(%d+)$"
  host, port = (host or rest:match "^%[?([^%]]*)"):lower(), port or (scheme == "https" and "443" or "80")
  local proxy = environment(scheme:upper() .. "_PROXY") or environment "ALL_PROXY"
  if not proxy or is_spared(host, port) then return nil end
  return proxy:find("://", 1, true) and proxy or "http://" .. proxy
end

return M
