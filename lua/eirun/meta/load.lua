-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.load
-- What the C module modules/load/bind_load.c offers; a test compares the names. Playbooks use eirun.load.
local load = {}

---@class eirun.core.load.Options
---@field unix? string path of a socket, "@name" for an abstract one; else address and port
---@field address? string an IP address
---@field port? integer
---@field requests (string|eirun.Secret)[] whole requests as bytes, taken in turn
---@field pieces? number[][] {rate from, rate to, seconds}: linear in between
---@field instants? number[] send times in seconds, instead of pieces
---@field tls? string the host that must prove itself: the target speaks TLS
---@field ca_file? string
---@field ca_pem? string
---@field verify? boolean default true
---@field ring? integer requests that are made ahead (a thread); `requests` are the first of them, feed adds more
---@field closed? integer connections of a closed loop, instead of pieces; each sends when it was answered
---@field closed_seconds? number
---@field threads? integer that send, in real time only; default 0: the loop's own
---@field slices? number[][] {from, to} in seconds of the plan, judged apart; at most 64
---@field arrivals? "even"|"poisson"
---@field seed? integer
---@field timeout? number seconds, default 30
---@field max_connections? integer default 4096
---@field max_body? integer bytes, default 64 MiB
---@field keep_alive? boolean default true
---@field status? integer the only good one
---@field contains? string a good body holds it
---@field head? boolean answers have no body

---@class eirun.core.load.Run
local Run = {}

---Waits for the end, or for some seconds.
---@param seconds? number
---@return boolean finished
function Run:wait(seconds) end

---Puts one more request into the ring of a run that has one.
---@param bytes string|eirun.Secret
---@return boolean false when it is full
function Run:feed(bytes) end

---Ends it; what is in flight counts as aborted.
function Run:stop() end

---Counts and latencies. slices[1] is the whole plan, slices[i + 1] the i-th one asked for.
---@param brief? boolean without the slices' latencies
---@return table
function Run:state(brief) end

---What each second of the plan saw.
---@param from? integer the first second wanted, default 0
---@return eirun.LoadSecond[]
function Run:series(from) end

---The counters of a slice that are not empty.
---@param slice? integer default 1
---@return integer[][] {lowest, highest, count, index} in microseconds
function Run:histogram(slice) end

---Frees it; also __close and __gc.
function Run:close() end

---Starts a run.
---@param options eirun.core.load.Options
---@return eirun.core.load.Run|nil
---@return eirun.Error|nil invalid, network, internal
function load.start(options) end

---Where a host leads: the route table first, else the first address of its name.
---@param host string
---@param port integer
---@return table|nil place {unix} or {address, port}, and `routed` when the route table said so
---@return eirun.Error|nil network, denied, not_found
function load.resolve(host, port) end

return load
