-- SPDX-License-Identifier: Apache-2.0
-- eirun cloud whoami: the keys' owner and their source. Of the keys themselves nothing is shown but the ends of the id.
local json = require "eirun.core.json"
local term = require "eirun.core.term"

local function masked(id)
  return #id > 12 and id:sub(1, 4) .. "..." .. id:sub(-4) or "..."
end

local function facts(session)
  local target = require("eirun.target").current()
  local identity = require("eirun.cloud").caller_identity()
  local keys = target.credentials:get()
  return { target = session.description, account = identity.AccountId, arn = identity.Arn, type = identity.IdentityType,
    user = identity.UserId, region = target.region, key = masked(keys.access_key_id), source = keys.source,
    expires = keys.expires and require("eirun.wire").iso(keys.expires), sources = json.array(target.credentials:sources()) }
end

local function lines(found)
  local rows = {}
  for _, name in ipairs { "account", "arn", "type", "region", "source", "key", "expires" } do
    if found[name] then rows[#rows + 1] = ("%-10s%s"):format(name, found[name]) end
  end
  for _, source in ipairs(found.sources) do
    rows[#rows + 1] = ("  %-9s %s: %s"):format(source.state, source.name, source.why)
  end
  return table.concat(rows, "\n") .. "\n"
end

return function(options)
  local session <close> = require("eirun.cli.cloud.open")(options, { identify = false })
  local found = facts(session)
  term.write(1, options.output == "json" and json.encode(found, { indent = term.isatty(1) }) .. "\n" or lines(found))
  return 0
end
