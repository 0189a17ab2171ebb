-- SPDX-License-Identifier: Apache-2.0
-- Files, programs and formats as playbooks have them: what fails is raised, wrong use names the caller's line.
local crypto = require "eirun.crypto"
local fs = require "eirun.fs"
local json = require "eirun.json"
local process = require "eirun.process"
local secret = require "eirun.secret"
local t = require "eirun.test"
local task = require "eirun.task"
local yaml = require "eirun.yaml"

local function with_dir(body)
  local dir = fs.mkdtemp "/tmp/eirun-host-"
  local ok, err = pcall(body, dir)
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

t.test("json_and_yaml_keep_values_and_marks", function()
  local value = json.decode '{"a":[],"b":{},"c":null,"d":9007199254740993,"e":3.0}'
  t.eq(json.encode(value), '{"a":[],"b":{},"c":null,"d":9007199254740993,"e":3.0}')
  t.eq(json.encode(yaml.decode(yaml.encode(value))), json.encode(value))
  t.ok(value.c == json.null and json.null == yaml.null and json.is_array(value.a) and yaml.is_array(value.a), "marks")
  t.eq(#yaml.decode_all(yaml.encode_all { { a = 1 }, { b = 2 } }), 2)
  t.eq(yaml.encode { a = yaml.array {} }, "a: []\n")
end)

t.test("text_that_cannot_be_read_raises_with_its_place", function()
  t.eq(t.err("invalid", json.decode, "[1,\n oops]").line, 2)
  t.eq(t.err("invalid", yaml.decode, "a: b\n\tc: d").line, 2)
end)

local function line_here() return debug.getinfo(2, "l").currentline end

t.test("wrong_use_is_invalid_with_the_callers_line", function()
  local err = t.err("invalid", function() json.encode { a = { b = print } } end)
  t.match(err.message, "test_lib_host%.lua:" .. line_here() - 1 .. ": cannot encode value%.a%.b")
  err = t.err("invalid", function() process.run { "true", timeuot = 1 } end)
  t.match(err.message, "test_lib_host%.lua:" .. line_here() - 1 .. ": .*timeout")
  err = t.err("invalid", function() json.decode() end)
  t.match(err.message, "^[^']*test_lib_host%.lua:" .. line_here() - 1 .. ": bad argument #1")
  t.ok(not err.message:find("eirun.core", 1, true), err.message)
end)

t.test("files_are_written_read_listed_and_removed", function()
  with_dir(function(dir)
    fs.mkdir(dir .. "/a/b", { parents = true })
    fs.write(dir .. "/a/x", "one")
    fs.append(dir .. "/a/x", " two")
    t.eq(fs.read(dir .. "/a/x"), "one two")
    fs.rename(dir .. "/a/x", dir .. "/a/y")
    t.eq(fs.list(dir .. "/a"), { "b", "y" })
    t.eq({ fs.stat(dir .. "/a/y").size, fs.stat(dir .. "/a").type, fs.stat(dir .. "/none") }, { 7, "directory" })
    t.eq(crypto.hex(fs.digest(dir .. "/a/y", { "md5" }).md5), crypto.hex(crypto.md5 "one two"))
    t.eq(fs.realpath(dir .. "/a/../a/y"), fs.realpath(dir) .. "/a/y")
  end)
end)

t.test("what_files_refuse_is_raised_with_its_kind", function()
  with_dir(function(dir)
    t.match(t.err("not_found", fs.read, dir .. "/none").message, "cannot open")
    t.err("not_found", fs.write, dir .. "/none/x", "")
    t.err("not_found", fs.remove, dir .. "/none")
    t.err("not_found", fs.list, dir .. "/none")
    t.err("conflict", fs.mkdir, dir)
    fs.mkdir(dir .. "/full")
    fs.write(dir .. "/full/x", "")
    t.err("conflict", fs.remove, dir .. "/full")
    t.err("not_found", fs.list, dir .. "/full/x")
    t.err("quota", function()
      fs.write(dir .. "/long", "12345")
      fs.read(dir .. "/long", 4)
    end)
    t.err("invalid", fs.digest, dir .. "/full/x", { "md6" })
  end)
end)

t.test("a_programs_exit_code_is_a_result_and_what_cannot_start_is_raised", function()
  t.eq(process.run({ "sh", "-c", "echo out; echo err >&2; exit 3" }), { code = 3, stdout = "out\n", stderr = "err\n" })
  t.err("not_found", process.run, { "/no/such/program" })
  t.eq(t.err("timeout", process.run, { "sh", "-c", "echo so far; sleep 9", timeout = 0.2 }).stdout, "so far\n")
end)

t.test("a_cancel_passes_through", function()
  local err = t.err("timeout", task.timeout, 0.05, function() process.run { "sleep", "9" } end)
  t.ok(err.message, "a message")
end)

t.test("secrets_stay_secret", function()
  local token = secret.concat("Bearer ", secret.new "abc")
  t.eq({ tostring(token), secret.is(token), secret.is "x" }, { "<secret>", true, false })
  t.err("invalid", json.encode, { token })
  t.ok(crypto.constant_time_equal(crypto.unbase64(crypto.base64(token)), "Bearer abc"), "the same bytes")
  t.err("invalid", secret.new, nil)
end)

t.test("what_is_no_hex_and_no_base64_is_raised", function()
  t.err("invalid", crypto.unhex, "4")
  t.err("invalid", crypto.unbase64, "A")
  t.eq({ crypto.unhex "41", crypto.percent_encode("a b/c", "path"), #crypto.random(5) }, { "A", "a%20b/c", 5 })
end)
