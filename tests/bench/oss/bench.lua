-- SPDX-License-Identifier: Apache-2.0
-- eirun's transfers, measured against a server that is no OSS: as main.go, through the library. WHAT, WORKERS, PATH_TO.
local credentials = require "eirun.credentials"
local fs = require "eirun.core.fs"
local os_core = require "eirun.core.os"
local oss = require "eirun.oss"
local t = require "eirun.test"
local target = require "eirun.target"

local env = os_core.getenv

local function jobs()
  local path = env "PATH_TO"
  if env "WHAT" ~= "tree" then return { { direction = "upload", key = "eirun.bin", path = path } } end
  local list = {}
  for i, name in ipairs(assert(fs.list(path))) do
    list[i] = { direction = "upload", key = "eirun/" .. name, path = path .. "/" .. name }
  end
  return list
end

t.test("upload", function()
  local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = { OSS = env "OSS_ENDPOINT" }, namespace = "default",
    credentials = credentials.static { access_key_id = env "OSS_KEY_ID", access_key_secret = env "OSS_KEY_SECRET" } }
  local report = oss.bucket(env "OSS_BUCKET"):transfer(jobs(), { jobs = math.tointeger(tonumber(env "WORKERS")),
    part_size = env "WHAT" == "one" and 5 << 30 or nil })
  undo()
  if report.failed[1] then error(report.failed[1].error, 0) end
  print("seconds " .. report.seconds)
end)
