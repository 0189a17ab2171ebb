-- SPDX-License-Identifier: Apache-2.0
-- The second half of `get --watch`: a row or a document for each change.
local connection = require "eirun.kube.connection"
local core = require "eirun.core.kube"
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local print_ = require "eirun.cli.kube.print"

local M = {}

local TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

local function call_of(k8s, wanted, options, format, version)
  local info = wanted.info
  local namespace = not options.all_namespaces and k8s.ns or nil
  return { path = kinds.path(info, namespace), verb = "watch", object = info.plural, timeout = 7 * 86400,
    accept = format.kind == "table" and TABLE or nil,
    query = { watch = true, resourceVersion = version, labelSelector = options.selector,
      fieldSelector = wanted.name and "metadata.name=" .. wanted.name or options.field_selector } }
end

local function show_row(object, state, wanted, options, format)
  local columns = object.columnDefinitions ~= json.null and object.columnDefinitions or state.columns
  if not state.view then
    state.view = { wide = format.wide, namespace = options.all_namespaces and wanted.info.namespaced, show_labels = options.show_labels,
      label_columns = options.label_columns }
    state.widths = {}
    if not options.no_headers then face.flow(print_.align({ print_.heading(columns, state.view) }, state.widths)) end
  end
  state.columns = columns
  local rows = {}
  for i, row in ipairs(object.rows or {}) do rows[i] = print_.row(columns, row, state.view) end
  face.flow(print_.align(rows, state.widths))
end

local function show_event(line, state, wanted, options, format)
  local event = errors.check(json.decode(line))
  if event.type == "ERROR" then
    local status = event.object
    errors.raise("conflict", tostring(status.message), { server_message = status.message, code = status.reason, status = status.code })
  end
  if event.type == "BOOKMARK" then return end
  local object = event.object
  if object.kind == "Table" then return show_row(object, state, wanted, options, format) end
  object.kind, object.apiVersion = wanted.info.kind, wanted.info.api_version
  if format.kind == "name" then return face.flow(("%s/%s\n"):format(face.kind_word(wanted.info), object.metadata.name)) end
  if format.kind == "table" then
    return face.flow(print_.align({ { object.metadata.name, event.type } }, state.widths or {}))
  end
  local text = print_.documents(format, { print_.trimmed(object, format, options.show_managed_fields) }, true)
  face.flow((format.kind == "yaml" and "---\n" or "") .. text)
end

---Shows changes until the stream ends, as kubectl does: it does not reconnect.
---@param k8s eirun.KubeClient
---@param list eirun.kube.Wanted[]
---@param options table
---@param format eirun.kube.Format
---@param state table what the list has left: columns, widths, version
---@return integer exit_code
function M.run(k8s, list, options, format, state)
  if #list ~= 1 then face.usage "you may only specify a single resource type" end
  local version = state.version or select(2, k8s:list(list[1].info.api_version .. "/" .. list[1].info.kind,
    { labels = options.selector, all = options.all_namespaces, limit = 500 }))
  local call = call_of(k8s, list[1], options, format, version)
  local stream = k8s:stream(call)
  if stream.status >= 300 then error(connection.stream_failure(call, stream), 0) end
  local lines, limit = core.lines(), tonumber(options.count or nil)
  local shown = 0
  while true do
    local chunk, err = stream:read()
    if err then error(err, 0) end
    if not chunk then return 0 end
    for _, line in ipairs(errors.check(lines:feed(chunk))) do
      if line ~= "" then
        show_event(line, state, list[1], options, format)
        shown = shown + 1
        if limit and shown >= limit then
          stream:close()
          return 0
        end
      end
    end
  end
end

return M
