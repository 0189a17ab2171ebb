-- SPDX-License-Identifier: Apache-2.0
-- kubectl's shapes: its tables, its JSON and YAML, names, templates and columns.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local jsonpath = require("eirun.later") "eirun.kube.jsonpath"

local M = {}

-- Tables --------------------------------------------------------------------------------------------------------------

local MIN_WIDTH, PADDING = 6, 3

local function width_of(text)
  return utf8.len(text) or #text
end

-- Only the first line of a cell is shown.
local function cell_text(cell)
  if cell == nil or cell == json.null then return "" end
  local text = type(cell) == "string" and cell or jsonpath.text(cell)
  local first = text:match "^[^\f\n\r]*"
  return #first < #text and first .. "..." or text
end

---Columns as Go's tabwriter sets them for kubectl: three blanks between, six characters at least; widths are remembered in `widths`.
---@param rows string[][]
---@param widths? integer[]
---@return string
function M.align(rows, widths)
  widths = widths or {}
  for _, row in ipairs(rows) do
    for i = 1, #row - 1 do widths[i] = math.max(widths[i] or MIN_WIDTH, width_of(row[i]) + PADDING) end
  end
  local lines = {}
  for n, row in ipairs(rows) do
    local parts = {}
    for i = 1, #row - 1 do parts[i] = row[i] .. (" "):rep(widths[i] - width_of(row[i])) end
    parts[#row] = row[#row]
    lines[n] = table.concat(parts) .. "\n"
  end
  return table.concat(lines)
end

local function labels_text(labels)
  local keys, list = {}, {}
  for key in pairs(labels or {}) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do list[i] = key .. "=" .. labels[key] end
  return #list > 0 and table.concat(list, ",") or "<none>"
end

local function label_columns(options)
  local list = {}
  for _, text in ipairs(options.label_columns or {}) do
    for key in text:gmatch "[^,]+" do list[#list + 1] = key end
  end
  return list
end

---@class eirun.kube.View
---@field wide? boolean
---@field namespace? boolean a column of namespaces first
---@field prefix? string before each name, as "pod/"
---@field show_labels? boolean
---@field label_columns? string[]

---The heading of a table of the server's.
---@param columns table[]
---@param view eirun.kube.View
---@return string[]
function M.heading(columns, view)
  local row = { view.namespace and "NAMESPACE" or nil }
  for _, column in ipairs(columns) do
    if view.wide or (column.priority or 0) == 0 then row[#row + 1] = column.name:upper() end
  end
  for _, key in ipairs(label_columns(view)) do row[#row + 1] = key:match("[^/]*$"):upper() end
  if view.show_labels then row[#row + 1] = "LABELS" end
  return row
end

---One row of a table of the server's.
---@param columns table[]
---@param row table
---@param view eirun.kube.View
---@return string[]
function M.row(columns, row, view)
  local metadata = (row.object or {}).metadata or {}
  local cells = { view.namespace and (metadata.namespace or "") or nil }
  for i, column in ipairs(columns) do
    if view.wide or (column.priority or 0) == 0 then
      local text = cell_text(row.cells[i])
      cells[#cells + 1] = i == 1 and view.prefix and view.prefix .. text or text
    end
  end
  for _, key in ipairs(label_columns(view)) do cells[#cells + 1] = (metadata.labels or {})[key] or "" end
  if view.show_labels then cells[#cells + 1] = labels_text(metadata.labels) end
  return cells
end

---A time since then as kubectl says it: 12s, 5m3s, 3h10m, 2d3h, 400d.
---@param seconds number
---@return string
function M.age(seconds)
  local s = math.floor(seconds)
  if s < -1 then return "<invalid>" end
  if s <= 0 then return "0s" end
  if s < 120 then return s .. "s" end
  local minutes = s // 60
  if minutes < 10 then return s % 60 == 0 and minutes .. "m" or ("%dm%ds"):format(minutes, s % 60) end
  if minutes < 180 then return minutes .. "m" end
  local hours = s // 3600
  if hours < 8 then return minutes % 60 == 0 and hours .. "h" or ("%dh%dm"):format(hours, minutes % 60) end
  if hours < 48 then return hours .. "h" end
  local days = hours // 24
  if hours < 192 then return hours % 24 == 0 and days .. "d" or ("%dd%dh"):format(days, hours % 24) end
  if hours < 24 * 365 * 2 then return days .. "d" end
  local years = days // 365
  if hours < 24 * 365 * 8 then return days % 365 == 0 and years .. "y" or ("%dy%dd"):format(years, days % 365) end
  return years .. "y"
end

-- Documents -----------------------------------------------------------------------------------------------------------

---JSON as kubectl indents and escapes it.
---@param value any
---@return string
function M.json(value)
  local text = json.encode(value, { indent = true })
  text = text:gsub("\n( +)", "\n%1%1"):gsub("[<>&]", jsonpath.html)
  if text:find "\u{2028}" or text:find "\u{2029}" then text = text:gsub("\u{2028}", jsonpath.html):gsub("\u{2029}", jsonpath.html) end
  return text .. "\n"
end

---@param value any
---@return string
function M.yaml(value)
  return (require("eirun.core.yaml").encode(value, { fold = true }):gsub("\n*$", "\n"))
end

---The list that kubectl prints of several objects.
---@param items table[]
---@return table
function M.list(items)
  return { apiVersion = "v1", kind = "List", metadata = { resourceVersion = "" }, items = json.array(items) }
end

---Takes off what kubectl does not show in documents; templates may ask for everything.
---@param object table
---@param format eirun.kube.Format
---@param show_managed? boolean
---@return table the same
function M.trimmed(object, format, show_managed)
  local hidden = not show_managed and (format.kind == "json" or format.kind == "yaml")
  if hidden and type(object.metadata) == "table" then object.metadata.managedFields = nil end
  return object
end

-- Columns of one's own ------------------------------------------------------------------------------------------------

-- A value as Go's %v writes it.
local function go_text(value)
  if value == json.null then return "<nil>" end
  if type(value) ~= "table" then return jsonpath.text(value) end
  local parts, open = {}, "map["
  if json.is_array(value) then
    for i, item in ipairs(value) do parts[i] = go_text(item) end
    open = "["
  else
    for key in pairs(value) do parts[#parts + 1] = key end
    table.sort(parts)
    for i, key in ipairs(parts) do parts[i] = key .. ":" .. go_text(value[key]) end
  end
  return open .. table.concat(parts, " ") .. "]"
end

local function custom_columns(spec)
  local columns = {}
  for part in spec:gmatch "[^,]+" do
    local name, path = part:match "^([^:]+):(.+)$"
    if not name then
      errors.raise("invalid", ("unexpected custom-columns spec: %s, expected <header>:<json-path-expr>"):format(part), { code = "usage" })
    end
    columns[#columns + 1] = { name = name, path = jsonpath.relaxed(path) }
  end
  return columns
end

---@param spec string as NAME:.metadata.name,IMAGE:.spec.containers[*].image
---@param items table[]
---@param no_headers? boolean
---@return string
function M.columns(spec, items, no_headers)
  local columns, rows = custom_columns(spec), {}
  if not no_headers then
    rows[1] = {}
    for i, column in ipairs(columns) do rows[1][i] = column.name end
  end
  for _, item in ipairs(items) do
    local row = {}
    for i, column in ipairs(columns) do
      local words = {}
      for j, value in ipairs(jsonpath.values(column.path, item)) do words[j] = go_text(value) end
      row[i] = #words > 0 and table.concat(words, ",") or "<none>"
    end
    rows[#rows + 1] = row
  end
  return M.align(rows)
end

-- Choosing ------------------------------------------------------------------------------------------------------------

---@class eirun.kube.Format
---@field kind "table"|"name"|"json"|"yaml"|"jsonpath"|"columns"
---@field wide? boolean
---@field argument? string

local plain = { [""] = "table", wide = "table", name = "name", json = "json", yaml = "yaml" }

---Reads the value of `-o`.
---@param text? string
---@return eirun.kube.Format
function M.format(text)
  text = text or ""
  if plain[text] then return { kind = plain[text], wide = text == "wide" } end
  local name, argument = text:match "^([%w-]+)=?(.*)$"
  if name == "jsonpath" or name == "jsonpath-as-json" then
    if argument == "" then errors.raise("invalid", "template format specified but no template given", { code = "usage" }) end
    return { kind = "jsonpath", argument = argument, as_json = name ~= "jsonpath", template = jsonpath.compile(argument) }
  end
  if name == "custom-columns" then
    if argument == "" then
      errors.raise("invalid", "custom-columns format specified but no custom columns given", { code = "usage" })
    end
    return { kind = "columns", argument = argument }
  end
  errors.raise("invalid", ("unable to match a printer suitable for the output format \"%s\", allowed formats are: "):format(text)
    .. "custom-columns,json,jsonpath,jsonpath-as-json,name,wide,yaml", { code = "usage" })
end

---Objects in one of the document formats.
---@param format eirun.kube.Format
---@param items table[]
---@param single boolean one object that was asked for by its name
---@return string
function M.documents(format, items, single)
  if format.kind == "columns" then return M.columns(format.argument, items) end
  local whole = single and items[1] or M.list(items)
  if format.kind == "json" then return M.json(whole) end
  if format.kind == "yaml" then return M.yaml(whole) end
  if format.as_json then
    local texts = {}
    for i, values in ipairs(jsonpath.lists(format.template, whole)) do texts[i] = M.json(json.array(values)) end
    return table.concat(texts)
  end
  return jsonpath.render(format.template, whole)
end

return M
