-- SPDX-License-Identifier: Apache-2.0
-- eirun gpu events: a line for each thing that the driver tells.
local gpu_cli = require "eirun.cli.gpu"

local M = {}

local function line(event, as_json)
  local wire = require "eirun.wire"
  if as_json then
    return require("eirun.core.json").encode { at = wire.iso(event.at), kind = event.kind, gpu = event.index, uuid = event.uuid,
      xid = event.xid, gpu_instance = event.gpu_instance, text = event.text } .. "\n"
  end
  return ("%s  %s\n"):format(wire.iso(event.at), event.text)
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

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  gpu_cli.check(options, words, 0)
  local task, term = require "eirun.task", require "eirun.core.term"
  local kinds, seconds = kinds_of(options), gpu_cli.seconds(options, "for")
  local events <close> = require("eirun.gpu").events { kinds = kinds }
  term.write(2, ("listening to %d GPU%s\n"):format(events.devices, events.devices == 1 and "" or "s"))
  local ends, left = seconds and task.now() + seconds, options.count or math.huge
  while left > 0 and not (ends and task.now() >= ends) do
    local event = events:next(ends and math.max(0.001, ends - task.now()))
    if event then
      term.write(1, line(event, options.output == "json"))
      left = left - 1
    end
  end
  return 0
end

return M
