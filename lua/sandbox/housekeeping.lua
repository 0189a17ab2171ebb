-- SPDX-License-Identifier: Apache-2.0
-- What a start clears away: records that the services themselves forget after a while, and a log grown large.
local fs = require "eirun.core.fs"

local housekeeping = {}

local day = 86400
local largest_log = 4 << 20

-- Kinds and how long ago which of their times may lie.
local kept = {
  task = { field = "ended", seconds = 30 * day },
  event = { field = "time", seconds = 30 * day },
  activity = { field = "ended", seconds = 30 * day },
  kube_token = { field = "expires", seconds = 0 },
  access_key = { field = "expires", seconds = day },
}

local function prune(ctx, kind, rule)
  for key, record in ctx.store:each(kind) do
    local time = record[rule.field]
    if time and time + rule.seconds < ctx.now() then ctx.store:delete(kind, key) end
  end
end

local function turn_log(dir)
  local path = dir .. "/sandbox.log"
  local found = fs.stat(path)
  if found and found.size > largest_log then fs.rename(path, path .. ".1") end
end

function housekeeping.run(ctx)
  turn_log(ctx.dir)
  ctx.store:tx(function()
    for kind, rule in pairs(kept) do prune(ctx, kind, rule) end -- order does not matter: kinds do not meet
  end)
end

return housekeeping
