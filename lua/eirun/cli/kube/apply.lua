-- SPDX-License-Identifier: Apache-2.0
-- eirun kube apply: server-side apply, many objects at a time, told in the order of the manifests.
local client = require "eirun.kube.client"
local face = require "eirun.cli.kube.face"

-- Says each result when its turn has come.
local function in_order()
  local texts, at = {}, 1
  return function(i, text)
    texts[i] = text
    while texts[at] do
      texts[at].say(texts[at].text)
      at = at + 1
    end
  end
end

local RESOLVE = [[
Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts]]

local function explain(err)
  for _, cause in ipairs(err.causes_of_server or {}) do
    if cause.reason == "FieldManagerConflict" then return "error: " .. err.server_message .. "\n" .. RESOLVE end
  end
  return face.explain(err)
end

local function mark(manifest, set)
  if not set then return end
  local labels = manifest.metadata.labels or {}
  labels["app.kubernetes.io/managed-by"], labels[client.SET_LABEL] = client.MANAGER, set
  manifest.metadata.labels = labels
end

local function apply_all(k8s, list, options, show)
  local dry, words = face.dry_run(options)
  local say, failed, manifests, place = in_order(), 0, {}, {}
  for i, target in ipairs(list) do
    mark(target.manifest, options.set)
    manifests[i], place[target.manifest] = target.manifest, i
  end
  local function each(_, manifest, err)
    local i = place[manifest]
    if err then
      failed = 1
      return say(i, { say = face.note, text = explain(err) })
    end
    say(i, { say = show, text = ("%s/%s serverside-applied%s\n"):format(face.kind_word(list[i].info), list[i].name, words) })
  end
  local objects = k8s:apply_all(manifests, { force = options.force_conflicts, dry_run = dry, manager = options.field_manager,
    validate = options.validate, resend = options.resend, each = each })
  local results = {}
  for _, object in ipairs(objects) do if object then results[#results + 1] = object end end
  return failed, results
end

-- What went out of the set is shown; it is deleted only when --yes was said.
local function prune(k8s, list, options)
  local manifests = {}
  for i, target in ipairs(list) do manifests[i] = target.manifest end
  local dry, words = face.dry_run(options)
  for _, old in ipairs(k8s:list_prunable(options.set, manifests)) do
    local who = ("%s/%s"):format(face.kind_word(k8s:kind(old.kind, old.apiVersion)), old.metadata.name)
    if options.yes then
      k8s:namespace(old.metadata.namespace or k8s.ns):delete(old.kind, old.metadata.name, { uid = old.metadata.uid, dry_run = dry })
      face.out(("%s pruned%s\n"):format(who, words))
    else
      face.out(("%s would be pruned (say --yes)\n"):format(who))
    end
  end
end

return face.verb(function(k8s, options, words)
  if options.prune and not options.set then face.usage "--prune wants --set NAME: only what carries that mark is looked through" end
  local list = face.targets_in_files(k8s, options, words)
  for _, target in ipairs(list) do
    if not target.name then
      face.usage(("from %s: cannot use generate name with apply"):format(target.manifest.metadata.generateName))
    end
  end
  local format = options.output and require("eirun.cli.kube.print").format(options.output)
  local silent = format and format.kind ~= "name"
  local failed, results = apply_all(k8s, list, options, silent and function() end or face.out)
  if silent then
    local print_ = require "eirun.cli.kube.print"
    for _, object in ipairs(results) do print_.trimmed(object, format, options.show_managed_fields) end
    face.out(print_.documents(format, results, #results == 1))
  end
  if options.prune and failed == 0 then prune(k8s, list, options) end
  return failed
end)
