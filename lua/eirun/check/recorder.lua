-- SPDX-License-Identifier: Apache-2.0
-- The library as `eirun check` sees it: each call is checked as far as its options go and then answers an unknown value.
-- Nothing is reached, because the check of the options is where a recorded call ends.
local errors = require "eirun.errors"
local spec = require "eirun.spec"
local unknown = require "eirun.check.unknown"

local M = {}

local ENDED = {} -- raised where a real call would begin to work

-- Calls that ask nobody, and so go on: the object they make is the real one.
local asks_nobody = { ["oss.bucket"] = true }

local function names(text)
  local set = {}
  for name in text:gmatch("%S+") do
    set[name] = true
  end
  return set
end

-- What objects have besides their methods, by their class.
local fields_of = {
  ["eirun.cluster"] = names "id region detail",
  ["eirun.node_pool"] = names "id name cluster_id scaling_group_id detail asked",
  ["eirun.kube"] = names "config ns http discovered",
  ["eirun.app"] = names "name service job version model namespace deployment port k8s names given server",
  ["eirun.hpa"] = names "name target min max k8s",
  ["eirun.web"] = names "name address host headers",
}

-- The class of what a call gives that would have reached somebody.
local function class_made_by(call)
  if call == "ensure_hpa" or call == "ensure_ingress" then
    return require("eirun.kube.traffic")[call == "ensure_hpa" and "Hpa" or "Web"]
  elseif call == "ensure_node_pool" then
    return require("eirun.ack.node_pool").NodePool
  elseif call:find("^eirun%.serve%.ensure_") or call == "eirun.serve.update" then
    return require("eirun.serve").App
  elseif call == "eirun.kube.connect" or call == "ensure_namespace" then
    return require("eirun.kube.client").Client
  end
  return nil
end

-- These are the language of a playbook, not a way out of it.
local plain_modules = {
  ["eirun.play"] = true, ["eirun.task"] = true, ["eirun.errors"] = true, ["eirun.step"] = true, ["eirun.spec"] = true,
  ["eirun.lag"] = true, ["eirun.chart"] = true,
}

-- These work on what they are given: what nobody knows stays unknown.
local pure_modules = { ["eirun.json"] = true, ["eirun.yaml"] = true, ["eirun.crypto"] = true, ["eirun.secret"] = true }

-- These reach this machine: none of them is called.
local reaching_modules = { ["eirun.fs"] = true, ["eirun.process"] = true }

local wrap_value, wrap_object

-- An object nobody made: its methods check their options, its fields are unknown, and what it would send ends there.
local function stand_in(call)
  local class = class_made_by(call)
  if not class then
    return unknown
  end
  local no_client = setmetatable({}, { __index = function()
    error(ENDED, 0)
  end })
  return wrap_object(setmetatable({ http = no_client }, class), class)
end

local recording = false -- inside a recorded call
local observe -- is told of each call that a playbook makes

local function wrap_function(fn, call)
  return function(...)
    local before = recording
    if observe and not before then
      observe(call, ...)
    end
    recording = true
    local results = table.pack(pcall(fn, ...))
    recording = before
    if results[1] then
      for i = 2, results.n do
        results[i] = wrap_value(results[i])
      end
      return table.unpack(results, 2, results.n)
    end
    if errors.is(results[2], "invalid") then
      error(results[2], 0)
    end
    return stand_in(call) -- it ended where work begins, or stumbled over an unknown value
  end
end

local function no_field(name, key, fields)
  spec.fail(name, ("has no field '%s'%s"):format(tostring(key), spec.advice(key, fields)))
end

local function unknown_field(class, key)
  local fields = fields_of[class.__name]
  if not fields or fields[key] then
    return unknown
  end
  local known = {}
  for _, set in ipairs { fields, class.__index } do
    for name in pairs(set) do
      known[name] = true
    end
  end
  return no_field((class.__name:gsub("^eirun%.", "")), key, known)
end

-- An object with methods: the same object to its own methods, recorded to everyone else.
function wrap_object(object, class)
  return setmetatable({}, {
    __index = function(_, key)
      local value = object[key]
      if value == nil then
        return type(class.__index) == "table" and unknown_field(class, key) or nil
      elseif type(value) ~= "function" then
        return wrap_value(value)
      end
      return wrap_function(function(_, ...)
        return value(object, ...)
      end, key)
    end,
    __tostring = function()
      return tostring(object)
    end,
  })
end

function wrap_value(value)
  local class = type(value) == "table" and value ~= unknown and getmetatable(value)
  if class and type(class) == "table" and class.__index then
    return wrap_object(value, class)
  end
  return value
end

local function has_unknown(...)
  for i = 1, select("#", ...) do
    if rawequal((select(i, ...)), unknown) then
      return true
    end
  end
  return false
end

local function call_of(name, key, value)
  if type(value) ~= "function" then
    return wrap_value(value)
  elseif reaching_modules[name] then
    return function() return unknown end
  elseif not pure_modules[name] then
    return wrap_function(value, name .. "." .. key)
  end
  return function(...)
    return has_unknown(...) and unknown or value(...)
  end
end

local function wrap_module(name, module)
  if type(module) ~= "table" then
    return module
  end
  return setmetatable({}, {
    __index = function(_, key)
      local value = module[key]
      if value == nil then
        no_field(name, key, module)
      end
      return call_of(name, key, value)
    end,
    __newindex = function(_, key)
      spec.fail(name, ("cannot be changed (field '%s')"):format(tostring(key)))
    end,
  })
end

-- A target whose every fact is unknown and whose clients cannot be used.
local function blind_target()
  local target = require "eirun.target"
  target.current = function()
    return setmetatable({ sandbox = true, endpoints = {}, namespace = "default" }, {
      __index = function()
        return unknown
      end,
    })
  end
  target.http = function()
    error(ENDED, 0)
  end
  package.loaded["eirun.target"] = target
end

--- Puts recorders in the library's place for this state, for good.
---@param observer? fun(call: string, ...: any) is told of each call and its arguments
---@return fun(name: string): any require the `require` that a playbook gets
function M.install(observer)
  observe = observer
  blind_target()
  local check, depth = spec.check, 0
  spec.check = function(what, ...)
    depth = depth + 1 -- tables within the options come through here, too
    local ok, checked = pcall(check, what, ...)
    depth = depth - 1
    if not ok then
      error(checked, 0)
    elseif recording and depth == 0 and not asks_nobody[what] then
      error(ENDED, 0)
    end
    return checked
  end
  spec.unknown = unknown
  local wrapped = {}
  return function(name)
    local ok, module = pcall(require, name)
    if not ok then
      error((tostring(module):gsub("^%S+:%d+: ", "")), 2) -- the line of the playbook, not this one
    elseif plain_modules[name] or not tostring(name):find("^eirun%.") then
      return module
    end
    wrapped[name] = wrapped[name] or wrap_module(name, module)
    return wrapped[name]
  end
end

return M
