-- SPDX-License-Identifier: Apache-2.0
-- The cache of a watch against scripted servers: resumed, relisted, silent, wrong.
local client = require "eirun.kube.client"
local core = require "eirun.core.kube"
local fake = require "lib_fake"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"
require "eirun.kube"

local function pod(name, version, phase, uid)
  return { metadata = { name = name, namespace = "default", resourceVersion = version, uid = uid or "u-" .. name },
    status = { phase = phase } }
end

local function line(kind, object) return json.encode { type = kind, object = object } .. "\n" end

local function list_of(version, ...)
  return { kind = "PodList", metadata = { resourceVersion = version }, items = json.array { ... } }
end

-- A server whose watches stay open: `answer(req, query, n)` does what it likes with each.
local function with_server(answer, body)
  local server = assert(httpd.listen { host = "127.0.0.1", port = 0 })
  local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = {}, namespace = "default" }
  local count = 0
  local ok, err = pcall(task.race, {
    function()
      httpd.serve(server, function(req)
        count = count + 1
        return answer(req, req:query(), count)
      end)
    end,
    function() body(client.new { server = "http://127.0.0.1:" .. server.port, verify = true, namespace = "default", context = "t" }) end,
  })
  undo()
  server:close()
  if not ok then error(err, 0) end
end

local function respond(req, body, status) req:respond(status or 200, { { "Content-Type", "application/json" } }, json.encode(body)) end

-- Sends lines and holds the stream open.
local function stream(req, ...)
  req:start(200, { { "Content-Type", "application/json" } })
  for _, text in ipairs { ... } do req:write(text) end
  req:wait_closed()
end

local function changes_of(store, count)
  local seen = {}
  for i = 1, count do
    local change = store:next_change(10)
    if not change then error("only " .. table.concat(seen, ", ") .. " came", 0) end
    seen[i] = change.type .. " " .. change.object.name .. " " .. tostring(change.object["status.phase"])
  end
  return seen
end

local PICK = { "status.phase" }

t.test("a_watch_list_brings_the_first_objects_and_the_changes_on_one_stream", function()
  local marks = { kind = "Pod", apiVersion = "v1",
    metadata = { resourceVersion = "9", annotations = { ["k8s.io/initial-events-end"] = "true" } } }
  with_server(function(req, query, n)
    t.eq({ n, query.sendInitialEvents, query.resourceVersionMatch, query.resourceVersion }, { 1, "true", "NotOlderThan", nil })
    stream(req, line("ADDED", pod("a", "5", "Pending")), line("BOOKMARK", marks), line("MODIFIED", pod("a", "10", "Running")))
  end, function(k8s)
    k8s:store("Pod", { pick = PICK, track = true }):with(function(pods)
      t.eq(pods:facts().watches, 1)
      while pods:get("a")["status.phase"] ~= "Running" do task.sleep(0.01) end
      t.eq(changes_of(pods, 1), { "added a Running" })
      t.eq(pods:facts().lists, 0)
    end)
  end)
end)

t.test("a_server_that_knows_no_watch_list_is_listed_and_asked_no_more", function()
  local initial = 0
  with_server(function(req, query)
    if query.sendInitialEvents then
      initial = initial + 1
      return respond(req, fake.status(422, "Invalid", "sendInitialEvents is forbidden"), 422)
    end
    if not query.watch then return respond(req, list_of("5", pod("a", "5", "Running"))) end
    stream(req, line("ADDED", pod("b", "6", "Pending")))
  end, function(k8s)
    for _ = 1, 2 do
      k8s:store("Pod", { pick = PICK, track = true, labels = initial > 0 and { x = "y" } or nil }):with(function(pods)
        t.eq(changes_of(pods, 2), { "added a Running", "added b Pending" })
      end)
    end
    t.eq(initial, 1)
  end)
end)

t.test("an_expired_version_is_listed_again_and_what_was_missed_is_told", function()
  local lists = { list_of("5", pod("a", "5", "x"), pod("b", "5", "x"), pod("c", "5", "x")),
    list_of("20", pod("a", "5", "x"), pod("b", "15", "y"), pod("c", "16", "x", "another")) }
  local watches = 0
  with_server(function(req, query)
    if not query.watch then return respond(req, table.remove(lists, 1)) end
    watches = watches + 1
    if watches == 1 then return stream(req, line("ERROR", fake.status(410, "Expired", "too old resource version"))) end
    t.eq(query.resourceVersion, "20")
    stream(req, line("DELETED", pod("a", "21", "x")))
  end, function(k8s)
    k8s:store("Pod", { pick = PICK, track = true, watch_list = false }):with(function(pods)
      t.eq(changes_of(pods, 3), { "added a x", "added b x", "added c x" })
      local seen = changes_of(pods, 4)
      table.sort(seen)
      t.eq(seen, { "added c x", "deleted a x", "deleted c x", "modified b y" })
    end)
  end)
end)

t.test("a_silent_stream_is_left_and_gone_on_from_the_last_bookmark", function()
  local watches = 0
  with_server(function(req, query)
    if not query.watch then return respond(req, list_of("5")) end
    watches = watches + 1
    if watches == 1 then return stream(req, line("BOOKMARK", { metadata = { resourceVersion = "7" } })) end
    t.eq(query.resourceVersion, "7")
    stream(req, line("ADDED", pod("a", "8", "x")))
  end, function(k8s)
    k8s:store("Pod", { pick = PICK, track = true, watch_list = false, stall = 0.2 }):with(function(pods)
      t.eq(changes_of(pods, 1), { "added a x" })
      t.ok(pods:facts().stalls >= 1, "the silence was noticed")
      t.eq(pods:facts().lists, 1)
    end)
  end)
end)

