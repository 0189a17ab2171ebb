-- SPDX-License-Identifier: Apache-2.0
-- Host patterns: an exact name, an address, or "*." and a suffix. The longest match wins.
local hosts = {}

-- "cs.example.com:8080" -> "cs.example.com"; brackets of an IPv6 literal go too.
function hosts.bare(host)
  if not host then return nil end
  local name = host:match "^%[(.-)%]" or host:match "^([^:]*)"
  return (name:lower():gsub("%.$", ""))
end

function hosts.matches(pattern, name)
  if pattern:sub(1, 2) ~= "*." then return pattern == name end
  local suffix = pattern:sub(2)
  return #name > #suffix and name:sub(-#suffix) == suffix
end

-- The entry of `list` ({ {host=pattern, ...}, ... }) that fits best, or nil.
function hosts.find(list, name)
  local best
  for _, entry in ipairs(list) do
    local exact = entry.host == name
    if exact then return entry end
    if hosts.matches(entry.host, name) and (not best or #entry.host > #best.host) then best = entry end
  end
  return best
end

return hosts
