-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.load
-- What the C module modules/load/bind_load.c offers; a test compares the names. Playbooks use eirun.load.
local load = {}

---@class eirun.core.load.Target
---@field unix? string path of a socket, "@name" for an abstract one; else addresses and port
---@field addresses? string[] IP addresses: the first that lets a connection in is taken
---@field port? integer
---@field tls? string the host that must prove itself: the target speaks TLS
---@field requests? (string|eirun.Secret)[] whole requests as bytes, taken in turn; none with a ring

---@class eirun.core.load.Options
---@field targets eirun.core.load.Target[] 1 to 64
---@field turns? integer[] a round: which target each request goes to, from 1; default the first
---@field pieces? number[][] {rate from, rate to, seconds}: linear in between
---@field instants? number[] send times in seconds, instead of pieces
---@field h2? boolean HTTP/2
---@field streams? integer of HTTP/2: requests at one time on a connection
---@field warm? integer connections that are opened before the plan begins
---@field ca_file? string
---@field ca_pem? string
---@field verify? boolean default true
---@field ring? integer requests that are made ahead (a thread): `first`, and then what feed adds
---@field first? table[] {bytes, target} each
---@field closed? integer connections of a closed loop, instead of pieces; each sends when it was answered
---@field closed_seconds? number
---@field think? number seconds between an answer and the next request of a closed loop
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
---@field least_body? integer bytes of a good body
---@field most_body? integer
---@field field? (string|integer)[] the way to a JSON field that a good body has
---@field equals? string JSON that it is equal to
---@field sample_every? integer of the good answers every so many is kept for `sample`
---@field head? boolean answers have no body

---@class eirun.core.load.Run
local Run = {}

---Waits for the end, or for some seconds.
---@param seconds? number
---@return boolean finished
function Run:wait(seconds) end

---Puts one more request into the ring of a run that has one.
---@param bytes string|eirun.Secret
---@param target? integer default 1
---@return boolean false when it is full
function Run:feed(bytes, target) end

---The next of the answers that the sample kept.
---@return {status: integer, target: integer, body: string, planned: integer}|nil
function Run:sample() end

---It was not a good answer after all.
---@param sample table
---@param why string
function Run:reject(sample, why) end

---Ends it; what is in flight counts as aborted.
function Run:stop() end

---Counts and latencies. slices[1] is the whole plan, slices[i + 1] the i-th one asked for.
---@param brief? boolean without the slices' latencies
---@return table
function Run:state(brief) end

---What each second of the plan saw.
---@param from? integer the first second wanted, default 0
---@param target? integer of this one alone, where there are several
---@return eirun.LoadSecond[]
function Run:series(from, target) end

---The counters of a slice that are not empty.
---@param slice? integer default 1
---@param target? integer of this one alone, where there are several
---@return integer[][] {lowest, highest, count, index} in microseconds
function Run:histogram(slice, target) end

---Frees it; also __close and __gc.
function Run:close() end

---Starts a run.
---@param options eirun.core.load.Options
---@return eirun.core.load.Run|nil
---@return eirun.Error|nil invalid, network, internal
function load.start(options) end

---Where a host leads: the route table first, else the first addresses of its name.
---@param host string
---@param port integer
---@return table|nil place {unix} or {address, addresses, port}, and `routed` when the route table said so
---@return eirun.Error|nil network, denied, not_found
function load.resolve(host, port) end

return load
