-- SPDX-License-Identifier: Apache-2.0
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local secret = require "eirun.core.secret"
local t = require "eirun.test"

-- The cases are JSONTestSuite's ideas in our own spelling: what must be read, what must not.
local accepted = {
  "[]", "{}", "null", "true", "false", "0", "-0", "-1", "\"\"", " [1] \n", "[ ]", "{ }", "[[[]]]",
  "[1,2]", "[1 , 2]", "[null,true,false]", "[\"a\",{\"b\":[]}]", "{\"\":0}", "{\"a\":{\"a\":1}}",
  "[0e1]", "[0E+1]", "[1e-2]", "[1E22]", "[1.5e+9]", "[-0.0]", "[123.456789]",
  "[0.000000000000000000000000000000000000000000000000000000000000000000000000000001]",
  "[\"\\u0060\\u012a\\u12AB\"]", "[\"\\ud83d\\ude00\"]", "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]", "[\"\\u0000\"]", "[\"\\uFFFF\"]",
  "[\"a/*b*/c\"]", "[\"\u{10ffff}\"]", "[\"\u{2028}\"]", "[\"\u{7f}\"]", "[\"\u{a66d}\"]", "\t[\r\n1\t]",
  "{\"a\":\"b\",\"A\":\"b\"}", "{\"x\\u0041\":1}", "[1e-999]",
}
local refused = {
  "", " ", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1,,2]", "[1 2]", "[1]]", "[1]x", "[1],", "[1][2]", "[:]",
  "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1,,\"b\":2}", "{a:1}", "{1:1}", "{'a':1}", "{\"a\" 1}", "{\"a\":1]", "{,}", "{:1}",
  "{\"a\":1 \"b\":2}", "{\"a\":1}#", "{\"a\":1}/**/", "[1]//x", "[/**/1]", "{null:1}", "{[]:1}", "{\"a\":\"b\":\"c\"}",
  "tru", "nul", "True", "NULL", "nan", "NaN", "Infinity", "-Infinity", "[-]", "[+1]", "[.5]", "[1.]", "[1.e1]", "[01]", "[-01]",
  "[0x1]", "[1e]", "[1e+]", "[1ea]", "[1_000]", "[--1]", "[- 1]", "[0.1.2]", "[2.e+3]", "[1a]", "[\u{ff11}]", "[1\0]", "123\0",
  "[\"a]", "[\"\\x\"]", "[\"\\u00\"]", "[\"\\u00G0\"]", "[\"\\\"]", "[\"\\a\"]", "[\"a\nb\"]", "[\"a\tb\"]", "[\"\0\"]", "['a']",
  "[\"\\ud800\"]", "[\"\\udc00\"]", "[\"\\ud800\\u0041\"]", "[\"\\uD800\\n\"]", "[\"\255\"]", "[\"\192\175\"]", "[\"\237\160\128\"]",
  "[\"\244\191\191\191\"]", "[\"\224\255\"]", "\239\187\191{}", "[\f]", "[\v1]", "[\u{a0}]", "[1]\0", "\\u0020[]", "*", "<.>", "[a",
}

t.test("every_valid_text_is_read_and_written_the_same_twice", function()
  for _, text in ipairs(accepted) do
    local value, err = json.decode(text)
    t.ok(err == nil, ("%q: %s"):format(text, err and err.message))
    local once = json.encode(value)
    t.eq(json.encode((json.decode(once))), once)
  end
end)

t.test("every_invalid_text_is_refused_with_its_place", function()
  for _, text in ipairs(refused) do
    local value, err = json.decode(text)
    t.ok(value == nil and err ~= nil, ("%q was read"):format(text))
    t.eq(err.kind, "invalid")
    t.ok(err.line >= 1 and err.column >= 1, "no place")
    t.match(err.message, "^line %d+, column %d+: ")
  end
end)

t.test("a_key_said_twice_is_refused", function()
  local _, err = json.decode('{"a":1,\n "a":2}')
  t.eq(err.kind, "invalid")
  t.eq(err.line, 2)
  t.match(err.message, "duplicate object key")
  t.eq(select(2, json.decode('{"a":1,"\\u0061":1}')).kind, "invalid")
end)

t.test("an_error_names_line_and_column_and_never_quotes_the_text", function()
  local _, err = json.decode('{\n  "password": hunter2\n}')
  t.eq(err.line, 2)
  t.ok(err.column >= 15 and err.column <= 21)
  t.ok(not err.message:find("hunter", 1, true))
end)

