-- SPDX-License-Identifier: Apache-2.0
-- A value that nobody knows yet: whatever is done with it gives another one, so that a playbook runs on without a cloud.
local unknown = {}

local function same()
  return unknown
end

local function yes()
  return true
end

local mt = {
  __name = "unknown",
  __tostring = function()
    return "<unknown>"
  end,
  __index = function(_, key)
    -- A list of one, so that loops run once and end.
    if math.type(key) == "integer" and key > 1 then
      return nil
    end
    return unknown
  end,
  __newindex = function() end,
  __call = same,
  __len = function()
    return 1
  end,
  __concat = function(a, b)
    return tostring(a) .. tostring(b)
  end,
  __close = function() end,
  __pairs = function()
    return function(_, key)
      if key == nil then
        return "unknown", unknown
      end
    end
  end,
  __lt = yes,
  __le = yes,
}
for _, name in ipairs { "add", "sub", "mul", "div", "mod", "pow", "unm", "idiv", "band", "bor", "bxor", "shl", "shr", "bnot" } do
  mt["__" .. name] = same
end

return setmetatable(unknown, mt)
