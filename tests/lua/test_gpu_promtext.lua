-- SPDX-License-Identifier: Apache-2.0
-- The Prometheus text format as strangers write it, and as nobody should.
local promtext = require "eirun.gpu.promtext"
local t = require "eirun.test"

local function one(line)
  return promtext.line(line)
end

local function read(text, opts)
  local list = {}
  local seen = promtext.read(text, function(sample) list[#list + 1] = sample end, opts)
  return list, seen
end

t.test("promtext_lines_have_name_labels_value_and_time", function()
  t.eq(one "up 1", { name = "up", labels = {}, value = 1.0 })
  t.eq(one 'a:b_c{x="1",y="two, {three}"} -2.5e3 1700000000000',
    { name = "a:b_c", labels = { x = "1", y = "two, {three}" }, value = -2500.0, timestamp = 1700000000000.0 })
  t.eq(one 'up{} 1', { name = "up", labels = {}, value = 1.0 })
  t.eq(one 'up { a = "b" , } 0x10', { name = "up", labels = { a = "b" }, value = 16.0 })
  t.eq(one '  up\t{a="b"}\t1  ', { name = "up", labels = { a = "b" }, value = 1.0 })
end)

t.test("promtext_escapes_are_undone", function()
  t.eq(one [[m{a="q\"uote",b="back\\slash",c="new\nline",d="odd\t",e=""} 1]].labels,
    { a = 'q"uote', b = "back\\slash", c = "new\nline", d = "odd\\t", e = "" })
  t.eq(one [[m{a="\\\\n"} 1]].labels.a, [[\\n]])
  t.eq(one 'm{a="ünïcode"} 1'.labels.a, "ünïcode")
end)

t.test("promtext_takes_nan_and_infinities_in_every_spelling", function()
  for _, word in ipairs { "NaN", "nan", "NAN" } do t.ok(one("m " .. word).value ~= one("m " .. word).value, word) end
  for _, word in ipairs { "Inf", "+Inf", "inf", "Infinity", "+infinity" } do t.eq(one("m " .. word).value, math.huge, word) end
  for _, word in ipairs { "-Inf", "-inf" } do t.eq(one("m " .. word).value, -math.huge, word) end
  t.eq({ 1 / one("m -0").value, 1 / one("m -0.0").value, 1 / one("m 0").value }, { -math.huge, -math.huge, math.huge })
  t.eq({ one("m +5").value, one("m .5").value, one("m 5.").value, one("m 1e-3").value }, { 5.0, 0.5, 5.0, 0.001 })
end)

t.test("promtext_passes_over_exemplars", function()
  t.eq(one 'h_bucket{le="1.0"} 4 # {trace_id="a\\"b"} 0.67 1.5', { name = "h_bucket", labels = { le = "1.0" }, value = 4.0 })
  t.eq(one 'h_bucket{le="1.0"} 4 12.5 # {} 0.67', { name = "h_bucket", labels = { le = "1.0" }, value = 4.0, timestamp = 12.5 })
  t.eq(one 'h_bucket{le="1.0"} 4 # nothing', nil)
end)

t.test("promtext_takes_names_in_quotes", function()
  t.eq(one '{"http.requests",a="b"} 3', { name = "http.requests", labels = { a = "b" }, value = 3.0 })
  t.eq(one 'm{"a.b"="c"} 3', { name = "m", labels = { ["a.b"] = "c" }, value = 3.0 })
end)

t.test("promtext_lines_that_are_none_are_nil", function()
  for _, line in ipairs { "m", "m ", "1 m", "m{", "m{a} 1", 'm{a="b" 1', 'm{a="b} 1', 'm{a="b"c="d"} 1', 'm{a="1",a="2"} 1', "m x", "m 1 x",
    "m 1 2 3", 'm{a="b\\', "m 1_000", "m 0x", "m nanx", "{} 1", '{a="b"} 1', "m{=} 1", "m --1", "<html>", '"m" 1' } do
    t.eq(one(line), nil, line)
  end
end)

t.test("promtext_reads_bodies_and_counts_what_is_none", function()
  local list, seen = read('# HELP a "text"\n# TYPE a counter\na 1\r\n\n  \nb{ 2\nc 3\n# EOF\n')
  t.eq({ #list, list[1].name, list[2].name }, { 2, "a", "c" })
  t.eq({ seen.samples, seen.bad, seen.first_bad, seen.first_bad_line, seen.types }, { 2, 1, "b{ 2", 6, { a = "counter" } })
  t.eq(#read "a 1", 1)
  t.eq(#read "", 0)
  t.eq(#read("a 1\nb 2\nab 3\nb{x=\"1\"} 4\n", { names = { b = true } }), 2)
  t.err("invalid", function() read("<html> b 1", { names = { b = true } }) end)
  local pauses = 0
  read(("a 1\n"):rep(2500), { pause = function() pauses = pauses + 1 end })
  t.eq(pauses, 2)
end)

t.test("promtext_of_something_else_is_invalid", function()
  t.err("invalid", function() read "<html><body>502 Bad Gateway</body></html>" end)
  t.err("invalid", function() read '{"kind":"Status"}' end)
  t.err("invalid", function() read "\0\1\2\3" end)
end)

t.test("promtext_has_a_cap", function()
  t.err("quota", function() read(("a 1\n"):rep(10), { max_bytes = 39 }) end)
  t.eq(#read(("a 1\n"):rep(10), { max_bytes = 40 }), 10)
  t.eq(promtext.MAX_BYTES, 100 << 20)
end)

-- A generator of its own, so that a failure comes again: the seed stands in the message.
local function generator(seed)
  local state = seed
  return function(n)
    state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
    return (state >> 33) % n + 1
  end
end

local function any(draw, list)
  return list[draw(#list)]
end

local pieces = { "a", "Z", "0", " ", "{", "}", '"', "\\", "\n", ",", "=", "#", "é", "\t", "\0", "\255" }
local values = { 0.0, 1.0, -1.5, 1e300, 5e-324, 12345678901.0, math.huge, -math.huge }
local written_values = { [math.huge] = "+Inf", [-math.huge] = "-Inf" }

local function escape(text)
  return (text:gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }))
end

local function random_sample(draw)
  local sample = { name = any(draw, { "up", "a:b", "_x", "DCGM_FI_DEV_GPU_UTIL" }), labels = {}, value = any(draw, values) }
  local parts = {}
  for i = 1, draw(4) - 1 do
    local text = {}
    for j = 1, draw(6) - 1 do text[j] = any(draw, pieces) end
    sample.labels["l" .. i] = table.concat(text)
    parts[i] = ('l%d="%s"'):format(i, escape(table.concat(text)))
  end
  local line = ("%s{%s} %s"):format(sample.name, table.concat(parts, any(draw, { ",", ", " })),
    written_values[sample.value] or ("%.17g"):format(sample.value))
  if draw(3) == 1 then
    sample.timestamp = draw(1000000) + 0.0
    line = line .. (" %d"):format(sample.timestamp)
  end
  if draw(4) == 1 then line = line .. ' # {id="x"} 1 2' end
  return sample, line
end

t.test("promtext_reads_back_what_was_written", function()
  for seed = 1, 2000 do
    local sample, line = random_sample(generator(seed))
    t.eq(one(line), sample, ("seed %d: %s"):format(seed, line))
  end
end)

t.test("promtext_of_broken_bodies_neither_fails_nor_lasts", function()
  for seed = 1, 2000 do
    local draw, lines = generator(seed), {}
    for i = 1, draw(5) do lines[i] = select(2, random_sample(draw)) end
    local text = table.concat(lines, "\n")
    for _ = 1, draw(6) do -- cut, doubled, or a byte changed
      local at = draw(#text + 1)
      local what = draw(3)
      if what == 1 then
        text = text:sub(1, at - 1) .. any(draw, pieces) .. text:sub(at + 1)
      elseif what == 2 then
        text = text:sub(1, at)
      else
        text = text:sub(1, at) .. text:sub(at // 2 + 1)
      end
    end
    local ok, err = pcall(read, text)
    t.ok(ok or err.kind == "invalid", ("seed %d: %s"):format(seed, tostring(err)))
  end
end)

t.test("promtext_of_long_lines_takes_time_in_proportion", function()
  local clock = require("eirun.core.os").monotonic
  local function seconds(size)
    local text = "m{" .. ('a="' .. ("\\"):rep(size)) .. "\n" .. "m{" .. (" "):rep(size) .. "\n" .. ("{"):rep(size) .. "\nm 1\n"
    local from = clock()
    t.eq(#read(text), 1)
    return clock() - from
  end
  seconds(1000)
  t.ok(seconds(400000) < 5, "no more than linear")
end)
