-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local resource = require "eirun.resource"
local spec = require "eirun.spec"

t.test("only_named_fields_are_compared", function()
  local changes = resource.differences({ a = 1, b = 2, c = { d = 3, e = 4 } }, { a = 1, c = { d = 5 } }, { named_only = true })
  t.eq(changes, { { field = "c.d", from = 3, to = 5 } })
end)

t.test("zero_empty_text_and_empty_list_are_three_things", function()
  local changes = resource.differences({ a = 0, b = "", c = json.array {} }, { a = "", b = 0, c = "" }, { named_only = true })
  t.eq(#changes, 3)
end)

t.test("changes_come_in_the_order_of_their_fields", function()
  local wanted = { zeta = 1, alpha = 2, mid = { z = 1, a = 2 } }
  local fields = {}
  for i, change in ipairs(resource.differences({ zeta = 0, alpha = 0, mid = { z = 0, a = 0 } }, wanted)) do fields[i] = change.field end
  t.eq(fields, { "alpha", "mid.a", "mid.z", "zeta" })
end)

t.test("records_of_a_list_are_compared_by_name_whatever_their_order", function()
  local from = { list = { { name = "a", v = 1 }, { name = "b", v = 2 } } }
  local to = { list = { { name = "b", v = 3 }, { name = "a", v = 1 } } }
  t.eq(resource.differences(from, to), { { field = "list[b].v", from = 2, to = 3 } })
end)

t.test("a_list_is_a_set_where_that_is_said", function()
  local from, to = { l = { "b", "a" } }, { l = { "a", "b" } }
  t.eq(#resource.differences(from, to), 1)
  t.eq(#resource.differences(from, to, { sets = { l = true } }), 0)
end)

local function thing(world, wanted, more)
  local made = {
    kind = "thing", name = "t", observe = function() return world.value end,
    compare = function(observed) return resource.differences(observed, wanted, { named_only = true }) end,
    act = function(plan)
      world.acts = (world.acts or 0) + 1
      world.value = wanted
      world.saw = plan.action
    end,
    wait = function() return world.value end,
  }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

t.test("ensure_creates_then_leaves_alone_then_updates", function()
  local world = {}
  local _, first = resource.ensure(thing(world, { a = 1 }))
  local _, second = resource.ensure(thing(world, { a = 1 }))
  local _, third = resource.ensure(thing(world, { a = 2 }))
  t.eq({ first, second, third }, { "created", "unchanged", "updated" })
  t.eq(world.acts, 2)
end)

t.test("a_plan_does_nothing", function()
  local world = { value = { a = 1 } }
  local plan = resource.plan(thing(world, { a = 2 }))
  t.eq(plan.action, "update")
  t.eq(plan.changes, { { field = "a", from = 1, to = 2 } })
  t.eq(world.acts, nil)
end)

t.test("a_foreign_object_is_an_error_unless_adopted", function()
  local world = { value = { a = 1 } }
  local foreign = function() return "was made by somebody" end
  local err = t.err("conflict", function() resource.ensure(thing(world, { a = 2 }, { foreign = foreign })) end)
  t.match(err.hint, "adopt = true")
  t.eq(world.acts, nil)
  resource.ensure(thing(world, { a = 2 }, { foreign = foreign, adopt = true }))
  t.eq(world.acts, 1)
end)

t.test("a_guard_stands_between_comparing_and_acting", function()
  local world = { value = { a = 1 } }
  local seen
  local remove = resource.guard(function(plan)
    seen = plan.changes[1].field
    return nil, "not today"
  end)
  local err = t.err("denied", function() resource.ensure(thing(world, { a = 2 })) end)
  remove()
  t.match(err.message, "not today")
  t.eq({ seen, world.acts }, { "a" })
  resource.ensure(thing(world, { a = 2 }))
  t.eq(world.acts, 1)
end)

t.test("an_unknown_field_is_named_with_the_nearest_known_one", function()
  local err = t.err("invalid", function() spec.check("ensure_x", { instance_typs = {} }, { instance_types = { type = "list" } }) end)
  t.match(err.message, "unknown field 'instance_typs', did you mean 'instance_types'%?")
end)

t.test("a_wrong_value_says_what_was_wanted", function()
  local rules = { n = { type = "integer", min = 0, max = 100 }, word = { type = "string", one_of = { a = true, b = true } } }
  t.match(t.err("invalid", function() spec.check("f", { n = 130 }, rules) end).message, "n must be at most 100, got 130")
  t.match(t.err("invalid", function() spec.check("f", { n = "3" }, rules) end).message, "n must be an integer, got string")
  t.match(t.err("invalid", function() spec.check("f", { word = "c" }, rules) end).message, "word must be one of a, b")
  t.match(t.err("invalid", function() spec.check("f", {}, { must = { type = "any", required = true } }) end).message, "'must' is missing")
end)

t.test("an_error_is_one_line_with_code_request_id_and_hint", function()
  local err = errors.new("denied", "cannot do it:\n no right", { code = "Forbidden.RAM", request_id = "R-1", hint = "grant it" })
  t.eq(tostring(err), "cannot do it: no right (Forbidden.RAM, request id R-1); grant it")
end)

t.test("a_wrapped_error_keeps_its_kind_and_names_its_cause", function()
  local outer = errors.wrap(errors.new("not_found", "no such bucket", { code = "NoSuchBucket" }), "cannot mount")
  t.eq(outer.kind, "not_found")
  t.eq(tostring(outer), "cannot mount (NoSuchBucket), caused by: no such bucket")
  t.eq(errors.from("boom").kind, "internal")
end)

t.test("what_was_not_done_is_tried_again_and_what_may_have_been_is_not", function()
  local function attempts_of(kind, policy)
    local n = 0
    policy.base, policy.attempts = 0.001, 3
    http.retry(policy, function()
      n = n + 1
      return nil, errors.new(kind, "failed")
    end)
    return n
  end
  t.eq(attempts_of("throttled", {}), 3)
  t.eq(attempts_of("network", {}), 1)
  t.eq(attempts_of("network", { idempotent = true }), 3)
  t.eq(attempts_of("denied", { idempotent = true }), 1)
  t.eq(attempts_of("cancelled", { idempotent = true }), 1)
end)

t.test("a_server_that_says_when_is_believed", function()
  local task = require "eirun.task"
  local started, n = task.now(), 0
  local value = http.retry({ base = 0.01 }, function()
    n = n + 1
    if n == 2 then return "done" end
    return nil, errors.new("throttled", "slow down", { retry_after = 0.3 })
  end)
  t.eq(value, "done")
  t.ok(task.now() - started >= 0.29, "it waited for less than it was told")
end)

t.test("endpoints_may_be_hosts_or_urls", function()
  t.eq(http.endpoint_url("cs.cn-hangzhou.aliyuncs.com"), "https://cs.cn-hangzhou.aliyuncs.com")
  t.eq(http.endpoint_url("http://127.0.0.1:18080/"), "http://127.0.0.1:18080")
  t.eq(http.split_url("http://127.0.0.1:18080/a?b"), { scheme = "http", host = "127.0.0.1:18080", path = "/a?b" })
  t.eq(http.split_url("nothing"), nil)
end)
