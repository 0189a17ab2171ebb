-- SPDX-License-Identifier: Apache-2.0
local json = require "eirun.core.json"
local secret = require "eirun.core.secret"
local t = require "eirun.test"
local yaml = require "eirun.core.yaml"

-- YAML text to the JSON that it means; what kubectl's own parser (sigs.k8s.io/yaml 1.6) makes of each was checked against it.
local function reads(text, expected)
  local value, err = yaml.decode(text)
  t.ok(err == nil, ("%q: %s"):format(text, err and err.message))
  t.eq(json.encode(value), expected, text)
end

local function refused(text, line, column, pattern)
  local value, err = yaml.decode(text)
  t.ok(value == nil and err ~= nil, ("%q was read"):format(text))
  t.eq(err.kind, "invalid")
  t.match(err.message, pattern)
  t.eq({ err.line, err.column }, { line, column })
end

t.test("plain_scalars_mean_what_kubectl_takes_them_for", function()
  local cases = {
    ["y"] = "true", ["Yes"] = "true", ["ON"] = "true", ["true"] = "true", ["n"] = "false", ["NO"] = "false", ["off"] = "false",
    ["yEs"] = '"yEs"', ["oN"] = '"oN"', ["nope"] = '"nope"',
    ["~"] = "null", ["null"] = "null", ["Null"] = "null", [""] = "null", ["nUll"] = '"nUll"', ["none"] = '"none"',
    ["0"] = "0", ["-0"] = "0", ["+12"] = "12", ["0755"] = "493", ["-017"] = "-15", ["0o17"] = "15", ["0x1F"] = "31", ["0B101"] = "5",
    ["-0x1f"] = "-31", ["1_000"] = "1000", ["0_7"] = "7", ["08"] = "8", ["-09"] = "-9", ["0x"] = '"0x"', ["0b2"] = '"0b2"',
    ["0o8"] = '"0o8"',
    ["9223372036854775807"] = "9223372036854775807", ["-9223372036854775808"] = "-9223372036854775808",
    ["1.0"] = "1.0", ["1e3"] = "1000.0", [".5"] = "0.5", ["-.5e1"] = "-5.0", ["5."] = "5.0",
    ["0.1"] = "0.1", ["1_000.5"] = "1000.5",
    ["1.e3"] = "1000.0", ["-0.0"] = "-0.0", ["12e03"] = "12000.0",
    ["12e4567"] = '"12e4567"', ["1e"] = '"1e"', ["e1"] = '"e1"', ["."] = '"."', ["-"] = '[null]', ["+"] = '"+"', ["1.2.3"] = '"1.2.3"',
    ["1,000"] = '"1,000"', ["_1"] = '"_1"', ["1:30"] = '"1:30"',
    ["2001-02-03"] = '"2001-02-03"', ["2001-02-03T04:05:06Z"] = '"2001-02-03T04:05:06Z"',
    ["nan"] = '"nan"', ["Infinity"] = '"Infinity"', ["="] = '"="', ["a b"] = '"a b"', ["a: b"] = '{"a":"b"}', ["0x1.8p1"] = '"0x1.8p1"',
  }
  for text, expected in pairs(cases) do
    reads(text, expected)
  end
  for _, text in ipairs { "yes", "0755", "null", "1e3", "" } do
    reads("'" .. text .. "'", '"' .. text .. '"')
    reads('"' .. text .. '"', '"' .. text .. '"')
    reads("a: |-\n  " .. text .. "\n", '{"a":"' .. text .. '"}')
  end
end)

t.test("numbers_that_json_has_not_are_refused", function()
  for _, text in ipairs { ".inf", "-.Inf", "+.INF", ".nan", ".NaN" } do
    refused("a: " .. text, 1, 4, "is no number that JSON has")
  end
  for _, text in ipairs { "9223372036854775808", "-9223372036854775809", "18446744073709551616", "0x10000000000000000", ("9"):rep(100) } do
    refused("- 1\n- " .. text, 2, 3, "does not fit 64 bits")
  end
  reads("'18446744073709551616'", '"18446744073709551616"')
end)

