-- SPDX-License-Identifier: Apache-2.0
-- eirun gpu health: what the rules say; exit code 4 for a warning or worse.
local gpu_cli = require "eirun.cli.gpu"

local M = {}

local function gather(gpu, ends, list)
  local task = require "eirun.task"
  local events <close> = gpu.events()
  while task.now() < ends do
    local event = events:next(math.max(0.001, ends - task.now()))
    if event then list[#list + 1] = event end
  end
end

-- Listens for a while: what came, and how the GPUs looked before. A driver that tells no events any more is judged by its looks.
local function listen(gpu, seconds, opts)
  local errors, task = require "eirun.errors", require "eirun.task"
  local before, list, ends = gpu.snapshot(opts), {}, task.now() + seconds
  local ok, err = pcall(gather, gpu, ends, list)
  if ok then return list, before end
  if errors.is(err, "cancelled") then error(err, 0) end
  require("eirun.core.term").write(2, "eirun: no events are told here: " .. errors.text(errors.from(err)) .. "\n")
  if task.now() < ends then task.sleep(ends - task.now()) end
  return list, before
end

local function as_text(findings, look)
  if #findings == 0 then return ("%d GPU%s, nothing wrong\n"):format(#look.devices, #look.devices == 1 and "" or "s") end
  local lines = {}
  for _, one in ipairs(findings) do
    lines[#lines + 1] = ("%-7s  %s%s%s\n         %s\n"):format(one.severity, one.node and one.node .. ", " or "", one.text,
      one.times and (" (%d times)"):format(one.times) or "", one.advice)
    if #one.pods > 0 then lines[#lines + 1] = "         pods: " .. table.concat(one.pods, ", ") .. "\n" end
  end
  return table.concat(lines)
end

local function as_json(findings, look)
  local json = require "eirun.core.json"
  for _, one in ipairs(findings) do json.array(one.pods) end
  return json.encode { gpus = #look.devices, missing = look.missing, findings = json.array(findings) } .. "\n"
end

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  gpu_cli.check(options, words, 0)
  local gpu, os_core = require "eirun.gpu", require "eirun.core.os"
  local opts = { timeout = gpu_cli.seconds(options, "timeout", 5), required = options.require, processes = true }
  local seconds, events, before = gpu_cli.seconds(options, "for"), nil, nil
  if seconds then events, before = listen(gpu, seconds, opts) end
  local look = gpu.snapshot(opts)
  gpu_cli.tell_missing(look)
  local findings = gpu.health { look = look, events = events, before = before,
    node = options.node or os_core.getenv "NODE_NAME" or os_core.hostname() }
  if options.output == "json" then
    gpu_cli.say(as_json(findings, look))
  elseif #look.devices > 0 then
    gpu_cli.say(as_text(findings, look))
  end
  return gpu_cli.verdict(findings)
end

return M