t.test("nonsense_on_the_line_is_listed_again", function()
  local lists, watches = 0, 0
  with_server(function(req, query)
    if not query.watch then
      lists = lists + 1
      return respond(req, list_of(tostring(lists), lists == 2 and pod("a", "2", "x") or nil))
    end
    watches = watches + 1
    if watches == 1 then return stream(req, "{\"type\":\"ADDED\",\"obj\n") end
    stream(req)
  end, function(k8s)
    k8s:store("Pod", { pick = PICK, track = true, watch_list = false }):with(function(pods)
      t.eq(changes_of(pods, 1), { "added a x" })
      t.eq(lists, 2)
    end)
  end)
end)

t.test("a_cut_connection_goes_on_without_a_list", function()
  local lists, watches = 0, 0
  with_server(function(req, query)
    if not query.watch then
      lists = lists + 1
      return respond(req, list_of("5", pod("a", "5", "x")))
    end
    watches = watches + 1
    if watches == 1 then
      req:start(200, {})
      req:write(line("MODIFIED", pod("a", "6", "y")))
      task.sleep(0.05)
      return req:abort()
    end
    t.eq(query.resourceVersion, "6")
    stream(req, line("MODIFIED", pod("a", "6", "y")), line("MODIFIED", pod("a", "7", "z")))
  end, function(k8s)
    k8s:store("Pod", { pick = PICK, watch_list = false }):with(function(pods)
      while pods:get("a")["status.phase"] ~= "z" do task.sleep(0.01) end
      t.eq({ lists, watches, pods:count() }, { 1, 2, 1 })
    end)
  end)
end)

t.test("a_page_that_expired_starts_the_list_again", function()
  local calls = 0
  with_server(function(req, query)
    if query.watch then return stream(req) end
    calls = calls + 1
    if calls == 1 then
      return respond(req, { metadata = { resourceVersion = "1", continue = "t" }, items = json.array { pod("gone", "1", "x") } })
    elseif calls == 2 then
      return respond(req, fake.status(410, "Expired", "the continue token is too old", { metadata = { continue = "fresh" } }), 410)
    end
    respond(req, list_of("9", pod("a", "9", "x")))
  end, function(k8s)
    k8s:store("Pod", { pick = PICK, watch_list = false }):with(function(pods)
      t.eq({ pods:count(), pods:get("gone"), calls }, { 1, nil, 3 })
    end)
  end)
end)

t.test("without_the_right_to_watch_it_stops", function()
  with_server(function(req) respond(req, fake.status(403, "Forbidden", "pods is forbidden"), 403) end, function(k8s)
    local err = t.err("denied", function() k8s:store("Pod", { pick = PICK }):with(function() end) end)
    t.match(err.message, "pods is forbidden")
  end)
end)

t.test("one_question_has_one_store", function()
  with_server(function(req) respond(req, list_of("1")) end, function(k8s)
    t.ok(k8s:store("Pod", { pick = PICK }) == k8s:store("Pod", { pick = PICK }), "the same question")
    t.ok(k8s:store("Pod", { pick = PICK }) ~= k8s:store("Pod", { pick = { "spec" } }), "another question")
    t.match(t.err("invalid", function() k8s:store("Pod", { pick = { "a..b" } }) end).message, "'a..b' is no path")
    t.match(t.err("invalid", function() k8s:store("Pod", { pik = {} }) end).message, "did you mean 'pick'")
  end)
end)

t.test("fields_are_picked_out_of_a_list", function()
  with_server(function(req)
    respond(req, list_of("1", { metadata = { name = "a" },
      spec = { n = 9007199254740993, list = json.array { 1, "two" }, text = "\"é\n" } }))
  end, function(k8s)
    local rows = k8s:pick("Pod", { "metadata.name", "spec.n", "spec.list", "spec.text", "spec.nope" })
    t.eq({ rows[1]["metadata.name"], rows[1]["spec.n"], rows[1]["spec.list"][2], rows[1]["spec.text"], rows[1]["spec.nope"] },
      { "a", 9007199254740993, "two", "\"é\n", nil })
  end)
end)

t.test("a_picker_reads_every_kind_of_value", function()
  local picker = assert(core.picker { "a", "b", "c", "d", "e", "f" })
  local row = assert(picker:pick '{"a":-12,"b":1.5e2,"c":true,"d":null,"e":{"x":[]},"f":"\\u00e9"}')
  t.eq({ row.a, row.b, row.c, row.d == json.null, json.encode(row.e), row.f }, { -12, 150.0, true, true, '{"x":[]}', "é" })
  local _, err = picker:pick "{"
  t.match(err.message, "not JSON")
end)

t.test("lines_are_whole_whatever_the_pieces", function()
  local lines = core.lines()
  t.eq(lines:feed "a\nb", { "a" })
  t.eq(lines:feed "c", {})
  t.eq(lines:feed "\n\nd\n", { "bc", "", "d" })
end)
