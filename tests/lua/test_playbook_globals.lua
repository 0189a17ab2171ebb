-- SPDX-License-Identifier: Apache-2.0
-- What a playbook and the files beside it can see of the program: the public library, and nothing below it.
local fs = require "eirun.core.fs"
local process = require "eirun.core.process"
local t = require "eirun.test"

local program = assert(fs.realpath "/proc/self/exe")

-- Runs `eirun VERB... book.lua` with these files in a folder of their own; answers the result and the folder's path.
local function run(files, verb, body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-globals-")
  for name, text in pairs(files) do assert(fs.write(dir .. "/" .. name, text)) end
  local call = { program, timeout = 30 }
  table.move(verb, 1, #verb, 2, call)
  call[#call + 1] = dir .. "/book.lua"
  local result = assert(process.run(call))
  local ok, err = pcall(body, result, dir)
  assert(fs.remove(dir, { recursive = true }))
  if not ok then error(err, 0) end
end

local function book(head, body)
  local text = 'local play = require "eirun.play"\n%s\nreturn play.book { name = "x", run = function(p) %s end }\n'
  return text:format(head or "", body or "")
end

t.test("a_module_of_the_host_is_refused_with_the_line_and_the_public_one", function()
  for _, verb in ipairs { {}, { "check" }, { "vars" } } do
    run({ ["book.lua"] = book 'local json = require "eirun.core.json"' }, verb, function(result)
      local text = result.stdout .. result.stderr
      t.eq(result.code, 1, text)
      t.match(text, 'book%.lua:2: require: \'eirun%.core%.json\' is the library\'s own: require "eirun%.json"')
    end)
  end
end)

t.test("a_module_that_has_no_public_face_is_refused_too", function()
  run({ ["book.lua"] = book 'local vm = require "eirun.core.vm"' }, {}, function(result)
    t.match(result.stderr, "book%.lua:2: require: 'eirun%.core%.vm' is the library's own: a playbook cannot have it")
  end)
end)

t.test("the_sandboxs_own_modules_are_refused_and_a_file_of_that_name_is_not", function()
  run({ ["book.lua"] = book 'local world = require "sandbox.world"' }, {}, function(result)
    t.match(result.stderr, "book%.lua:2: require: 'sandbox%.world' is the sandbox's own: require \"eirun%.sandbox\"")
  end)
  run({ ["book.lua"] = book('local mine = require "sandbox"', 'p:note(mine)'), ["sandbox.lua"] = 'return "my own"' }, {}, function(result)
    t.match(result.stdout, "my own")
  end)
end)

local ways = {
  step = book(nil, 'p:step("a", function() require "eirun.core.fs" end)'),
  protected = book 'local ok = pcall(require, "eirun.core.fs") assert(not ok, "got it")  error "as it should be"',
  global = book '_G.require "eirun.core.fs"',
  loaded = book 'local fs = package.loaded["eirun.core.fs"]',
  text = book 'load("return require [[eirun.core.fs]]")()',
  text_through_g = book '_G.load("return require [[eirun.core.fs]]")()',
}

for name, text in pairs(ways) do
  t.test("no_way_round_by_" .. name, function()
    run({ ["book.lua"] = text }, {}, function(result)
      t.eq(result.code ~= 0, true, result.stdout)
      t.ok(result.stderr:find("library's own", 1, true) or result.stdout:find("library's own", 1, true)
        or result.stderr:find("undefined variable 'package'", 1, true) or result.stderr:find("as it should be", 1, true),
        result.stdout .. result.stderr)
    end)
  end)
end

t.test("files_beside_a_playbook_see_what_it_sees", function()
  run({ ["book.lua"] = book('local helper = require "helper"', 'p:note(helper)'),
    ["helper.lua"] = 'return tostring(pcall(require, "eirun.core.fs")) .. type(package) .. type(_G.package)\n'
      .. '  .. type(require "eirun.json")\n' }, {}, function(result)
      t.eq(result.code, 0, result.stderr)
      t.match(result.stdout, "falsenilniltable")
    end)
end)

t.test("globals_of_a_file_beside_it_do_not_reach_the_library", function()
  run({ ["book.lua"] = book('require "helper"', 'p:note(shared .. tostring(require("eirun.json").decode "[1]"[1]))'),
    ["helper.lua"] = 'shared = "seen "\nfunction tostring() return "changed" end\n' }, {}, function(result)
      t.eq(result.code, 0, result.stderr)
      t.match(result.stdout, "seen changed") -- the playbook shares them, the output that shows it does not
    end)
end)

t.test("check_starts_no_program_and_writes_no_file", function()
  run({ ["book.lua"] = [[
local play = require "eirun.play"
local fs = require "eirun.fs"
local json = require "eirun.json"
local process = require "eirun.process"
return play.book { name = "x", args = { to = play.path { required = true } }, run = function(p, arg)
  p:step("a", function()
    process.run { "touch", arg.to .. ".program" }
    fs.write(arg.to, json.encode { at = json.decode(fs.read "nowhere.json").at })
  end)
end }
]] }, { "check" }, function(result, dir)
    t.eq(result.code, 0, result.stdout)
    t.eq(assert(fs.list(dir)), { "book.lua" })
  end)
end)

t.test("check_finds_a_wrong_name_and_wrong_json", function()
  run({ ["book.lua"] = book('local fs, json = require "eirun.fs", require "eirun.json"',
    'p:step("a", function() json.decode "{" end) p:step("b", function() fs.raed "x" end)') }, { "check" }, function(result)
      t.eq(result.code, 1)
      t.match(result.stdout, "step 'a': line 1, column")
    end)
  run({ ["book.lua"] = book('local fs = require "eirun.fs"', 'p:step("b", function() fs.raed "x" end)') }, { "check" }, function(result)
    t.match(result.stdout, "eirun%.fs: has no field 'raed', did you mean 'read'%?")
  end)
end)