t.test("integers_stay_64_bit_integers_and_floats_stay_floats", function()
  local values = json.decode "[9007199254740993, -9223372036854775808, 9223372036854775807, 3, 3.0, 1e2, -0.0]"
  t.eq(math.type(values[1]), "integer")
  t.eq(values[1], 9007199254740993)
  t.eq(values[2], math.mininteger)
  t.eq(values[3], math.maxinteger)
  t.eq(math.type(values[4]), "integer")
  t.eq(math.type(values[5]), "float")
  t.eq(math.type(values[6]), "float")
  t.eq(json.encode(values), "[9007199254740993,-9223372036854775808,9223372036854775807,3,3.0,100.0,-0.0]")
end)

t.test("a_number_beyond_a_double_is_an_error_and_not_a_guess", function()
  for _, text in ipairs { "[1e999]", "[-1e999]", "1" .. ("0"):rep(400), "[18446744073709551616, 1e999]" } do
    local value, err = json.decode(text)
    t.ok(value == nil, text)
    t.eq(err.kind, "invalid")
  end
end)

t.test("an_integer_beyond_64_bits_is_the_nearest_float_and_costs_the_rest_nothing", function()
  for _, text in ipairs { "9223372036854775808", "-9223372036854775809", "18446744073709551615", "123456789012345678901234567890" } do
    local value = json.decode(text)
    t.eq(math.type(value), "float", text)
    t.eq(value, tonumber(text), text) -- Lua's own reader
  end
  local text = '{"a\\"9223372036854775808":[9223372036854775807,-9223372036854775808,99999999999999999999,1],'
    .. '"s":"\\\\ 99999999999999999999","e":1e20,"f":99999999999999999999.5,"z":-99999999999999999999}'
  t.eq(json.decode(text), { ['a"9223372036854775808'] = { math.maxinteger, math.mininteger, 1e20, 1 },
    s = "\\ 99999999999999999999", e = 1e20, f = 1e20, z = -1e20 })
end)

