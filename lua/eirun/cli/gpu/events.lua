-- SPDX-License-Identifier: Apache-2.0
-- eirun gpu events: a line for each thing that the driver tells.
local gpu_cli = require "eirun.cli.gpu"

local M = {}

local line = {}

function line.text(event, at)
  return ("%s  %s\n"):format(at, event.text)
end

function line.wide(event, at)
  return ("%s  %-15s  %s  %s\n"):format(at, event.kind, event.uuid or "-", event.text)
end

-- "time, kind, gpu, uuid, xid, text"
function line.csv(event, at)
  return ("%s, %s, %s, %s, %s, %s\n"):format(at, event.kind, event.index or "", event.uuid or "", event.xid or "",
    (event.text:gsub(",", ";")))
end

function line.json(event, at)
  return require("eirun.core.json").encode { at = at, kind = event.kind, gpu = event.index, uuid = event.uuid, xid = event.xid,
    gpu_instance = event.gpu_instance, text = event.text } .. "\n"
end

local function kinds_of(options)
  if not options.kinds then return nil end
  local list, known = {}, {}
  for _, kind in ipairs(require("eirun.gpu.events").known) do known[kind] = true end
  for kind in options.kinds:gmatch "[^,%s]+" do
    if not known[kind] then
      local near = require("eirun.spec").nearest(kind, known)
      require("eirun.errors").raise("invalid", ("unknown event '%s'%s"):format(kind, near and (", did you mean '%s'?"):format(near) or ""),
        { code = "usage" })
    end
    list[#list + 1] = kind
  end
  return list
end

-- Without a driver, or one that tells events, there is nothing to wait for: said, and no error unless it was asked for.
local function listen(options)
  local errors, term = require "eirun.errors", require "eirun.core.term"
  local ok, events = pcall(require("eirun.gpu").events, { kinds = kinds_of(options) })
  if not ok and (options.require or not errors.is(events, "not_found")) then error(events, 0) end
  term.write(2, ok and ("listening to %d GPU%s\n"):format(events.devices, events.devices == 1 and "" or "s")
    or "eirun: " .. errors.text(events) .. "\n")
  return ok and events or nil
end

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  gpu_cli.check(options, words, 0)
  local task, seconds = require "eirun.task", gpu_cli.seconds(options, "for")
  local events <close> = listen(options)
  if options.output == "csv" then gpu_cli.say("time, kind, gpu, uuid, xid, text\n") end
  if not events then return 0 end
  local wire, write = require "eirun.wire", line[options.output or "text"]
  local ends, left = seconds and task.now() + seconds, options.count or math.huge
  while left > 0 and not (ends and task.now() >= ends) do
    local event = events:next(ends and math.max(0.001, ends - task.now()))
    if event then
      gpu_cli.say(write(event, wire.iso(event.at)))
      left = left - 1
    end
  end
  return 0
end

return M
