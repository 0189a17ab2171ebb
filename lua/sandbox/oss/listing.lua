-- SPDX-License-Identifier: Apache-2.0
-- One page of a sorted list of names, with prefixes folded at a delimiter. Pure: it knows neither HTTP nor disk.
local M = {}

-- The smallest text that is greater than every text beginning with `prefix`; nil when there is none.
function M.after_prefix(prefix)
  local body = prefix:gsub("\255+$", "")
  if body == "" then return nil end
  return body:sub(1, -2) .. string.char(body:byte(-1) + 1)
end

-- Index of the first of `keys` that is not below `key`.
function M.place(keys, key)
  local low, high = 1, #keys + 1
  while low < high do
    local middle = (low + high) // 2
    if keys[middle] < key then low = middle + 1 else high = middle end
  end
  return low
end

-- Where a page begins. A marker that is itself a folded prefix stands for everything under it.
local function first_index(keys, base, options)
  local at = M.place(keys, base .. options.prefix)
  local marker = options.marker
  if marker == "" then return at end
  local delimiter = options.delimiter
  local past
  if delimiter ~= "" and marker:sub(-#delimiter) == delimiter and marker:sub(1, #options.prefix) == options.prefix
    and #marker > #options.prefix then
    past = M.after_prefix(base .. marker)
  end
  local from = M.place(keys, past or base .. marker)
  if not past and keys[from] == base .. marker then from = from + 1 end
  return math.max(at, from)
end

local function folded(name, options)
  if options.delimiter == "" then return nil end
  local _, stop = name:find(options.delimiter, #options.prefix + 1, true)
  return stop and name:sub(1, stop)
end

---@param keys string[] sorted; those of interest begin with `base`
---@param base string "bucket/"
---@param options {prefix: string, delimiter: string, marker: string, max: integer}
---@return table page { items = { {name=} | {prefix=} ... }, truncated, last } in order
function M.page(keys, base, options)
  local page = { items = {}, truncated = false, last = nil }
  local at, limit = first_index(keys, base, options), base .. options.prefix
  while keys[at] and keys[at]:sub(1, #limit) == limit do
    if #page.items >= options.max then
      page.truncated = true
      break
    end
    local name = keys[at]:sub(#base + 1)
    local prefix = folded(name, options)
    page.items[#page.items + 1] = prefix and { prefix = prefix } or { name = name }
    page.last = prefix or name
    local past = prefix and M.after_prefix(base .. prefix)
    at = past and M.place(keys, past) or (prefix and #keys + 1) or at + 1
  end
  return page
end

return M
