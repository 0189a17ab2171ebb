-- SPDX-License-Identifier: Apache-2.0
-- A test on the cluster of a sandbox of its own, which is gone afterwards.
local ack = require "eirun.ack"
local fs = require "eirun.core.fs"
local kube = require "eirun.kube"
local target = require "eirun.target"

---@param fn fun(k8s: eirun.KubeClient)
---@return fun() test
return function(fn)
  return function()
    local dir = assert(fs.mkdtemp "/tmp/eirun-test-cluster-")
    local session = target.open({ sandbox = dir, clock = "virtual" }, { target = function() end })
    local ok, err = xpcall(fn, function(e) return type(e) == "string" and debug.traceback(e) or e end,
      kube.connect(ack.cluster()):namespace "default")
    getmetatable(session).__close(session)
    fs.remove(dir, { recursive = true })
    if not ok then error(err, 0) end
  end
end
