-- SPDX-License-Identifier: Apache-2.0
-- Many objects at once, again: what is as it was applied is not sent.
local errors = require "eirun.errors"
local t = require "eirun.test"
local with_cluster = require "sandbox_cluster"

local COUNT = 40

local function counting(fn)
  return with_cluster(function(k8s)
    local sent, apply = {}, k8s.apply
    function k8s.apply(self, manifest, opts)
      sent[#sent + 1] = manifest.metadata.name
      return apply(self, manifest, opts)
    end
    fn(k8s, sent)
  end)
end

local function manifests(count)
  local list = {}
  for i = 1, count or COUNT do
    list[i] = { apiVersion = "v1", kind = "ConfigMap", metadata = { name = ("cm-%03d"):format(i) }, data = { k = "v" .. i } }
  end
  return list
end

local function emptied(list)
  for i = #list, 1, -1 do list[i] = nil end
end

t.test("what_is_as_it_was_applied_is_not_sent_again", counting(function(k8s, sent)
  k8s:apply_all(manifests())
  t.eq(#sent, COUNT)
  emptied(sent)
  local objects = k8s:apply_all(manifests())
  t.eq({ #sent, #objects, objects[7].data.k, objects[7].kind }, { 0, COUNT, "v7", "ConfigMap" })
  local changed = manifests()
  changed[3].data.k, changed[5].data = "other", nil
  k8s:apply_all(changed)
  table.sort(sent)
  t.eq(sent, { "cm-003", "cm-005" })
  t.eq({ k8s:get("ConfigMap", "cm-003").data.k, k8s:get("ConfigMap", "cm-005").data }, { "other", nil })
end))

t.test("what_others_changed_is_sent_and_their_conflict_told", counting(function(k8s, sent)
  k8s:apply_all(manifests())
  k8s:namespace("default"):delete("ConfigMap", "cm-009")
  getmetatable(k8s).__index.apply(k8s, { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "cm-002" }, data = { k = "theirs" } },
    { manager = "other", force = true })
  emptied(sent)
  local failures = {}
  k8s:apply_all(manifests(), { each = function(_, manifest, err)
    if err then failures[#failures + 1] = { manifest.metadata.name, errors.from(err).kind } end
  end })
  table.sort(sent)
  t.eq({ sent, failures }, { { "cm-002", "cm-009" }, { { "cm-002", "conflict" } } })
end))

t.test("everything_is_sent_in_a_dry_run_when_asked_to_and_of_few", counting(function(k8s, sent)
  k8s:apply_all(manifests())
  for _, case in ipairs { { COUNT, { dry_run = true } }, { COUNT, { resend = true } }, { 3, {} } } do
    emptied(sent)
    k8s:apply_all(manifests(case[1]), case[2])
    t.eq(#sent, case[1])
  end
end))

t.test("who_may_not_list_sends_everything", counting(function(k8s, sent)
  k8s:apply_all(manifests())
  local call = k8s.call
  local function refuse(self, given)
    if given.verb == "list" then errors.raise("denied", "configmaps is forbidden") end
    return call(self, given)
  end
  k8s.call = refuse -- copies of the client have it, too
  emptied(sent)
  k8s:apply_all(manifests())
  t.eq(#sent, COUNT)
end))
