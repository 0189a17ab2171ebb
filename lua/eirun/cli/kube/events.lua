-- SPDX-License-Identifier: Apache-2.0
-- eirun kube events: what was said, oldest first.
local face = require "eirun.cli.kube.face"
local print_ = require "eirun.cli.kube.print"
local task = require "eirun.task"

local function about_of(k8s, options)
  if not options["for"] then return { all = options.all_namespaces } end
  local kind, name = options["for"]:match "^([^/]+)/(.+)$"
  if not kind then face.usage "--for must be in resource/name form" end
  return { kind = k8s:resource(kind).kind, name = name, all = options.all_namespaces }
end

local function last_seen(event)
  local age = print_.age(task.now() - event.at)
  local series = type(event.series) == "table" and event.series.count or event.count
  local began = type(event.eventTime) == "string" and event.eventTime or event.firstTimestamp
  local first = type(began) == "string" and require("eirun.wire").parse_time(began)
  if type(series) == "number" and series > 1 and first then
    return ("%s (x%d over %s)"):format(age, series, print_.age(task.now() - first))
  end
  return age
end

local function row_of(event, options)
  local object = event.involvedObject or {}
  local row = { last_seen(event), event.type or "", event.reason or "",
    ("%s/%s"):format(object.kind or "", object.name or ""), ((event.message or ""):gsub("%s+$", "")) }
  if options.all_namespaces then table.insert(row, 1, event.metadata.namespace or "") end
  return row
end

return face.verb(function(k8s, options)
  local head = { "LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE" }
  if options.all_namespaces then table.insert(head, 1, "NAMESPACE") end
  local rows, types = { not options.no_headers and head or nil }, nil
  if options.types then
    types = {}
    for word in options.types:gmatch "[^,]+" do
      local kind = word:lower()
      if kind ~= "normal" and kind ~= "warning" then face.usage "valid --types are Normal or Warning" end
      types[kind] = true
    end
  end
  local shown = 0
  for _, event in ipairs(k8s:events(about_of(k8s, options))) do
    if not types or types[(event.type or ""):lower()] then
      rows[#rows + 1] = row_of(event, options)
      shown = shown + 1
    end
  end
  if shown == 0 then
    face.note(options.all_namespaces and "No events found." or ("No events found in %s namespace."):format(k8s.ns))
  else
    face.out(print_.align(rows))
  end
  return 0
end)
