-- SPDX-License-Identifier: Apache-2.0
-- The sandbox's own door, for test playbooks: let calls fail, take nodes away, look at what waits. Against a real account there is no such
-- door, and each of these is refused before anything is sent.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local target = require "eirun.target"

local M = {}

local HOST = "http://sandbox.eirun.invalid"

local function token(now)
  local text = errors.check(fs.read(now.dir .. "/credentials.json"))
  return errors.check(json.decode(text)).control_token
end

local function control(method, path, body)
  local now = target.current()
  if not now.sandbox or not now.dir then
    errors.raise("denied", "eirun.sandbox works in a sandbox only", { hint = "run it as `eirun --sandbox PLAYBOOK`" })
  end
  local reply = errors.check(target.http():request { method = method, url = HOST .. path, body = body and json.encode(body), timeout = 30,
    headers = { ["x-sandbox-token"] = token(now) } })
  local answer = json.decode(reply.body) or {}
  if reply.status < 400 then return answer end
  errors.raise("invalid", ("the sandbox refused: %s"):format(answer.message or reply.status), { status = reply.status })
end

---Lets something go wrong, as the page on the sandbox lists it: a call that waits for it, or the world at once.
---@param fault table `kind`, and for a call `service`, `action`, `times`, `skip` and what the kind wants
---@return integer waiting faults that wait for a call now
---Example:
---```lua
---sandbox.fault { kind = "timeout_after_commit", service = "CS", action = "CreateClusterNodePool" }
---sandbox.fault { kind = "reclaim", zone = "cn-hangzhou-i" }
---```
---Raises "denied" outside a sandbox, "invalid" for a kind or a field that there is not.
function M.fault(fault)
  return control("POST", "/faults", fault).faults
end

---Forgets the faults that wait for a call.
---Example: `sandbox.clear()`. Raises "denied" outside a sandbox.
function M.clear()
  control("DELETE", "/faults")
end

---What is in the sandbox: time, counts of its objects, the faults that wait.
---@return {time: string, counts: table<string, integer>, faults: table[]}
---Example: `sandbox.status().counts.instance`. Raises "denied" outside a sandbox.
function M.status()
  return control("GET", "/status")
end

return M
