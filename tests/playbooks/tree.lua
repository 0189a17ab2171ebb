-- SPDX-License-Identifier: Apache-2.0
-- A folder into a bucket, and one object of it back into a file.
local oss = require "eirun.oss"
local play = require "eirun.play"

return play.book {
  name = "tree",
  args = {
    bucket = play.string { default = "eirun-sandbox-models" },
    from = play.path { required = true },
    to = play.string { default = "large/1" },
    fetch = play.string { help = "an object below the prefix to read back" },
    into = play.path { help = "where it goes" },
  },
  run = function(p, arg)
    local bucket = oss.bucket(arg.bucket)
    local tree = p:step("tree", function() return bucket:ensure_tree { from = arg.from, to = arg.to } end)
    if arg.fetch then
      p:step("fetch", function() bucket:get(arg.to .. "/" .. arg.fetch, { file = arg.into }) end)
    end
    p:report(tree)
  end,
}
