-- SPDX-License-Identifier: Apache-2.0
-- Reads a playbook file and the values of its environment.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local args = require "eirun.play.args"
local globals = require "eirun.play.globals"
local play = require "eirun.play"
local task = require "eirun.core.task"
local vm = require "eirun.core.vm"

local M = {}

local function directory_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

local function read(path)
  local text, err = fs.read(path)
  if not text then
    err.code = "usage"
    error(err, 0)
  end
  return text
end

--- The file as a function. `seen` are the globals that it sees, by default those of any playbook.
function M.compile(path, seen)
  local chunk, message = load(read(path), "@" .. path, "t", globals.strict(seen or globals.new(require)))
  if not chunk then
    errors.raise("invalid", message, { code = "syntax" })
  end
  return chunk
end

-- The line that names a field, 0 when none does.
local function line_of(text, field)
  local at = field and text:find("%f[%w_]" .. field .. "%s*=")
  return at and select(2, text:sub(1, at):gsub("\n", "")) + 1 or 0
end

-- `return play.book { ... }` is a tail call: its misuse has lost the place, which is looked up in the text.
local function with_place(path, err)
  if type(err) == "table" and err.place == "" then
    local line = line_of(read(path), type(err.field) == "string" and err.field)
    err.place = line > 0 and ("%s:%d: "):format(path, line) or path .. ": "
    err.message = err.place .. err.message
  end
  return err
end

--- Loads a playbook.
---@param path string
---@param require_as? fun(name: string): any takes the place of `require`
---@return eirun.play.Book
--- Raises kind `not_found` or `denied` for the file, `invalid` for its contents, with file and line.
function M.playbook(path, require_as)
  local dir, seen = directory_of(path), globals.new(require_as or require)
  vm.set_playbook_dir(dir, seen)
  local chunk = M.compile(path, seen)
  local ok, book = task.settle(chunk, function(err)
    err = with_place(path, err)
    return type(err) == "table" and err or { kind = "internal", message = err, traceback = debug.traceback("", 2), bug = true }
  end)
  if not ok then
    error(book, 0)
  end
  if getmetatable(book) ~= play.book_metatable then
    errors.raise("invalid", path .. ": a playbook returns `play.book { ... }`, this one returned " .. type(book))
  end
  book.path, book.dir = path, dir
  return book
end

local function env_values(path)
  local values = M.compile(path)()
  if type(values) ~= "table" then
    errors.raise("invalid", path .. ": an environment returns a table of values, this one returned " .. type(values))
  end
  return values
end

--- The layers of values above the defaults: the environment's file, then the command line.
---@param book eirun.play.Book
---@param options {env?: string, sandbox?: any}
---@param words string[] key=value
---@return {source: string, values: table}[]
function M.layers(book, options, words)
  local layers = {}
  local name = options.env or (options.sandbox and "sandbox")
  if name then
    local path = ("%s/env/%s.lua"):format(book.dir, name)
    if options.env or fs.stat(path) then
      layers[1] = { source = path, values = env_values(path) }
      -- An environment serves several playbooks: what this one does not know is none of its business.
      for key in pairs(layers[1].values) do
        if not book.args[key] then
          layers[1].values[key] = nil
        end
      end
    end
  end
  layers[#layers + 1] = { source = "command line", values = args.from_words(words) }
  return layers
end

return M
