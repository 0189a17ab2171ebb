-- SPDX-License-Identifier: Apache-2.0
-- Resource quantities ("250m", "2Gi", "1e3") as exact integers of thousandths.
local quantity = {}

local BINARY = { Ki = 1 << 10, Mi = 1 << 20, Gi = 1 << 30, Ti = 1 << 40, Pi = 1 << 50, Ei = 1 << 60 }
local DECIMAL = { n = -9, u = -6, m = -3, [""] = 0, k = 3, M = 6, G = 9, T = 12, P = 15, E = 18 }
local MAX = math.maxinteger

local function mul(a, b)
  if a ~= 0 and math.abs(a) > MAX // b then return a < 0 and -MAX or MAX end
  return a * b
end

local function div_up(a, b)
  return -(-a // b)
end

-- digits with `fraction` decimal places, times 10^exponent, in thousandths (rounded away from zero).
local function scaled(digits, exponent)
  local power = exponent + 3
  if power >= 0 then
    for _ = 1, power do digits = mul(digits, 10) end
    return digits
  end
  local negative = digits < 0
  local n = math.abs(digits)
  for _ = 1, -power do n = div_up(n, 10) end
  return negative and -n or n
end

local function split(text)
  local sign, whole, fraction, suffix = text:match("^([+-]?)(%d*)%.?(%d*)(.*)$")
  if not whole or (whole == "" and fraction == "") then return nil end
  local digits = math.tointeger(tonumber(whole .. fraction:gsub("0+$", ""))) or (whole .. fraction ~= "" and MAX)
  return sign == "-" and -digits or digits, #fraction:gsub("0+$", ""), suffix
end

-- Thousandths of the quantity, or nil when the text is none.
function quantity.milli(q)
  if math.type(q) == "integer" then return mul(q, 1000) end
  if type(q) == "number" then q = string.format("%.9f", q) end
  if type(q) ~= "string" then return nil end
  local digits, places, suffix = split(q)
  if not digits then return nil end
  if BINARY[suffix] then return scaled(mul(digits, BINARY[suffix]), -places) end
  local exponent = DECIMAL[suffix] or math.tointeger(tonumber(suffix:match("^[eE]([+-]?%d+)$")))
  if not exponent or math.abs(exponent) > 30 then return nil end
  return scaled(digits, exponent - places)
end

function quantity.valid(q)
  return quantity.milli(q) ~= nil
end

-- Whole units, rounded up, as the scheduler counts memory and GPUs; nil when it is no quantity.
function quantity.value(q)
  local milli = quantity.milli(q)
  return milli and div_up(milli, 1000)
end

-- The shortest decimal text of so many thousandths: "12500m", "10".
function quantity.from_milli(milli)
  if milli % 1000 ~= 0 then return string.format("%dm", milli) end
  local n, suffixes, i = milli // 1000, { "", "k", "M", "G", "T", "P", "E" }, 1
  while n ~= 0 and n % 1000 == 0 and suffixes[i + 1] do
    n, i = n // 1000, i + 1
  end
  return n .. suffixes[i]
end

-- The shortest text of so many thousandths, in powers of two when it is to be and can be: "12500m", "10", "1536Mi".
function quantity.text(milli, binary)
  if not binary or milli % 1000 ~= 0 then return quantity.from_milli(milli) end
  local n, names, i = milli // 1000, { "", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei" }, 1
  while n ~= 0 and n % 1024 == 0 and names[i + 1] do
    n, i = n // 1024, i + 1
  end
  return n .. names[i]
end

-- The text that the API server stores for a quantity: bytes in powers of two when it was given so.
function quantity.canonical(q)
  local milli = quantity.milli(q)
  return milli and quantity.text(milli, type(q) == "string" and q:find "[KMGTPE]i$" ~= nil) or q
end

return quantity
