-- SPDX-License-Identifier: Apache-2.0
-- eirun kube get: objects as tables, names or documents.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local later = require "eirun.later"

local jsonpath = later "eirun.kube.jsonpath"
local print_ = later "eirun.cli.kube.print"

local TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
local PARTIAL = "application/json;as=PartialObjectMetadata%s;v=v1;g=meta.k8s.io,application/json"

-- Reading -------------------------------------------------------------------------------------------------------------

-- What is not there may be so because its namespace is not.
local function read_one(k8s, wanted, accept, query)
  local info = wanted.info
  local ok, answer = pcall(k8s.call, k8s, { path = kinds.path(info, k8s.ns, wanted.name), verb = "read", accept = accept, query = query,
    object = ("%s '%s'"):format(info.kind, wanted.name) })
  if ok then return answer end
  if info.namespaced and k8s.ns ~= "default" and errors.is(answer, "not_found") then
    local found, why = pcall(k8s.call, k8s, { path = "/api/v1/namespaces/" .. k8s.ns, verb = "read",
      object = ("Namespace '%s'"):format(k8s.ns) })
    if not found and errors.is(why, "not_found") then error(why, 0) end
  end
  error(answer, 0)
end

local function list_options(options, accept)
  return { labels = options.selector, fields = options.field_selector, all = options.all_namespaces, accept = accept,
    include_object = options.sort_by and accept == TABLE and "Object" or nil,
    limit = math.tointeger(tonumber(options.chunk_size)) }
end

local function read_pages(k8s, wanted, options, accept, on_page, on_restart)
  k8s:pages(wanted.info, list_options(options, accept), function(text)
    local page = errors.check(json.decode(text))
    on_page(page)
    return (page.metadata or {}).continue
  end, on_restart)
end

