-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local client = require "eirun.kube.client"
local fake = require "lib_fake"
local json = require "eirun.core.json"
local watch = require "eirun.kube.watch"

local function pod(name, version)
  return { kind = "Pod", apiVersion = "v1", metadata = { name = name, namespace = "default", resourceVersion = version } }
end

local function lines(...)
  local list = {}
  for i, event in ipairs { ... } do list[i] = json.encode(event) .. "\n" end
  return table.concat(list)
end

local function list_of(version, ...)
  return { kind = "PodList", apiVersion = "v1", metadata = { resourceVersion = version }, items = json.array { ... } }
end

-- Lists and watches are answered in turn.
local function scripted(lists, streams)
  return function(call)
    local script = call.query.watch and streams or lists
    local reply = table.remove(script, 1)
    if not reply then return 500, fake.status(500, "InternalError", "the script is over") end
    return reply.status or 200, reply.body or reply
  end
end

local function collect(url, count)
  local k8s = client.new { server = url, verify = true, namespace = "default", context = "test" }
  local seen = {}
  local changes <close> = watch.new(k8s, "Pod")
  for i = 1, count do
    local event = changes:next()
    seen[i] = event.type .. " " .. event.object.metadata.name .. " " .. event.object.metadata.resourceVersion
  end
  return seen
end

t.test("a_watch_goes_on_after_a_clean_end_from_where_it_was", function()
  local streams = {
    { body = lines({ type = "MODIFIED", object = pod("a", "6") },
      { type = "BOOKMARK", object = { metadata = { resourceVersion = "9" } } }) },
    { body = lines({ type = "ADDED", object = pod("b", "10") }, { type = "DELETED", object = pod("a", "11") }) },
  }
  fake.with(scripted({ list_of("5", pod("a", "5")) }, streams), function(url, seen)
    t.eq(collect(url, 4), { "added a 5", "modified a 6", "added b 10", "deleted a 11" })
    t.eq({ seen[2].query.resourceVersion, seen[3].query.resourceVersion, seen[2].query.allowWatchBookmarks }, { "5", "9", "true" })
  end)
end)

t.test("an_expired_version_lists_again_and_tells_what_was_missed", function()
  local streams = {
    { body = lines({ type = "ERROR", object = fake.status(410, "Expired", "too old resource version") }) },
    { status = 410, body = fake.status(410, "Gone", "too old") },
    { body = lines({ type = "ADDED", object = pod("c", "40") }) },
  }
  local lists = { list_of("5", pod("a", "5"), pod("b", "5")), list_of("20", pod("b", "5")), list_of("30", pod("b", "21")) }
  fake.with(scripted(lists, streams), function(url)
    t.eq(collect(url, 5), { "added a 5", "added b 5", "deleted a 5", "modified b 21", "added c 40" })
  end)
end)

t.test("the_same_version_twice_is_no_news", function()
  local streams = { { body = lines({ type = "ADDED", object = pod("a", "5") }, { type = "MODIFIED", object = pod("a", "7") }) } }
  fake.with(scripted({ list_of("5", pod("a", "5")) }, streams), function(url)
    t.eq(collect(url, 2), { "added a 5", "modified a 7" })
  end)
end)

t.test("a_forbidden_watch_stops", function()
  fake.with(scripted({ list_of("5") }, { { status = 403, body = fake.status(403, "Forbidden", "no") } }), function(url)
    t.err("denied", function() collect(url, 1) end)
  end)
end)
