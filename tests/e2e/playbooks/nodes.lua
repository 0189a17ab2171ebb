-- SPDX-License-Identifier: Apache-2.0
-- The instances of a pool, as the APIs tell them.
local ack = require "eirun.ack"
local play = require "eirun.play"

return play.book {
  name = "nodes",
  args = { pool = play.string { required = true } },
  run = function(p, arg)
    p:report { nodes = ack.cluster():node_pool(arg.pool):instances() }
  end,
}