t.test("tags_say_what_a_scalar_is", function()
  reads("!!str 12", '"12"')
  reads("!!int '12'", "12")
  reads("!!float 3", "3.0")
  reads("!!bool 'yes'", "true")
  reads("!!null ''", "null")
  reads("!!binary Zm9v", '"foo"')
  reads("!mine 12", '"12"')
  reads("! 12", '"12"')
  reads("!!map {a: !!seq [1]}", '{"a":[1]}')
  refused("a: !!int x", 1, 4, "the value is no int")
  refused("a: !!bool 1", 1, 4, "no bool")
  refused("a: !!binary x", 1, 4, "base64")
end)

t.test("keys_become_strings_as_kubectl_makes_them", function()
  reads("1: a", '{"1":"a"}')
  reads("0x10: a", '{"16":"a"}')
  reads("true: a\noff: b", '{"false":"b","true":"a"}')
  reads("1.5: a\n1e6: b\n100.0: c\n0.00001: d\n1234567.0: e\n3.14159265358979: f",
    '{"1.234567e+06":"e","1.5":"a","100":"c","1e+06":"b","1e-05":"d","3.1415927":"f"}')
  refused("a: 1\n~: 2", 2, 1, "a key is null, a list or a map")
  refused("? [a]\n: 1", 1, 3, "a key is null, a list or a map")
  refused("{a: b}: 1", 1, 1, "a key is null, a list or a map")
end)

t.test("a_key_said_twice_is_refused_however_it_is_spelt", function()
  refused("a: 1\nb: 2\na: 3", 3, 1, "the key 'a' is said twice")
  refused("1: a\n'1': b", 2, 1, "the key '1' is said twice")
  refused("yes: 1\ny: 2", 2, 1, "the key 'true' is said twice")
  refused("x: {a: 1, a: 2}", 1, 11, "said twice")
  reads("a: {k: 1}\nb: {k: 1}", '{"a":{"k":1},"b":{"k":1}}')
end)

t.test("merges_fill_in_what_was_not_said", function()
  local base = "base: &b {p: 1, q: 2}\nd:\n"
  reads(base .. "  <<: *b\n  q: 3", '{"base":{"p":1,"q":2},"d":{"p":1,"q":3}}')
  reads("<<: [{a: 1}, {a: 2, b: 3}]\nc: 4", '{"a":1,"b":3,"c":4}')
  reads("<<: {a: {b: 1}}\na: 2", '{"a":2}')
  reads("x: {<<: {<<: {a: 1}, b: 2}, c: 3}", '{"x":{"a":1,"b":2,"c":3}}')
  reads("'<<': 1", '{"<<":1}')
end)

-- As go-yaml does it: a merge works where it stands.
t.test("a_merge_overrides_what_was_said_before_it", function()
  reads("a: 1\n<<: {a: 2}", '{"a":2}')
  refused("a: 1\n<<: {a: 2}\na: 3", 3, 1, "said twice")
  refused("<<: {a: 1}\nb: 1\nb: 2", 3, 1, "said twice")
  refused("<<: 1", 1, 1, "a merge needs a map or a list of maps")
  refused("<<: [1]", 1, 1, "a merge needs a map")
end)

t.test("anchors_are_copied_where_they_are_named", function()
  local value = yaml.decode "a: &x {k: [1]}\nb: *x\nc: [*x, *x]"
  t.eq(json.encode(value), '{"a":{"k":[1]},"b":{"k":[1]},"c":[{"k":[1]},{"k":[1]}]}')
  t.ok(value.a ~= value.b and value.a.k ~= value.b.k)
  reads("- &a 1\n- *a\n- &a 2\n- *a", "[1,1,2,2]")
  reads("&k key: *k", '{"key":"key"}')
  refused("a: *x", 1, 4, "no anchor 'x'")
  refused("a: &x [*x]", 1, 8, "no anchor 'x'")
  t.match(select(2, yaml.decode_all "a: &x 1\n---\nb: *x").message, "line 3, column 4: no anchor 'x'")
end)

