-- SPDX-License-Identifier: Apache-2.0
-- A server of scripted answers on loopback, and a target that points every product at it.
local credentials = require "eirun.credentials"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local target = require "eirun.target"
local task = require "eirun.task"

local M = {}

local products = { "CS", "ECS", "ESS", "STS", "OSS", "SLS", "RAM" }

local function endpoints_at(url)
  local map = {}
  for _, product in ipairs(products) do map[product] = url end
  return map
end

local function answer(req, handler, seen)
  local body = req:body() or ""
  local call = { method = req.method, path = req.path, query = req:query(), headers = req.headers, body = body,
    action = req.headers:get "x-acs-action", req = req }
  call.json = function() return json.decode(body) end
  seen[#seen + 1] = call
  local status, reply, headers = handler(call, #seen)
  if status == "handled" then return nil end
  if status == "abort" then return req:abort() end
  if type(reply) == "table" then reply = json.encode(reply) end
  local list = {}
  for name, value in pairs(headers or {}) do list[#list + 1] = { name, tostring(value) } end
  return req:respond(status, list, reply or "")
end

---Runs `body(url, seen)` while `handler(call, n)` answers: status, body (a table is JSON), headers; or "abort", or "handled"
---when it answered through `call.req` itself.
---@param handler fun(call: table, n: integer): integer|"abort", any, table|nil
---@param body fun(url: string, seen: table[])
function M.with(handler, body)
  local seen = {}
  local server = assert(httpd.listen { host = "127.0.0.1", port = 0 })
  local url = "http://127.0.0.1:" .. server.port
  local undo = target.use { sandbox = true, region = "cn-hangzhou", account = "1", cluster = "c1", namespace = "default",
    endpoints = endpoints_at(url), credentials = credentials.static { access_key_id = "id", access_key_secret = "secret-text" } }
  local ok, err = pcall(task.race, {
    function() httpd.serve(server, function(req) return answer(req, handler, seen) end) end,
    function() body(url, seen) end,
  })
  undo()
  server:close()
  if not ok then error(err, 0) end
end

---A Status of the Kubernetes API.
---@param code integer
---@param reason string
---@param message string
---@param more? table
---@return table
function M.status(code, reason, message, more)
  local status = { kind = "Status", apiVersion = "v1", status = "Failure", code = code, reason = reason, message = message }
  for key, value in pairs(more or {}) do status[key] = value end
  return status
end

return M
