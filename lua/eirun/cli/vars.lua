-- SPDX-License-Identifier: Apache-2.0
-- eirun vars PLAYBOOK: each argument, its value and where it came from.
local args = require "eirun.play.args"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local load_book = require "eirun.play.load"
local output = require "eirun.output"

return function(options, words)
  local path = table.remove(words, 1) or errors.raise("invalid", "vars of which playbook?", { code = "usage" })
  local book = load_book.playbook(path)
  local values, sources = args.resolve(book, load_book.layers(book, options, words))
  for _, name in ipairs(book.arg_names) do
    local value = values[name]
    if options.output == "jsonl" then
      print(json.encode { name = name, value = value == nil and json.null or value, source = sources[name] or "not set" })
    else
      print(("%-20s %-40s %s"):format(name, output.show(value), sources[name] or (book.args[name].required and "REQUIRED" or "not set")))
    end
  end
  return 0
end
