-- SPDX-License-Identifier: Apache-2.0
-- Pages by number, by token and by offset: the answer itself tells which of them its product speaks.
local errors = require "eirun.errors"
local json = require "eirun.core.json"

local M = {}

local function list_like(value)
  return type(value) == "table" and json.is_array(value)
end

-- Lists of the pages joined; of everything else the last page's word stands.
local function merge(into, page)
  for key, value in pairs(page) do
    local had = into[key]
    if list_like(value) and list_like(had) then
      table.move(value, 1, #value, #had + 1, had)
    elseif type(value) == "table" and type(had) == "table" and not list_like(value) and not list_like(had) then
      merge(had, value)
    else
      into[key] = value
    end
  end
end

-- Items on a page: the longest list in it.
local function count(page, depth)
  local most = 0
  for _, value in pairs(page) do
    if list_like(value) then
      most = math.max(most, #value)
    elseif type(value) == "table" and depth > 0 then
      most = math.max(most, count(value, depth - 1))
    end
  end
  return most
end

-- answer's field -> the query's
local tokens = { NextToken = "NextToken", next_token = "next_token", nextToken = "nextToken", Marker = "Marker" }

local function by_token(answer)
  for field, parameter in pairs(tokens) do
    local token = answer[field]
    if type(token) == "string" and token ~= "" then return { [parameter] = token } end
  end
  local offset = math.tointeger(answer.NextOffset)
  if offset and offset > 0 then return { Offset = offset } end
end

-- Where the three kinds of answers tell their page, its size and the whole.
local function numbers(answer)
  if type(answer.page) == "table" then
    return answer.page.page_number, answer.page.page_size, answer.page.total_count, "pageNumber"
  elseif type(answer.page_info) == "table" then
    return answer.page_info.page_number, answer.page_info.page_size, answer.page_info.total_count, "page_number"
  end
  return answer.PageNumber, answer.PageSize, answer.TotalCount, "PageNumber"
end

local function by_number(answer)
  local number, size, total, parameter = numbers(answer)
  number, size, total = tonumber(number), tonumber(size), tonumber(total)
  if not (number and size and total) or size < 1 or number * size >= total or count(answer, 3) == 0 then return nil end
  return { [parameter] = math.tointeger(number) + 1 }
end

---What to add to the query for the page after this one; nil when it was the last.
---@param answer table
---@return table<string, any>|nil
function M.next_page(answer)
  return by_token(answer) or by_number(answer)
end

local function forget_marks(answer)
  for field in pairs(tokens) do answer[field] = nil end
  answer.NextOffset = nil
end

---All pages as one answer.
---@param fetch fun(page: table<string, any>): table
---@return table
function M.all(fetch)
  local whole, page, seen = nil, {}, {}
  repeat
    local answer = fetch(page)
    if type(answer) ~= "table" then return answer end
    page = M.next_page(answer)
    local mark = page and json.encode(page)
    if mark and seen[mark] then errors.raise("internal", "the server names the same next page twice: " .. mark) end
    seen[mark or ""] = true
    if whole then merge(whole, answer) else whole = answer end
  until not page
  forget_marks(whole)
  return whole
end

return M
