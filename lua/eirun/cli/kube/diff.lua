-- SPDX-License-Identifier: Apache-2.0
-- eirun kube diff: what the server's own dry run would change. Values of Secrets are masked.
local diff = require "eirun.kube.diff"
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local fs = require "eirun.core.fs"
local os_core = require "eirun.core.os"
local print_ = require "eirun.cli.kube.print"
local process = require "eirun.core.process"

local function file_name(target)
  local group = target.info.api_version:gsub("/", ".")
  return ("%s.%s.%s.%s"):format(group, target.info.kind, target.info.namespaced and target.k8s.ns or "", target.name)
end

local function compare(target, options, folders)
  local found = diff.of(target.k8s, target.manifest, { force = options.force_conflicts, manager = options.field_manager })
  if not found.differs then return false end
  if found.live then errors.check(fs.write(folders.live .. "/" .. file_name(target), print_.yaml(found.live))) end
  errors.check(fs.write(folders.merged .. "/" .. file_name(target), print_.yaml(found.merged)))
  return true
end

local function words_of(text)
  local list = {}
  for word in text:gmatch "%S+" do list[#list + 1] = word end
  return list
end

local function show(folders)
  local call = words_of(os_core.getenv "KUBECTL_EXTERNAL_DIFF" or "diff -u -N")
  call[#call + 1], call[#call + 2] = folders.live, folders.merged
  local result, err = process.run(call)
  if not result then errors.raise("not_found", ("cannot run '%s': %s"):format(call[1], err.message), { hint = "install diffutils" }) end
  face.out(result.stdout)
  if result.code > 1 then errors.raise("internal", result.stderr) end
end

return face.verb(function(k8s, options)
  local list = face.targets_in_files(k8s, options)
  local folders = { live = errors.check(fs.mkdtemp "/tmp/LIVE-"), merged = errors.check(fs.mkdtemp "/tmp/MERGED-") }
  local ok, differs = pcall(function()
    local any = false
    for _, target in ipairs(list) do any = compare(target, options, folders) or any end
    if any then show(folders) end
    return any
  end)
  for _, folder in pairs(folders) do fs.remove(folder, { recursive = true }) end
  if not ok then error(differs, 0) end
  return differs and 1 or 0
end, 2)
