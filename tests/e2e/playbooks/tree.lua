-- SPDX-License-Identifier: Apache-2.0
-- A folder of files into the sandbox's bucket, and what the bucket says of them afterwards.
local fs = require "eirun.fs"
local json = require "eirun.json"
local oss = require "eirun.oss"
local play = require "eirun.play"
local service = require "eirun.oss.service"

return play.book {
  name = "tree",
  args = { from = play.path { required = true } },
  run = function(p, arg)
    local bucket = oss.bucket "eirun-sandbox-models"
    p:step("tree", function() bucket:ensure_tree { from = arg.from, to = "big" } end)
    local objects = json.array {}
    for _, object in ipairs(bucket:list { prefix = "big/" }) do
      local file = arg.from .. object.key:sub(#"big" + 1)
      objects[#objects + 1] = { key = object.key, size = object.size, etag = object.etag, crc64 = bucket:head(object.key).crc64,
        own_crc64 = fs.digest(file, { "crc64" }, 0, object.size).crc64 }
    end
    local reply = service.call { method = "GET", bucket = bucket.name, region = bucket.region, verb = "list uploads to",
      query = { uploads = "" } }
    p:report { objects = objects, uploads = #(service.element(reply, "ListMultipartUploadsResult").Upload or {}) }
  end,
}
