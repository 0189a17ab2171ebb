-- SPDX-License-Identifier: Apache-2.0
-- A shared cache of a collection: of each object the fields that were asked for, picked out of the server's bytes.
local core = require "eirun.core.kube"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local reflector = require "eirun.kube.reflector"
local spec = require "eirun.spec"
local task = require "eirun.task"

local M = {}

local rules = {
  pick = { type = "list", required = true, says = "a list of paths" },
  labels = { type = "any" }, fields = { type = "any" }, all = { type = "boolean" },
  track = { type = "boolean" },
  stall = { type = "number", min = 0 }, timeout = { type = "integer", min = 1 }, watch_list = { type = "boolean" },
}

---@class eirun.KubeStore
local Store = {}
Store.__index = Store

local function checked(value, err)
  if value == nil then error(reflector.nonsense(err), 0) end
  return value
end

local function sink_of(self)
  local rows = self.core
  return {
    begin = function() rows:begin() end,
    page = function(text) return checked(rows:page(text)) end,
    finish = function()
      checked(rows:finish())
      self.news:set()
    end,
    feed = function(chunk)
      local events, listed, failed = rows:feed(chunk)
      if events == nil then error(reflector.nonsense(listed), 0) end
      if events > 0 then self.news:set() end
      return events, listed, failed
    end,
    forget = function() rows:forget_line() end,
    version = function() return rows:facts().version end,
  }
end

local function key_of(k8s, kind, opts)
  return json.encode { kind, opts.all and "" or k8s.ns, json.array(opts.pick), opts.labels or "", opts.fields or "", opts.track or false }
end

---@param k8s eirun.KubeClient
---@param kind string
---@param opts table
---@return eirun.KubeStore
function M.new(k8s, kind, opts)
  spec.check("kube.store", opts, rules)
  local shared = k8s.shared
  shared.stores = shared.stores or {}
  local key = key_of(k8s, kind, opts)
  if shared.stores[key] then return shared.stores[key] end
  local rows, err = core.store(opts.pick, opts.track)
  if not rows then errors.raise("invalid", "kube.store: " .. err.message) end
  local self = setmetatable({ k8s = k8s, kind = kind, core = rows, news = task.event(), stopped = task.event() }, Store)
  local wanted = { watch_list = true }
  for name, value in pairs(opts) do wanted[name] = value end
  self.reflector = reflector.new(k8s, kind, wanted, sink_of(self))
  shared.stores[key] = self
  return self
end

---Keeps the store right until the task is stopped. A second caller waits for the first one.
---Example: `all(function() pods:run() end)`. Raises "denied" when the right is missing.
function Store:run()
  if self.running then
    self.stopped:wait()
    return
  end
  self.running = true
  local ok, err = pcall(function()
    while true do self.reflector:turn() end
  end)
  self.running = false
  self.reflector:close()
  self.stopped:set()
  error(ok and "a store ended" or err, 0)
end

---Waits until the first list is whole.
---@param seconds? number
---@return boolean synced
---Example: `pods:wait_synced(30)`. Raises only when the task is stopped.
function Store:wait_synced(seconds)
  if seconds then return self.reflector.synced:wait(seconds) end
  self.reflector.synced:wait()
  return true
end

---Runs `fn(store)` on a store that is whole and is kept right meanwhile.
---@param fn fun(store: eirun.KubeStore): any
---@return any
---Example: `local n = k8s:store("Pod", { pick = { "status.phase" } }):with(function(pods) return pods:count() end)`.
---Raises what `fn` raises, and "denied" when the right is missing.
function Store:with(fn)
  return task.race { function() self:run() end, function()
    self:wait_synced()
    return fn(self)
  end }
end

---One object: `name`, `namespace`, `uid`, `resource_version` and each picked path. nil when there is none.
---@param name string
---@param namespace? string default: the client's
---@return table|nil
---Example: `pods:get("web-1")["status.phase"]`. Raises nothing.
function Store:get(name, namespace)
  local info = self.k8s:kind(self.kind)
  return self.core:get(info.namespaced and (namespace or self.k8s.ns) or "", name)
end

---All objects, by namespace and name.
---@return table[]
---Example: `for _, pod in ipairs(pods:list()) do print(pod.name, pod["status.phase"]) end`. Raises nothing.
function Store:list()
  local rows = self.core:rows()
  table.sort(rows, function(a, b)
    if a.namespace ~= b.namespace then return (a.namespace or "") < (b.namespace or "") end
    return a.name < b.name
  end)
  return rows
end

---How many there are.
---@return integer
---Example: `pods:count()`. Raises nothing.
function Store:count()
  return self.core:facts().count
end

---Figures about the store itself: count, bytes, events, lists, watches, stalls.
---@return table
---Example: `print(pods:facts().bytes)`. Raises nothing.
function Store:facts()
  local facts = self.core:facts()
  facts.lists, facts.watches, facts.stalls = self.reflector.lists, self.reflector.watches, self.reflector.stalls
  return facts
end

---The next change of a picked field; needs `track = true`. An object that changed several times before somebody looked comes once.
---@param seconds? number
---@return {type: "added"|"modified"|"deleted", object: table}|nil change nil when the time was over
---Example: `for change in function() return pods:next_change() end do print(change.type, change.object.name) end`.
---Raises only when the task is stopped.
function Store:next_change(seconds)
  local limit = seconds and task.now() + seconds
  while true do
    local waiting = self.waiting
    if waiting and waiting.at < #waiting then
      waiting.at = waiting.at + 1
      return waiting[waiting.at]
    end
    self.news:clear()
    self.waiting = self.core:changes(256)
    self.waiting.at = 0
    if #self.waiting == 0 then
      if not limit then
        self.news:wait()
      elseif not self.news:wait(limit - task.now()) then
        return nil
      end
    end
  end
end

M.Store = Store
return M