-- A failure of one object leaves the others shown; what is not found may be ignored.
local function attempt(state, options, fn)
  local ok, err = pcall(fn)
  if ok then return end
  err = errors.from(err)
  if err.kind == "cancelled" then error(err, 0) end
  if err.kind == "not_found" and options.ignore_not_found then return end
  state.failures[#state.failures + 1] = err
end

-- Tables --------------------------------------------------------------------------------------------------------------

-- A server that knows no tables answers the objects: name and age are all that can be told of them.
local function as_table(answer)
  if answer.kind == "Table" then return answer.columnDefinitions, answer.rows ~= json.null and answer.rows or {}, answer end
  local items = type(answer.items) == "table" and answer.items or answer.metadata and not answer.items and { answer } or {}
  local rows, now = {}, require("eirun.task").now()
  local parse = require("eirun.wire").parse_time
  for i, item in ipairs(items) do
    local made = item.metadata.creationTimestamp
    rows[i] = { object = item, cells = { item.metadata.name, made and print_.age(now - parse(made)) or "<unknown>" } }
  end
  return { { name = "Name" }, { name = "Age" } }, rows, answer
end

-- By what the expression finds in each one's object; what has nothing there comes first.
local function sort_by(list, expression, object_of)
  local path = jsonpath.relaxed(expression)
  local keys, order = {}, {}
  for i, item in ipairs(list) do
    keys[item], order[item] = jsonpath.values(path, object_of(item))[1], i
  end
  table.sort(list, function(a, b)
    local x, y = keys[a], keys[b]
    if x == y or type(x) ~= type(y) or type(x) == "table" then
      if (x == nil) ~= (y == nil) then return x == nil end
      return order[a] < order[b]
    end
    return x < y
  end)
end

local function object_of_row(row) return row.object end
local function itself(item) return item end

local function group_of(groups, wanted)
  local key = kinds.resource(wanted.info)
  if not groups[key] then
    groups[key] = { wanted = wanted, rows = {} }
    groups[#groups + 1] = groups[key]
  end
  return groups[key]
end

local function collect_tables(k8s, list, options, state)
  local groups, query = {}, options.sort_by and { includeObject = "Object" } or nil
  for _, wanted in ipairs(list) do
    attempt(state, options, function()
      local group
      local function take(answer)
        local columns, rows = as_table(answer)
        group = group_of(groups, wanted)
        group.columns = group.columns or columns
        table.move(rows, 1, #rows, #group.rows + 1, group.rows)
        group.version = (answer.metadata or {}).resourceVersion
      end
      if wanted.name then return take(read_one(k8s, wanted, TABLE, query)) end
      read_pages(k8s, wanted, options, TABLE, take, function() group.rows = {} end)
    end)
  end
  return groups
end

local function view_of(group, groups, options, format)
  local several = #groups > 1 or options.show_kind
  return { wide = format.wide, namespace = options.all_namespaces and group.wanted.info.namespaced, show_labels = options.show_labels,
    label_columns = options.label_columns, prefix = several and face.kind_word(group.wanted.info) .. "/" or nil }
end

local function table_rows(group, view, options)
  if options.sort_by then sort_by(group.rows, options.sort_by, object_of_row) end
  local rows = { not options.no_headers and print_.heading(group.columns, view) or nil }
  for _, row in ipairs(group.rows) do rows[#rows + 1] = print_.row(group.columns, row, view) end
  return rows
end

local function nothing_found(k8s, list, options)
  if options.ignore_not_found then return end
  local inside = not options.all_namespaces and list[1] and list[1].info.namespaced
  face.note(inside and ("No resources found in %s namespace."):format(k8s.ns) or "No resources found")
end

local function show_tables(k8s, list, options, format, state)
  local groups = collect_tables(k8s, list, options, state)
  local filled = {}
  for _, group in ipairs(groups) do if #group.rows > 0 then filled[#filled + 1] = group end end
  state.widths = {}
  for i, group in ipairs(filled) do
    local view = view_of(group, filled, options, format)
    if i > 1 then face.out "\n" end
    face.out(print_.align(table_rows(group, view, options), state.widths))
    state.view, state.columns = view, group.columns
    state.widths = #filled > 1 and {} or state.widths
  end
  state.version = groups[1] and groups[1].version
  if #filled == 0 and #state.failures == 0 then nothing_found(k8s, list, options) end
end

-- Names and documents -------------------------------------------------------------------------------------------------

-- Pages are printed as they come; of each object only its metadata is asked for, and its name is picked out of the bytes.
local function show_names(k8s, list, options, state)
  for _, wanted in ipairs(list) do
    attempt(state, options, function()
      local head = face.kind_word(wanted.info) .. "/"
      if wanted.name then
        read_one(k8s, wanted, PARTIAL:format "")
        return face.out(head .. wanted.name .. "\n")
      end
      k8s:pages(wanted.info, list_options(options, PARTIAL:format "List"), function(text)
        local lines, token = require("eirun.core.kube").names(text, head)
        if not lines then error(token, 0) end
        if lines ~= "" then face.out(lines) end
        return token
      end)
    end)
  end
end

local function add_item(items, item, info, format, options)
  item.kind, item.apiVersion = info.kind, info.api_version
  items[#items + 1] = print_.trimmed(item, format, options.show_managed_fields)
end

local function show_documents(k8s, list, options, format, state)
  local items = {}
  for _, wanted in ipairs(list) do
    attempt(state, options, function()
      if wanted.name then return add_item(items, read_one(k8s, wanted), wanted.info, format, options) end
      local from = #items
      read_pages(k8s, wanted, options, nil, function(page)
        for _, item in ipairs(type(page.items) == "table" and page.items or {}) do add_item(items, item, wanted.info, format, options) end
      end, function() for i = #items, from + 1, -1 do items[i] = nil end end)
    end)
  end
  local single = #list == 1 and list[1].name ~= nil
  if single and #items == 0 then return end
  if options.sort_by and not single then sort_by(items, options.sort_by, itself) end
  if format.kind == "name" then
    for _, item in ipairs(items) do
      face.out(("%s/%s\n"):format(face.kind_word { kind = item.kind, api_version = item.apiVersion }, item.metadata.name))
    end
    return
  end
  if format.kind == "columns" then
    if #items == 0 then return nothing_found(k8s, list, options) end
    return face.out(print_.columns(format.argument, items, options.no_headers))
  end
  face.out(print_.documents(format, items, single))
end

-- What is asked for ---------------------------------------------------------------------------------------------------

local function from_files(k8s, options)
  local list = {}
  for _, manifest in ipairs(face.manifests(options)) do
    list[#list + 1] = { info = k8s:kind(manifest.kind, manifest.apiVersion), name = manifest.metadata.name }
  end
  return list
end

local function check(list, options)
  if not options.all_namespaces and not options.selector then return end
  for _, wanted in ipairs(list) do
    if wanted.name and options.selector then face.usage "name cannot be provided when a selector is specified" end
    if wanted.name and wanted.info.namespaced then
      face.usage "a resource cannot be retrieved by name across all namespaces"
    end
  end
end

local function show(k8s, list, options, format, state)
  if format.kind == "table" then return show_tables(k8s, list, options, format, state) end
  if format.kind == "name" and not options.sort_by then return show_names(k8s, list, options, state) end
  return show_documents(k8s, list, options, format, state)
end

local function raw(k8s, path)
  local route, query = path:match "^([^?]*)%??(.*)$"
  if route:sub(1, 1) ~= "/" then face.usage "--raw must be a valid URL path" end
  local map = {}
  for key, value in query:gmatch "([^&=]+)=?([^&]*)" do map[key] = value end
  face.out(k8s:call { path = route, query = map, raw = true, verb = "read", object = path, accept = "application/json, */*" })
  return 0
end

return face.verb(function(k8s, options, words)
  k8s.shared.in_turn = not options.watch
  if options.raw then return raw(k8s, options.raw) end
  local format = options.output == "name" and { kind = "name" } or print_.format(options.output)
  local list = options.filename and from_files(k8s, options) or face.wanted(k8s, words)
  check(list, options)
  local state = { failures = {} }
  show(k8s, list, options, format, state)
  for _, err in ipairs(state.failures) do face.note(face.explain(err)) end
  if options.watch and #state.failures == 0 then return require("eirun.cli.kube.follow").run(k8s, list, options, format, state) end
  return #state.failures > 0 and 1 or 0
end)
