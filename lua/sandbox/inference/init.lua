-- SPDX-License-Identifier: Apache-2.0
-- Model servers live in pods: the kubelet makes them (sandbox.inference.tfserving) and the pod network finds them.
local network = require "sandbox.inference.network"

local M = {}

function M.start(ctx)
  network.of(ctx)
end

return M
