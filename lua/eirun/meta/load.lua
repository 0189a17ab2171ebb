-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.load
-- What the C module modules/load/bind_load.c offers; a test compares the names. eirun.load is its face.
local load = {}

---@class eirun.core.LoadRun
local run = {}

---Begins a run. Options: `unix` or `address` and `port`; `requests`: complete bytes of each, strings or secrets, taken in turn;
---`pieces` ({from, to, seconds} each), `instants` (seconds) or `closed` (connections) with `closed_seconds`; `slices` ({from, to}
---each); arrivals, seed, timeout, max_connections, max_body, keep_alive, head, status, contains, threads.
---@param opts table
---@return eirun.core.LoadRun|nil
---@return eirun.Error|nil
function load.start(opts) end

---Where a host leads: by the route table, else by its name. May wait.
---@param host string
---@param port integer
---@return {unix?: string, address?: string, port?: integer, routed?: boolean}|nil
---@return eirun.Error|nil
function load.resolve(host, port) end

---Waits until it has ended or `seconds` have passed; answers whether it has ended.
---@param seconds? number
---@return boolean
function run:wait(seconds) end

---Stops at once; what is in flight counts as aborted.
function run:stop() end

---Counts, slices and lateness so far; `brief` leaves the latencies of the slices out.
---@param brief? boolean
---@return table
function run:state(brief) end

---Seconds of the plan from `from` on.
---@param from? integer
---@return eirun.LoadSecond[]
function run:series(from) end

---Counters of a slice that are not empty, {lowest, highest, count, index} each, in microseconds.
---@param slice? integer 1 is the whole plan
---@return integer[][]
function run:histogram(slice) end

function run:close() end

return load
