-- SPDX-License-Identifier: Apache-2.0
-- The reference says what the source says, and the source says enough: what each function does, takes, answers and raises, with an
-- example.
local crypto = require "eirun.core.crypto"
local db = require "eirun.core.db"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local process = require "eirun.core.process"
local reference = require "eirun.cli.reference"
local secret = require "eirun.core.secret"
local t = require "eirun.test"
local task = require "eirun.core.task"
local testing = require "eirun.core.testing"
local vm = require "eirun.core.vm"

local root = debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or ""
local third_party = { cjson = true, ["cjson.safe"] = true }

local function each_module(fn)
  for _, group in ipairs(reference.groups) do
    for _, module in ipairs(group.modules) do fn(module, reference.describe(module)) end
  end
end

local function sorted(set)
  local list = {}
  for key in pairs(set) do list[#list + 1] = key end
  table.sort(list)
  return list
end

local function says(entry, pattern)
  return table.concat(entry.text, "\n"):find(pattern) ~= nil
end

local function missing_params(entry)
  local known, list = {}, {}
  for _, param in ipairs(entry.params) do known[param.name] = true end
  for name in (entry.args or ""):gmatch("[%a_][%w_]*") do
    if not known[name] then list[#list + 1] = name end
  end
  return table.concat(list, ", ")
end

-- What is not said of a public function, in words.
local function gaps(entry)
  local list = {}
  if #entry.text == 0 then list[1] = "no description" end
  if missing_params(entry) ~= "" then list[#list + 1] = "no @param for " .. missing_params(entry) end
  if not says(entry, "Example:") then list[#list + 1] = "no example" end
  if not says(entry, "%f[%a][Rr]aises") and not says(entry, "Errors:") then list[#list + 1] = "no word on errors" end
  return #list > 0 and table.concat(list, "; ") or nil
end

local function add_gaps(found, prefix, entries)
  for _, entry in ipairs(entries) do
    local gap = gaps(entry)
    if gap then found[#found + 1] = prefix .. entry.name .. ": " .. gap end
  end
end

t.test("the_reference_is_what_the_source_says", function()
  local text = assert(fs.read(root .. "docs/reference.md"))
  t.ok(text == reference.markdown(), "docs/reference.md is up to date (eirun reference > docs/reference.md)")
end)

t.test("the_sandboxs_page_has_the_table_of_delays", function()
  local text = assert(fs.read(root .. "docs/sandbox.md"))
  t.ok(text:find(reference.delays(), 1, true), "the table in docs/sandbox.md is lag.lua's")
  local count = 0
  for _ in pairs(require("eirun.lag").facts) do count = count + 1 end
  t.eq(select(2, reference.delays():gsub("\n| `", "")), count)
end)

t.test("every_public_function_is_described_with_example_and_errors", function()
  local found = {}
  each_module(function(module, described)
    add_gaps(found, module.name .. ".", described.functions)
    for _, class in ipairs(described.classes) do
      if not class.class then found[#found + 1] = module.name .. ": methods of " .. class.name .. " without ---@class" end
      add_gaps(found, class.name .. ":", class.methods)
    end
  end)
  t.eq(table.concat(found, "\n"), "")
end)

-- Types that are no classes: what they are stands in eirun.errors and docs/errors.md.
local aliases = { ["eirun.ErrorKind"] = true, ["eirun.Error"] = true, ["eirun.Bytes"] = true, ["eirun.play.Book"] = true }

local function note_types(types, where, list)
  for _, item in ipairs(list or {}) do
    for name in item.type:gmatch("eirun%.[%w_.]+") do types[name] = where end
  end
end

t.test("every_type_that_is_named_is_described", function()
  local named, described = {}, {}
  local function note(module)
    for _, entry in ipairs(module.functions) do
      note_types(named, module.name .. "." .. entry.name, entry.params)
      note_types(named, module.name .. "." .. entry.name, entry.returns)
    end
    for _, class in ipairs(module.classes) do
      described[class.name] = true
      note_types(named, class.name, class.class and class.class.fields)
      for _, entry in ipairs(class.methods) do
        note_types(named, class.name .. ":" .. entry.name, entry.params)
        note_types(named, class.name .. ":" .. entry.name, entry.returns)
      end
    end
  end
  each_module(function(_, module) note(module) end)
  for _, name in ipairs(reference.core) do note(reference.describe_core(name)) end
  local missing = {}
  for _, name in ipairs(sorted(named)) do
    if not described[name] and not aliases[name] then missing[#missing + 1] = name .. " of " .. named[name] end
  end
  t.eq(table.concat(missing, "\n"), "")
end)

-- Objects are made where they can be had without a cloud; their methods are listed and looked up.
local function methods_of(object)
  local names, class = {}, getmetatable(object)
  while type(class) == "table" and type(class.__index) == "table" do
    for name, value in pairs(class.__index) do
      if type(value) == "function" and not tostring(name):find("^_") then names[name] = true end
    end
    class = getmetatable(class.__index)
  end
  return names
end

local function documented_methods(class_name)
  local names = {}
  each_module(function(_, described)
    for _, class in ipairs(described.classes) do
      if class.name == class_name then
        for _, entry in ipairs(class.methods) do names[entry.name] = true end
      end
    end
  end)
  return names
end

local function a_run()
  local silent = setmetatable({}, { __index = function() return function() end end })
  local seen
  require("eirun.play.run").run({ name = "x", run = function(p) seen = p end }, {}, silent)
  return seen
end

local objects = {
  ["eirun.play.Run"] = a_run,
  ["eirun.Timeline"] = function() return require("eirun.timeline").new({}) end,
  ["eirun.Watch"] = function() return require("eirun.kube.watch").new({}, "Pod") end,
  ["eirun.Credentials"] = function()
    return require("eirun.credentials").static { access_key_id = "a", access_key_secret = "b" }
  end,
  ["eirun.Cluster"] = function() return require("eirun.ack").cluster("c1") end,
  ["eirun.Bucket"] = function() return require("eirun.oss").bucket("models", "cn-hangzhou") end,
  ["eirun.KubeClient"] = function() return require("eirun.kube.client").new({ server = "http://127.0.0.1:1", namespace = "default" }) end,
  ["eirun.task.queue"] = function() return require("eirun.task").queue() end,
}

for _, name in ipairs(sorted(objects)) do
  t.test("methods_of_" .. name:gsub("%.", "_") .. "_are_documented", function()
    local undo = require("eirun.target").use { sandbox = true, region = "cn-hangzhou", endpoints = {}, namespace = "default" }
    local object = objects[name]()
    undo()
    t.eq(sorted(documented_methods(name)), sorted(methods_of(object)))
  end)
end

t.test("every_file_of_the_library_is_public_or_internal", function()
  local known = {}
  each_module(function(module) known[module.name] = true end)
  for _, name in ipairs(reference.internal) do known[name] = true end
  for _, name in ipairs(vm.modules()) do
    if name:find("^eirun%.[^.]+$") then t.ok(known[name], name .. " is in cli/reference.lua") end
  end
end)

-- Modules written in C ----------------------------------------------------------------------------------------------------

t.test("every_module_in_c_has_a_file_in_meta", function()
  local listed, real = {}, {}
  for _, name in ipairs(reference.core) do listed["eirun.core." .. name] = true end
  for _, name in ipairs(vm.modules()) do
    if name:find("^eirun%.core%.") then real[name] = true end
  end
  t.eq(sorted(listed), sorted(real))
  for _, name in ipairs(vm.modules()) do t.ok(name:find("%.") or third_party[name], name .. " is known") end
end)

local function functions_of(module)
  local names = {}
  for name, value in pairs(module) do
    if type(value) == "function" then names[name] = true end
  end
  return names
end

for _, name in ipairs(reference.core) do
  t.test("functions_of_core_" .. name .. "_are_documented", function()
    local written = {}
    for _, entry in ipairs(reference.describe_core(name).functions) do written[entry.name] = true end
    t.eq(sorted(written), sorted(functions_of(require("eirun.core." .. name))))
  end)
  t.test("functions_of_core_" .. name .. "_have_their_parameters", function()
    local described = reference.describe_core(name)
    for _, entry in ipairs(described.functions) do t.eq(missing_params(entry), "", entry.name) end
    for _, class in ipairs(described.classes) do
      for _, entry in ipairs(class.methods) do t.eq(missing_params(entry), "", class.name .. ":" .. entry.name) end
    end
  end)
end

local examples_wanted = { crypto = true, fs = true, json = true, process = true, secret = true, yaml = true }

t.test("every_function_in_c_is_described", function()
  local found = {}
  for _, name in ipairs(reference.core) do
    local described = reference.describe_core(name)
    for _, entry in ipairs(described.functions) do
      if #entry.text == 0 then found[#found + 1] = name .. "." .. entry.name .. ": no description" end
      if examples_wanted[name] and not says(entry, "Example:") then found[#found + 1] = name .. "." .. entry.name .. ": no example" end
    end
    for _, class in ipairs(described.classes) do
      for _, entry in ipairs(class.methods) do
        if #entry.text == 0 then found[#found + 1] = class.name .. ":" .. entry.name .. ": no description" end
      end
    end
  end
  t.eq(table.concat(found, "\n"), "")
end)

-- Examples that say what comes out, as "Example: `EXPRESSION` is `TEXT`", "... is true" or "... is 40", say the truth.
local pure = { "eirun.cloud", "eirun.errors", "eirun.http", "eirun.lag", "eirun.resource", "eirun.spec", "eirun.target", "eirun.threshold" }

local function check_examples(module, entries, env)
  local count = 0
  for _, entry in ipairs(entries) do
    local text = table.concat(entry.text, "\n")
    local expression, value = text:match("Example: `([^`]+)` is `?([^`\n]-)`?%.%f[%s\0]")
    if expression then
      local chunk = assert(load("return " .. expression, "=" .. module .. "." .. entry.name, "t", env))
      local result = chunk()
      local wanted = type(result) == "table" and assert(load("return " .. value))() or value
      t.eq(type(result) == "table" and result or tostring(result), wanted, module .. "." .. entry.name)
      count = count + 1
    end
  end
  return count
end

t.test("examples_say_what_comes_out", function()
  local env, count = setmetatable({}, { __index = _G }), 0
  for _, name in ipairs(pure) do env[name:match("[^.]+$")] = require(name) end
  for name in pairs(examples_wanted) do env[name] = require("eirun.core." .. name) end
  for _, name in ipairs(pure) do count = count + check_examples(name, reference.describe({ name = name }).functions, env) end
  for name in pairs(examples_wanted) do count = count + check_examples(name, reference.describe_core(name).functions, env) end
  t.ok(count >= 12, count .. " examples")
end)

-- A handle's methods are told as methods, or as fields that are functions.
local function told_methods(core, class_name)
  local names = {}
  for _, class in ipairs(reference.describe_core(core).classes) do
    if class.name == class_name then
      for _, entry in ipairs(class.methods) do names[entry.name] = true end
      for _, field in ipairs(class.class and class.class.fields or {}) do
        if field.type:find("^fun%(") then names[field.name] = true end
      end
    end
  end
  return names
end

local function check_handle(core, class_name, handle)
  local real = {}
  for _, name in ipairs(testing.methods(handle)) do real[name] = true end
  t.eq(sorted(told_methods(core, class_name)), sorted(real), class_name)
end

t.test("methods_of_handles_are_documented", function()
  local folder = assert(fs.mkdtemp "/tmp/eirun-reference-")
  local lock <close> = assert(fs.lock(folder .. "/lock"))
  local memory <close> = assert(db.open("x", { mode = "memory" }))
  local client <close> = assert(http.client {})
  local server <close> = assert(httpd.listen { unix = folder .. "/socket" })
  local scope <close> = task.scope()
  check_handle("fs", "eirun.core.fs.Lock", lock)
  check_handle("db", "eirun.core.db.Database", memory)
  check_handle("http", "eirun.core.http.Client", client)
  check_handle("httpd", "eirun.core.httpd.Server", server)
  check_handle("task", "eirun.core.task.Scope", scope)
  check_handle("task", "eirun.core.task.Event", task.event())
  check_handle("crypto", "eirun.core.crypto.Digest", crypto.digest "md5")
  check_handle("secret", "eirun.Secret", secret.new "x")
  assert(fs.remove(folder, { recursive = true }))
end)

t.test("methods_of_a_request_and_a_stream_are_documented", function()
  local server <close> = assert(httpd.listen { host = "127.0.0.1" })
  local client <close> = assert(http.client {})
  require("eirun.task").together(function(all)
    all(function()
      local req = server:accept()
      check_handle("httpd", "eirun.core.httpd.Request", req)
      req:respond(200, {}, "x")
    end)
    local stream <close> = assert(client:open { url = ("http://127.0.0.1:%d/"):format(server.port) })
    check_handle("http", "eirun.core.http.Stream", stream)
  end)
end)

-- Pages ---------------------------------------------------------------------------------------------------------------------

local function each_block(fn)
  local pages = { root .. "README.md" }
  for _, name in ipairs(assert(fs.list(root .. "docs"))) do pages[#pages + 1] = root .. "docs/" .. name end
  for _, path in ipairs(pages) do
    for block in assert(fs.read(path)):gmatch("\n```lua\n(.-)\n```") do fn(path, block) end
  end
end

t.test("lua_in_the_pages_compiles", function()
  local count = 0
  each_block(function(path, block)
    local chunk, message = load(block, "=" .. path)
    t.ok(chunk, message)
    count = count + 1
  end)
  t.ok(count > 10, "blocks of Lua")
end)

t.test("playbooks_in_the_pages_check_clean", function()
  local program, folder, count = assert(fs.realpath "/proc/self/exe"), assert(fs.mkdtemp "/tmp/eirun-pages-"), 0
  each_block(function(path, block)
    if not block:find("return play.book", 1, true) or not block:find("require", 1, true) then return end
    assert(fs.write(folder .. "/page.lua", block))
    local run = assert(process.run { program, "check", folder .. "/page.lua", timeout = 30 })
    t.eq(run.code, 0, path .. ": " .. run.stdout)
    count = count + 1
  end)
  assert(fs.remove(folder, { recursive = true }))
  t.ok(count >= 2, "playbooks")
end)

t.test("links_of_the_pages_lead_somewhere", function()
  local count = 0
  for _, dir in ipairs { "", "docs/" } do
    for _, name in ipairs(assert(fs.list(root .. (dir == "" and "." or dir)))) do
      for target in (name:find("%.md$") and assert(fs.read(root .. dir .. name)) or ""):gmatch("%]%(([^)#:]+)%)") do
        t.ok(fs.stat(root .. dir .. target), dir .. name .. " links to " .. target)
        count = count + 1
      end
    end
  end
  t.ok(count > 5, "links")
end)
