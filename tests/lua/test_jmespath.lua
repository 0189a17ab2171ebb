-- SPDX-License-Identifier: Apache-2.0
-- The examples of jmespath.org's tutorial and specification.
local t = require "eirun.test"
local jmespath = require "eirun.jmespath"
local json = require "eirun.core.json"

local people = [[{"people":[{"first":"James","last":"d","age":30},{"first":"Jacob","last":"e"},{"first":"Jayden","last":"f","age":20},
  {"missing":"different"}],"foo":{"bar":"baz"}}]]
local nested = '{"reservations":[{"instances":[{"state":"running"},{"state":"stopped"}]},' ..
  '{"instances":[{"state":"terminated"},{"state":"running"}]}]}'
local machines = '{"machines":[{"name":"a","state":"running","n":3},' ..
  '{"name":"b","state":"stopped","n":1},{"name":"c","state":"running","n":2}]}'
local ops = '{"ops":{"functionA":{"numArgs":2},"functionB":{"numArgs":3},"functionC":{"variadic":true}}}'

local cases = {
  { '{"a":{"b":{"c":{"d":"value"}}}}', "a.b.c.d", '"value"' },
  { '{"a":1}', "b", "null" },
  { '["a","b","c","d","e","f"]', "[1]", '"b"' },
  { '["a","b","c"]', "[-1]", '"c"' },
  { '["a","b"]', "[5]", "null" },
  { '{"a":{"b":{"c":[{"d":[0,[1,2]]},{"d":[3,4]}]}}}', "a.b.c[0].d[1][0]", "1" },
  { "[0,1,2,3,4,5,6,7,8,9]", "[0:5]", "[0,1,2,3,4]" },
  { "[0,1,2,3,4,5,6,7,8,9]", "[5:]", "[5,6,7,8,9]" },
  { "[0,1,2,3,4,5,6,7,8,9]", "[::2]", "[0,2,4,6,8]" },
  { "[0,1,2,3,4,5,6,7,8,9]", "[::-1]", "[9,8,7,6,5,4,3,2,1,0]" },
  { "[0,1,2,3]", "[-2:]", "[2,3]" },
  { people, "people[*].first", '["James","Jacob","Jayden"]' },
  { people, "people[:2].first", '["James","Jacob"]' },
  { people, "people[*].first | [0]", '"James"' },
  { people, "people[?age > `20`].[first, age]", '[["James",30]]' },
  { people, "people[?age].{Name: first, Age: age}", '[{"Age":30,"Name":"James"},{"Age":20,"Name":"Jayden"}]' },
  { people, "length(people)", "4" },
  { people, "max_by(people[?age], &age).first", '"James"' },
  { people, "sort_by(people[?age], &age)[*].age", "[20,30]" },
  { people, "people[?!age].last", '["e"]' },
  { people, "foo.bar || 'x'", '"baz"' },
  { people, "nothing || 'x'", '"x"' },
  { ops, "ops.*.numArgs", "[2,3]" },
  { nested, "reservations[*].instances[*].state", '[["running","stopped"],["terminated","running"]]' },
  { nested, "reservations[].instances[].state", '["running","stopped","terminated","running"]' },
  { "[[0,1],2,[3],4,[5,[6,7]]]", "[]", "[0,1,2,3,4,5,[6,7]]" },
  { machines, "machines[?state=='running'].name", '["a","c"]' },
  { machines, "machines[?state!='running'] | [0].name", '"b"' },
  { machines, "machines[?state=='running' && n > `2` || name == 'b'].name", '["a","b"]' },
  { machines, "machines[?(n == `1` || n == `2`) && contains(name, 'c')].name", '["c"]' },
  { machines, "sum(machines[*].n)", "6" },
  { machines, "join(', ', sort(machines[*].name))", '"a, b, c"' },
  { machines, "keys(machines[0])", '["n","name","state"]' },
  { machines, "map(&name, machines)", '["a","b","c"]' },
  { machines, "not_null(nothing, machines[1].name)", '"b"' },
  { machines, "machines[?starts_with(state, 'run')].{id: name, more: {n: n}}",
    '[{"id":"a","more":{"n":3}},{"id":"c","more":{"n":2}}]' },
  { '{"with space":{"x-y":1}}', '"with space"."x-y"', "1" },
  { '{"TotalCount":9007199254740993}', "TotalCount", "9007199254740993" },
  { '{"price":3.0}', "price", "3.0" },
  { '{"a":"7"}', "to_number(a)", "7" },
  { '{"a":[1,2]}', "to_string(a)", '"[1,2]"' },
  { '{"a":null}', "type(a)", '"null"' },
  { '{"a":[]}', "a[*].b", "[]" },
  { '{"a":{"b":[{"c":1},{"c":null},{"c":3}]}}', "a.b[*].c", "[1,3]" },
  { "[3,1,2]", "sort(@)[0]", "1" },
  { "[3,1,2]", "@[?@ > `1`]", "[3,2]" },
}

t.test("expressions_find_what_the_language_says", function()
  for _, case in ipairs(cases) do
    local document, expression, expected = table.unpack(case)
    t.eq(json.encode(jmespath.search(expression, assert(json.decode(document)))), expected, expression)
  end
end)

t.test("what_is_no_jmespath_is_told_with_its_place", function()
  for expression, words in pairs {
    ["a["] = "the end comes too early at character 3", ["a b"] = "'b' does not fit at character 3",
    ["a.'x'"] = "does not fit at character 3",
    ["a #"] = "'#' is not understood at character 3", ["[?a"] = "too early", ["a | "] = "too early",
    ["'open"] = "no closing '",
  } do
    t.match(t.err("invalid", function() jmespath.check(expression) end).message, words, expression)
  end
  t.match(t.err("invalid", function() jmespath.search("lenght(@)", {}) end).message, "no function lenght%(%); known are abs, avg")
  t.match(t.err("invalid", function() jmespath.search("length(a, b)", {}) end).message, "takes 1 argument, not 2")
  t.match(t.err("invalid", function() jmespath.search("sum(`[\"a\"]`)", {}) end).message, "sum%(%) wants number, not string")
end)