t.test("a_mistake_behind_such_an_integer_has_its_own_place", function()
  for _, number in ipairs { "99999999999999999998", "1234567890123456789" } do -- both beyond and within
    local _, err = json.decode("[" .. number .. ",\n " .. number .. ", " .. number .. ", oops]")
    t.eq({ err.kind, err.line }, { "invalid", 2 })
    t.eq(err.column, 2 * #number + 9)
  end
end)

t.test("floats_are_written_with_the_fewest_digits_that_read_back", function()
  local texts = {
    "0.1", "0.3333333333333333", "1e+20", "1e-7", "5e-324", "2.5", "1.7976931348623157e+308", "123456789.125",
    "1e+15", "0.30000000000000004",
    "-2.2250738585072014e-308", "1e-310", "100.0", "1e+100",
  }
  for _, text in ipairs(texts) do
    t.eq(json.encode(tonumber(text)), text)
    t.eq(json.decode(text), tonumber(text))
  end
end)

t.test("the_empty_array_differs_from_the_empty_object", function()
  t.eq(json.encode {}, "{}")
  t.eq(json.encode(json.array {}), "[]")
  t.eq(json.encode(json.array()), "[]")
  t.eq(json.encode(json.decode '{"a":[],"b":{}}'), '{"a":[],"b":{}}')
  t.ok(json.is_array(json.decode "[]"))
  t.ok(not json.is_array(json.decode "{}"))
  t.ok(not json.is_array "x")
  t.ok(getmetatable(json.decode "[1]") == getmetatable(json.array {}))
end)

t.test("null_is_a_value_equal_to_cjsons", function()
  local value = json.decode '{"a":null,"b":[null]}'
  t.ok(value.a == json.null)
  t.ok(value.b[1] == json.null)
  t.ok(json.null == require "cjson".null)
  t.eq(json.encode { a = json.null }, '{"a":null}')
end)

t.test("cjson_is_there_for_playbooks", function()
  t.eq(require "cjson".decode('{"a":"b"}').a, "b")
  t.ok(require "cjson.safe".decode "{" == nil)
end)

t.test("keys_are_sorted_by_their_bytes", function()
  t.eq(json.encode { b = 1, a = 2, B = 3, ["a\0"] = 4, ["é"] = 5, [""] = 6, ab = 7 },
    '{"":6,"B":3,"a":2,"a\\u0000":4,"ab":7,"b":1,"é":5}')
  local many, expected = {}, {}
  for i = 1, 500 do
    many[("k%03d"):format(i)] = i
    expected[i] = ('"k%03d":%d'):format(i, i)
  end
  t.eq(json.encode(many), "{" .. table.concat(expected, ",") .. "}")
end)

t.test("strings_are_escaped_as_rfc_8259_asks", function()
  t.eq(json.encode "\"\\/\b\f\n\r\t\0\31\127é\u{10ffff}", '"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\127é\u{10ffff}"')
  for byte = 0, 127 do
    t.eq(json.decode(json.encode(string.char(byte))), string.char(byte))
  end
end)

t.test("indent_writes_one_member_a_line", function()
  t.eq(json.encode({ a = { 1, 2 }, b = {}, c = json.array {} }, { indent = true }),
    '{\n  "a": [\n    1,\n    2\n  ],\n  "b": {},\n  "c": []\n}')
end)

local function message_of(value, opts)
  local ok, err = pcall(json.encode, value, opts)
  t.ok(not ok, "was encoded")
  return tostring(type(err) == "table" and err.message or err)
end

t.test("what_cannot_be_written_is_named_by_its_path", function()
  local cycle = { spec = { list = { {} } } }
  cycle.spec.list[1].back = cycle
  t.match(message_of(cycle), "value%.spec%.list%[1%]%.back: the table contains itself")
  t.match(message_of { a = { 1, 0 / 0 } }, "value%.a%[2%]: the number is not finite")
  t.match(message_of { a = math.huge }, "value%.a: the number is not finite")
  t.match(message_of { a = "\255" }, "value%.a: the string is not UTF%-8")
  t.match(message_of { ["\255"] = 1 }, 'value%["%?"%]: the string is not UTF%-8')
  t.match(message_of { a = "\237\160\128" }, "not UTF%-8")
  t.match(message_of { x = { 1, 2, n = 2 } }, "value%.x: the table is both an array and an object")
  t.match(message_of { x = { [1] = 1, [3] = 3 } }, "value%.x: the array has a hole")
  t.match(message_of { x = { [0] = 1 } }, "value%.x: the array has a hole or an index below 1")
  t.match(message_of { x = json.array { 1, k = 1 } }, "value%.x: the table is both")
  t.match(message_of { x = { [true] = 1 } }, "value%.x: a key is not a string")
  t.match(message_of { x = { [1.5] = 1 } }, "value%.x: a key is not a string")
  t.match(message_of { ["a b"] = print }, 'value%["a b"%]: a function is no document')
  t.match(message_of(crypto.digest "md5"), "value: a userdata is no document")
end)

t.test("depth_is_limited_both_ways", function()
  local deep = {}
  local at = deep
  for _ = 1, 2047 do
    at.a = {}
    at = at.a
  end
  t.eq(json.encode(json.decode(json.encode(deep))), json.encode(deep))
  at.a = {}
  t.match(message_of(deep), "nested too deeply")
  t.ok(json.decode(("["):rep(2048) .. ("]"):rep(2048)))
  t.match(select(2, json.decode(("["):rep(2049) .. ("]"):rep(2049))).message, "depth")
end)

t.test("a_secret_is_written_only_when_asked_and_the_text_is_a_secret", function()
  local value = { password = secret.new "hunter2" }
  local message = message_of(value)
  t.match(message, "value%.password: it is a secret")
  t.ok(not message:find("hunter", 1, true))
  local text = json.encode(value, { reveal = true })
  t.ok(secret.is(text))
  t.eq(tostring(text), "<secret>")
  t.ok(secret.is(json.encode({ 1 }, { reveal = true })))
  t.eq(json.encode({ 1 }), "[1]")
end)

t.test("a_finalizer_that_encodes_does_not_disturb_an_encode_in_progress", function()
  local big = {}
  for i = 1, 2000 do
    big[i] = { k = ("x"):rep(50) .. i }
  end
  local expected = json.encode(big)
  for _ = 1, 50 do
    setmetatable({}, { __gc = function() json.encode { 1, 2, 3 } end })
  end
  collectgarbage("generational")
  local got = json.encode(big)
  collectgarbage("incremental")
  t.eq(got, expected)
end)

t.test("an_encode_that_failed_leaves_the_next_one_alone", function()
  pcall(json.encode, { 1, 2, { 0 / 0 } })
  t.eq(json.encode { 1 }, "[1]")
  t.eq(json.encode(("x"):rep(200000)):len(), 200002)
  t.eq(json.encode { 2 }, "[2]")
end)

t.test("wrong_arguments_raise", function()
  t.ok(not pcall(json.decode))
  t.ok(not pcall(json.decode, {}))
  t.ok(not pcall(json.encode))
  t.ok(not pcall(json.encode, {}, { indnt = true }))
  t.ok(not pcall(json.array, 1))
  t.ok(not pcall(json.array, setmetatable({}, {})))
end)
