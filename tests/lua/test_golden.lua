-- SPDX-License-Identifier: Apache-2.0
-- What the program prints of itself, against tests/golden. After a change on purpose: EIRUN_UPDATE_GOLDEN=1 eirun test tests/lua golden,
-- then read the difference.
local fs = require "eirun.core.fs"
local os_core = require "eirun.core.os"
local process = require "eirun.core.process"
local t = require "eirun.test"
local version = require("eirun.core.build").version

local program = assert(fs.realpath("/proc/self/exe"))
local root = debug.getinfo(1, "S").source:match("^@(.*)tests/lua/") or ""
local update = os_core.getenv("EIRUN_UPDATE_GOLDEN") == "1"
local readable = tonumber("644", 8)

-- The same text for every terminal, user and version.
local function printed(words)
  local env = { PATH = "/usr/bin:/bin", HOME = "/nowhere" }
  local call = { program, timeout = 30, cwd = root ~= "" and root or ".", clear_env = true, env = env }
  table.move(words, 1, #words, 2, call)
  local run = assert(process.run(call))
  t.eq(run.code, 0, run.stderr)
  t.eq(run.stderr, "")
  return (run.stdout:gsub(version:gsub("%p", "%%%0"), "VERSION"))
end

local function first_difference(a, b)
  local theirs = b:gmatch("([^\n]*)\n?")
  local number = 0
  for line in a:gmatch("([^\n]*)\n?") do
    number = number + 1
    local other = theirs()
    if line ~= other then return ("line %d is %q, not %q"):format(number, line, tostring(other)) end
  end
  return "it is shorter"
end

local function golden(name, words)
  t.test("golden_" .. name, function()
    local path, text = root .. "tests/golden/" .. name .. ".txt", printed(words)
    if update then return assert(fs.write(path, text, { mode = readable })) end
    local wanted = assert(fs.read(path))
    if text ~= wanted then error(path .. ": " .. first_difference(text, wanted), 0) end
  end)
end

golden("help", { "--help" })
golden("man", { "man" })
golden("completion_bash", { "completion", "bash" })
golden("completion_zsh", { "completion", "zsh" })
golden("playbook_bert", { "playbooks/bert.lua", "--help" })
for _, verb in ipairs(require("eirun.cli.verbs").all()) do golden("help_" .. verb.name, { verb.name, "--help" }) end

t.test("golden_files_have_a_test_each", function()
  local known = { help = true, man = true, completion_bash = true, completion_zsh = true, playbook_bert = true }
  for _, verb in ipairs(require("eirun.cli.verbs").all()) do known["help_" .. verb.name] = true end
  for _, name in ipairs(assert(fs.list(root .. "tests/golden"))) do
    t.ok(known[name:match("^(.*)%.txt$")], name .. " belongs to a test")
  end
end)

t.test("no_line_of_help_is_wider_than_a_hundred_columns", function()
  for _, verb in ipairs(require("eirun.cli.verbs").all()) do
    for line in printed({ verb.name, "--help" }):gmatch("[^\n]+") do t.ok(#line <= 100, verb.name .. ": " .. line) end
  end
end)

t.test("help_before_a_verb_is_the_verbs_help", function()
  t.eq(printed({ "help", "test" }), printed({ "test", "--help" }))
  t.eq(printed({ "help" }), printed({ "--help" }))
end)

t.test("the_man_page_is_well_formed", function()
  local run = process.run { "man", "--warnings", "-l", "-", stdin = printed({ "man" }), timeout = 30, env = { LC_ALL = "C.UTF-8" } }
  if not run then return end -- no man here
  t.eq(run.stderr, "")
end)
