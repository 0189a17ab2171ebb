-- SPDX-License-Identifier: Apache-2.0
-- eirun PLAYBOOK [key=value ...]
local args = require "eirun.play.args"
local errors = require "eirun.errors"
local load_book = require "eirun.play.load"
local output = require "eirun.output"
local term = require "eirun.core.term"

local function usage(text)
  errors.raise("invalid", text, { code = "usage" })
end

local function values_of(book, options, words)
  local values = args.resolve(book, load_book.layers(book, options, words))
  local missing = args.missing(book, values)
  if #missing > 0 then
    usage(("the playbook '%s' wants %s; `eirun %s --help` tells more"):format(book.name, table.concat(missing, "=…, ") .. "=…", book.path))
  end
  return values
end

-- The library's modules know the target; a playbook that has loaded none of them reaches nothing, and needs none.
local function open_target(options, out, cluster)
  if options.sandbox or package.loaded["eirun.target"] then
    return require("eirun.target").open(options, out, cluster)
  end
  out:target("target: none, the playbook uses no library that reaches one", { sandbox = false })
  return nil
end

return function(options, words)
  local path = table.remove(words, 1) or usage("run which playbook?")
  local book = load_book.playbook(path)
  if options.help then
    term.write(1, require("eirun.cli.help").playbook(path, book))
    return 0
  end
  local values = values_of(book, options, words)
  local out = output.choose(options)
  local session <close> = open_target(options, out, values.cluster) -- luacheck: ignore 211 (it is closed)
  local code = require("eirun.play.run").run(book, values, out)
  return code
end
