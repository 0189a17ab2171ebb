-- SPDX-License-Identifier: Apache-2.0
-- What a playbook and the files beside it see: Lua's own functions and the public library. The host's modules below it answer `nil, err`
-- where the library raises; they are for the library.
local spec = require "eirun.spec"

local M = {}

-- What to use in a module's place.
local public = {
  clock = "eirun.task", crypto = "eirun.crypto", fs = "eirun.fs", gpu = "eirun.gpu", http = "eirun.target", json = "eirun.json",
  kube = "eirun.kube", load = "eirun.load", oss = "eirun.oss", process = "eirun.process", secret = "eirun.secret", task = "eirun.task",
  testing = "eirun.test", yaml = "eirun.yaml",
}

local instead = {
  os = "use os.getenv and its like", term = "use print, or p:note and p:report",
}

---`require` without the host's modules and the sandbox's.
---@param require_as fun(name: string): any
---@return fun(name: string): any
---The function raises kind "invalid", with the playbook's line, for one of those.
function M.guarded(require_as)
  return function(name)
    local core = type(name) == "string" and name:match "^eirun%.core%.(.+)$"
    if core then
      local advice = public[core] and ('require "%s"'):format(public[core]) or instead[core] or "a playbook cannot have it"
      spec.fail("require", ("'%s' is the library's own: %s"):format(name, advice))
    end
    if type(name) == "string" and name:find "^sandbox%." then
      spec.fail("require", ("'%s' is the sandbox's own: require \"eirun.sandbox\""):format(name))
    end
    return require_as(name)
  end
end

local closed = { _G = true, package = true, require = true, load = true }

---The globals of a playbook's files: a copy, so that what they set stays theirs.
---@param require_as fun(name: string): any
---@return table
function M.new(require_as)
  local globals = {}
  for name, value in pairs(_G) do
    if not closed[name] then globals[name] = value end
  end
  globals._G = globals
  globals.require = M.guarded(require_as)
  function globals.load(chunk, name, mode, ...)
    if select("#", ...) > 0 then return load(chunk, name, mode, (...)) end
    return load(chunk, name, mode, globals)
  end
  return globals
end

---The same, read-only, and every misspelt name is an error at its line.
---@param globals table
---@return table
function M.strict(globals)
  return setmetatable({}, {
    __index = function(_, name)
      local value = globals[name]
      if value == nil then error(("undefined variable '%s'"):format(tostring(name)), 2) end
      return value
    end,
    __newindex = function(_, name)
      error(("assignment to the undeclared variable '%s': write `local %s`"):format(tostring(name), tostring(name)), 2)
    end,
  })
end

return M
