-- SPDX-License-Identifier: Apache-2.0
-- Playbooks: a list of facts to make true, with arguments and steps.
local args = require "eirun.play.args"
local errors = require "eirun.errors"
local spec = require "eirun.spec"

---@class eirun.play
local M = {}

for _, name in ipairs(args.types) do
  M[name] = args[name]
end

local rules = {
  name = { type = "string", required = true },
  about = { type = "string" },
  args = { type = "table" },
  run = { type = "function", required = true },
}

local function sorted_names(given)
  local names = {}
  for name, arg in pairs(given) do
    if type(name) ~= "string" or not name:find("^%a[%w_]*$") then
      spec.fail("play.book", ("'%s' cannot be an argument's name"):format(tostring(name)))
    elseif getmetatable(arg) ~= args.metatable then
      spec.fail("play.book", ("argument '%s' must be made by play.string, play.integer and their like"):format(name))
    end
    names[#names + 1] = name
  end
  table.sort(names, function(a, b)
    local x, y = given[a], given[b]
    if x.order ~= y.order then
      return x.order < y.order
    end
    return a < b
  end)
  return names
end

--- Declares a playbook; the file returns it.
---@param book {name: string, about?: string, args?: table<string, eirun.play.Arg>, run: fun(p: eirun.play.Run, arg: table): any}
---@return eirun.play.Book
--- Example:
--- ```lua
--- return play.book {
---   name = "hello",
---   args = { who = play.string { default = "world", help = "whom to greet" } },
---   run = function(p, arg)
---     p:step("greet", function() p:note("hello " .. arg.who) end)
---   end,
--- }
--- ```
--- Raises kind `invalid` for an unknown field, with the playbook's line.
function M.book(book)
  spec.check("play.book", book, rules)
  return setmetatable({
    name = book.name,
    about = book.about,
    args = book.args or {},
    arg_names = sorted_names(book.args or {}),
    run = book.run,
  }, M.book_metatable)
end

M.book_metatable = { __name = "eirun.play.book" }

--- Raises kind `invalid`: for a playbook's own checks of its arguments.
---@param message string
--- Example: `if arg.min > arg.max then play.fail "min is above max" end`
function M.fail(message)
  errors.raise("invalid", spec.place() .. message)
end

return M