t.test("aliases_that_grow_beyond_measure_are_refused", function()
  local lines = { "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]" }
  for i = 1, 9 do
    local item = "*a" .. i - 1
    lines[#lines + 1] = ("a%d: &a%d [%s]"):format(i, i, table.concat({ item, item, item, item, item, item, item, item, item }, ", "))
  end
  local before = collectgarbage "count"
  t.match(select(2, yaml.decode(table.concat(lines, "\n"))).message, "aliases stand for more than")
  t.ok(collectgarbage "count" - before < 10000)
  local merges = { "m0: &m0 {k: " .. ("x"):rep(1000) .. "}" }
  for i = 1, 5000 do
    merges[#merges + 1] = ("m%d: {<<: *m0}"):format(i)
  end
  t.match(select(2, yaml.decode(table.concat(merges, "\n"))).message, "aliases stand for more than")
end)

t.test("a_stream_holds_documents", function()
  local function all(text) return json.encode(assert(yaml.decode_all(text))) end
  t.eq(all "a: 1\n---\nb: 2\n", '[{"a":1},{"b":2}]')
  t.eq(all "---\na: 1\n...\n---\n", '[{"a":1},null]')
  t.eq(all "# nothing\n", "[]")
  t.eq(all "", "[]")
  t.eq(all "%YAML 1.1\n---\na\n", '["a"]')
  reads("", "null")
  reads("---\n", "null")
  reads("--- # comment\na: 1 # another\n", '{"a":1}')
  local value, err = yaml.decode "a\n---\nb"
  t.ok(value == nil)
  t.match(err.message, "2 documents")
end)

t.test("block_scalars_keep_their_lines", function()
  reads("a: |\n  x\n   y\n\n  z\n", '{"a":"x\\n y\\n\\nz\\n"}')
  reads("a: |-\n  x\n\n", '{"a":"x"}')
  reads("a: |+\n  x\n\n", '{"a":"x\\n\\n"}')
  reads("a: >\n  x\n  y\n\n  z\n", '{"a":"x y\\nz\\n"}')
  reads("a: |2\n   x\n", '{"a":" x\\n"}')
  reads("a: 'it''s'\nb: \"\\u00e9\\t\\x41\"", '{"a":"it\'s","b":"é\\tA"}')
  reads("a: one\n  two", '{"a":"one two"}')
end)

t.test("marks_for_arrays_and_null_are_jsons", function()
  local value = yaml.decode "a: []\nb: {}\nc: ~"
  t.ok(yaml.is_array(value.a) and json.is_array(value.a) and not json.is_array(value.b))
  t.ok(value.c == json.null and yaml.null == json.null)
  t.ok(json.is_array(yaml.decode_all ""))
end)

t.test("what_is_no_yaml_is_refused_with_its_place", function()
  refused("a:\n\tb: 1", 2, 1, "a tab cannot indent")
  refused("a: b: c", 1, 5, "mapping values are not allowed")
  refused("a: [1, 2", 2, 1, "expected ',' or ']'")
  refused("- a\nb: 1", 2, 1, "expected '%-' indicator")
  refused("a: 'x", 1, 6, "unexpected end of stream")
  refused("a: @x", 1, 4, "cannot start any token")
  refused("x: \255", 1, 4, "UTF%-8")
  refused("é: a\né: \1", 2, 4, "control characters")
  refused("a: \"\\q\"", 1, 5, "unknown escape")
  refused("a: !x!y z", 1, 4, "undefined tag handle")
end)

t.test("a_byte_order_mark_is_no_part_of_the_text", function()
  reads("\239\187\191a: 1", '{"a":1}')
  reads("\255\254a\0:\0 \0001\0", '{"a":1}')
end)

t.test("depth_is_limited", function()
  refused(("["):rep(513) .. ("]"):rep(513), 1, 513, "nested deeper")
  t.ok(yaml.decode(("["):rep(512) .. ("]"):rep(512)))
end)

t.test("an_error_does_not_quote_values", function()
  local _, err = yaml.decode "password: hunter2: x"
  t.ok(not err.message:find("hunter", 1, true))
end)

t.test("text_is_plain_unless_it_would_be_read_as_something_else", function()
  local plain = { "a", "a b", "tensorflow/serving:1.15.0-gpu", "/models", "1.2.3", "1.2.3-4",
    "v1", "é", "a:b", "a#b", "it's", "-x", "yEs", "2025-10", "x=y" }
  for _, text in ipairs(plain) do
    t.eq(yaml.encode(text), text .. "\n")
  end
  local quoted = {
    "", "~", "null", "Null", "yes", "No", "on", "OFF", "y", "N", "true", "False", "0", "12", "-1", "0755", "0o17", "0x1f", "1e3", "1_000",
    "1.5", ".5", "12e4567", ".inf", ".NaN", "1:30", "2001-02-03", "2001-02-03T04:05:06Z", "=", "<<", "99999999999999999999",
    " a", "a ", "a: b", "a #b", "#a", "- a",
    "a:", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a", "'a", "\"a", "{a", "[a", "]", ",", "?", "? a", "-",
    "---", "...", "\t", "\1", "\u{85}", "\u{2028}", "\u{feff}",
  }
  for _, text in ipairs(quoted) do
    local written = yaml.encode(text)
    t.match(written, "^['\"].*['\"]\n$")
    t.eq(yaml.decode(written), text)
    t.eq(yaml.decode(yaml.encode { [text] = 1 }), { [text] = 1 })
  end
end)

t.test("text_of_several_lines_is_a_block", function()
  t.eq(yaml.encode { a = "x\ny\n", b = "x\ny" }, "a: |\n  x\n  y\nb: |-\n  x\n  y\n")
  local texts = {
    "\n", "\n\n", "a\n", "a\n\n", "\na", " a\nb", "a \nb", "a\n b\n", "\ta\n", "a\r\nb", "a\n\n\nb",
    "- a\n- b", "a\n ", "# a\n", "a\n\t\n",
  }
  for _, text in ipairs(texts) do
    for _, value in ipairs { text, { text }, { k = text }, { k = { text, "x" } } } do
      t.eq(yaml.decode(yaml.encode(value)), value)
    end
  end
end)

t.test("output_is_stable_and_as_kubectl_lays_it_out", function()
  local value = { b = { 1, { 2, 3 }, { k = 1, a = {} } }, a = json.array {}, c = json.null, d = 3.0, e = 9007199254740993, ["1"] = true }
  t.eq(yaml.encode(value), '"1": true\na: []\nb:\n- 1\n- - 2\n  - 3\n- a: {}\n  k: 1\nc: null\nd: 3.0\ne: 9007199254740993\n')
  t.eq(yaml.encode {}, "{}\n")
  t.eq(yaml.encode(json.array {}), "[]\n")
  t.eq(yaml.encode(("x "):rep(200) .. "x"), ("x "):rep(200) .. "x\n")
end)

t.test("encode_all_writes_a_stream", function()
  t.eq(yaml.encode_all { { a = 1 }, { b = 2 } }, "a: 1\n---\nb: 2\n")
  t.eq(yaml.encode_all {}, "")
  local docs = { "x", json.null, json.array {}, { "a\n\n" }, "y\n\n", 1 }
  t.eq(json.encode(yaml.decode_all(yaml.encode_all(docs))), json.encode(docs))
end)

local function message_of(value)
  local ok, err = pcall(yaml.encode, value)
  t.ok(not ok, "was encoded")
  return tostring(type(err) == "table" and err.message or err)
end

t.test("what_cannot_be_written_is_named_by_its_path", function()
  t.match(message_of { a = { 0 / 0 } }, "value%.a%[1%]: the number is not finite")
  t.match(message_of { a = "\255" }, "value%.a: the string is not UTF%-8")
  t.match(message_of { a = print }, "value%.a: a function is no document")
  t.match(message_of { a = secret.new "hunter2" }, "value%.a: it is a secret")
  t.ok(not pcall(yaml.encode))
  t.ok(not pcall(yaml.encode_all, "x"))
end)

t.test("a_secret_is_written_only_when_asked_and_the_text_is_a_secret", function()
  t.eq(tostring(yaml.encode({ a = secret.new "hunter2" }, { reveal = true })), "<secret>")
end)
