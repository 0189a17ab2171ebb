-- SPDX-License-Identifier: Apache-2.0
-- eirun check PLAYBOOK: mistakes found without reaching anything.
local args = require "eirun.play.args"
local clock = require "eirun.core.clock"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local load_book = require "eirun.play.load"
local spec = require "eirun.spec"
local unknown = require "eirun.check.unknown"

-- An output that keeps what went wrong and shows nothing.
local function silent(findings)
  local out = setmetatable({}, {
    __index = function()
      return function() end
    end,
  })
  -- What the text of the playbook has told already is not told again by the run that stumbled over it.
  local function add(err, step)
    local text = errors.text(err)
    for _, known in ipairs(findings) do
      if known.text:sub(1, #text) == text then
        return
      end
    end
    findings[#findings + 1] = { text = text, step = step }
  end
  function out.step_finished(_, step)
    if step.outcome == "failed" and step.error.code ~= "threshold" then
      add(step.error, step.name)
    end
  end
  function out.failed(_, err)
    add(err)
  end
  return out
end

local function check_globals(path, findings)
  local chunk = load(assert(fs.read(path)), "@" .. path, "t", {})
  local seen = require("eirun.play.globals").new(require)
  for _, use in ipairs(require("eirun.check.globals").of(chunk)) do
    if use.assigned then
      findings[#findings + 1] = { text = ("%s:%d: assignment to the undeclared variable '%s': write `local %s`"):format(
        path, use.line, use.name, use.name) }
    elseif seen[use.name] == nil then
      findings[#findings + 1] = { text = ("%s:%d: undefined variable '%s'%s"):format(path, use.line, use.name,
        spec.advice(use.name, seen)) }
    end
  end
end

-- Arguments that have no value are unknown; which ones are read is noted.
local function watched(book, values, read)
  return setmetatable({}, {
    __index = function(_, name)
      read[name] = true
      if not book.args[name] then
        spec.fail("argument", ("the playbook declares no argument '%s'%s"):format(tostring(name), spec.advice(name, book.args)))
      elseif values[name] == nil and book.args[name].required then
        return unknown
      end
      return values[name]
    end,
  })
end

local function check_arguments(book, read, source, findings)
  for _, name in ipairs(book.arg_names) do
    if not read[name] and not source:find("%.%s*" .. name .. "%f[^%w_]") then
      findings[#findings + 1] = { text = ("%s: argument '%s' is never used"):format(book.path, name) }
    end
  end
end

local function run_blind(path, options, words, findings)
  local book = load_book.playbook(path, require("eirun.check.recorder").install())
  local values = args.resolve(book, load_book.layers(book, options, words))
  local read = {}
  require("eirun.play.run").run(book, watched(book, values, read), silent(findings))
  check_arguments(book, read, assert(fs.read(path)), findings)
end

local function tell(options, path, findings)
  for _, finding in ipairs(findings) do
    if options.output == "jsonl" then
      print(json.encode { event = "finding", step = finding.step, text = finding.text })
    else
      print((finding.step and "step '" .. finding.step .. "': " or "") .. finding.text)
    end
  end
  if options.output ~= "jsonl" then
    print(#findings == 0 and path .. ": nothing found" or ("%d found"):format(#findings))
  end
  return #findings == 0 and 0 or 1
end

return function(options, words)
  local path = table.remove(words, 1) or errors.raise("invalid", "check which playbook?", { code = "usage" })
  clock.use("virtual", os.time()) -- a playbook that sleeps is checked at once
  local findings = {}
  local ok, err = pcall(function()
    load_book.compile(path)
    check_globals(path, findings)
    run_blind(path, options, words, findings)
  end)
  if not ok then
    if err.code == "usage" then
      error(err, 0)
    end
    findings[#findings + 1] = { text = errors.text(err) }
  end
  return tell(options, path, findings)
end
