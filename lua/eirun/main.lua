-- SPDX-License-Identifier: Apache-2.0
-- The program's entry: core/main.c calls it with the command line; what it returns is the exit code.
local task = require "eirun.core.task"
local term = require "eirun.core.term"

local function complain(text)
  term.write(2, "eirun: " .. text .. "\n")
end

local function dispatch(args)
  if args[1] == "help" then -- eirun help [VERB]
    args = { args[2] or "--help", "--help" }
  end
  local parsed = require("eirun.cli.parse").parse(args)
  local options, verb = parsed.options, parsed.verb
  if options.version and not (verb and verb.name == "version") then
    return require("eirun.cli.version").run(options)
  elseif options.help and not (verb and verb.name == "run" and parsed.words[1]) then
    local help = require "eirun.cli.help"
    term.write(1, verb and help.verb(verb) or help.overview())
    return 0
  elseif not verb then
    term.write(2, require("eirun.cli.help").overview())
    return 64
  end
  local module = require(verb.module)
  return (type(module) == "table" and module.run or module)(options, parsed.words)
end

local function exit_code(err)
  if err.code == "usage" or err.excerpt then
    return err.exit or 64
  elseif err.code == "guard" then
    return 3
  end
  return (err.holder or err.cause and err.cause.holder) and 75 or 1
end

-- Output that could not be written is a failure, whoever wrote it; what has said so itself does not say it twice.
local function with_output(code, said)
  local lost = term.lost()
  if not lost then
    return code
  end
  if not (said and said:find(lost.message, 1, true)) then
    complain(lost.message)
  end
  return code == 0 and 1 or code
end

return function(...)
  local ok, code = task.settle(dispatch, function(err)
    if type(err) ~= "table" then
      return { kind = "internal", message = err, traceback = debug.traceback("", 2), bug = true }
    end
    return err
  end, { ... })
  if ok then
    return with_output(code or 0)
  end
  local err = code
  if err.kind == "cancelled" then
    return with_output(130)
  end
  local said = err.code == "usage" and err.message or require("eirun.errors").text(err)
  complain(said)
  if err.excerpt then
    term.write(2, err.excerpt .. "\n") -- the text with a caret under the place
  end
  if err.bug then
    term.write(2, err.traceback:gsub("^%s+", "") .. "\n")
  end
  return with_output(exit_code(err), said)
end
