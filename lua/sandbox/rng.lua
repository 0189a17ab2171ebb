-- SPDX-License-Identifier: Apache-2.0
-- Streams of random numbers, one per name: a service that draws more does not disturb its neighbours, so
-- the same seed gives the same events. xoshiro256** seeded by splitmix64 (Blackman and Vigna, public domain).
local rng = {}

-- FNV-1a, 64 bits: spreads a short name over a seed; not for security.
function rng.hash(text)
  local h = 0xcbf29ce484222325
  for i = 1, #text do h = (h ~ text:byte(i)) * 0x100000001b3 end
  return h
end

local function splitmix(state)
  return function()
    state = state + 0x9e3779b97f4a7c15
    local z = state
    z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ~ (z >> 27)) * 0x94d049bb133111eb
    return z ~ (z >> 31)
  end
end

local function rotate(x, k) return (x << k) | (x >> (64 - k)) end

local function generator(name)
  local seed = splitmix(rng.hash(name))
  local a, b, c, d = seed(), seed(), seed(), seed()
  return function()
    local result = rotate(b * 5, 7) * 9
    local t = b << 17
    c, d = c ~ a, d ~ b
    b, a = b ~ c, a ~ d
    c, d = c ~ t, rotate(d, 45)
    return result
  end
end

-- A function that is called as math.random is: (), (m), (m, n).
function rng.stream(name)
  local bits = generator(name)
  return function(m, n)
    local fraction = (bits() >> 11) * (0.5 ^ 53)
    if not m then return fraction end
    if not n then m, n = 1, m end
    return m + math.floor(fraction * (n - m + 1))
  end
end

local digits = { hex = "0123456789abcdef", base36 = "0123456789abcdefghijklmnopqrstuvwxyz" }

-- `length` characters of an alphabet ("hex" or "base36") that depend on `name` alone.
function rng.text(name, length, alphabet)
  local letters = digits[alphabet or "base36"]
  local draw = rng.stream(name)
  local out = {}
  for i = 1, length do
    local at = draw(#letters)
    out[i] = letters:sub(at, at)
  end
  return table.concat(out)
end

return rng
