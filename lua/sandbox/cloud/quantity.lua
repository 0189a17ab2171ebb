-- SPDX-License-Identifier: Apache-2.0
-- Kubernetes quantities in thousandths, as whole numbers: "100m" is 100, "1" is 1000, "1Ki" is 1024000.
local quantity = {}

local factors = { n = 1e-9, u = 1e-6, m = 1e-3, [""] = 1, k = 1e3, M = 1e6, G = 1e9, T = 1e12, P = 1e15, E = 1e18,
  Ki = 2 ^ 10, Mi = 2 ^ 20, Gi = 2 ^ 30, Ti = 2 ^ 40, Pi = 2 ^ 50, Ei = 2 ^ 60 }

-- nil for what is not a quantity.
function quantity.milli(value)
  if type(value) == "number" then return math.ceil(value * 1000) end
  if type(value) ~= "string" then return nil end
  local number, suffix = value:match "^([+-]?[%d%.]+)(%a*)$"
  if not number then
    number, suffix = value:match "^([+-]?[%d%.]+[eE][+-]?%d+)$", ""
  end
  local factor = factors[suffix or ""]
  if not tonumber(number) or not factor then return nil end
  return math.ceil(tonumber(number) * factor * 1000 - 1e-9)
end

-- Sum of maps resource -> milli.
function quantity.add(into, from, sign)
  for name, value in pairs(from) do into[name] = (into[name] or 0) + (sign or 1) * value end
  return into
end

-- Map of texts to map of thousandths.
function quantity.map(texts)
  local map = {}
  for name, text in pairs(texts or {}) do map[name] = quantity.milli(text) or 0 end
  return map
end

return quantity
