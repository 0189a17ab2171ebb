-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.oss
-- What the C module modules/oss/bind_oss.c offers; a test compares the names. Bytes move between files and one bucket in threads;
-- eirun.oss.threads is its face.
local oss = {}

---@class eirun.core.oss.StartOptions
---@field unix? string path of a socket, "@name" for an abstract one
---@field address? string IPv4 or IPv6, with port
---@field port? integer
---@field host string of the Host header and for messages
---@field base string path in front of keys: "/" or "/bucket/"
---@field bucket string for the signature
---@field region string for the signature
---@field agent? string
---@field tls? string the host that must prove itself; nil: no TLS
---@field ca_file? string
---@field verify? boolean default true
---@field connections? integer threads, default 16; each is started when it has something to do
---@field attempts? integer of each operation, default 6
---@field bandwidth? number bytes a second of all together
---@field connect_timeout? number seconds, default 10
---@field stall_timeout? number seconds without a byte, default 60

---Opens an engine; nothing is sent yet.
---@param opts eirun.core.oss.StartOptions
---@return eirun.core.oss.Engine|nil engine, eirun.Error|nil err
---Example: `local engine <close> = assert(oss.start { unix = "/run/s", host = "b.x", base = "/", bucket = "b", region = "r" })`
function oss.start(opts) end

---The Authorization header (V4) of a request whose headers are complete.
---@param opts {method: string, bucket?: string, key?: string, query?: table, headers: table, region: string, id: string, secret: string,
---  date: string}
---@return string|nil
---Example: `oss.authorization { method = "GET", headers = headers, region = "cn-hangzhou", id = id, secret = text, date = date }`
function oss.authorization(opts) end

---@class eirun.core.oss.Engine
local engine = {}

---Keys for all requests from now on.
---@param id string
---@param secret string|eirun.Secret
---@param token? string|eirun.Secret
---Example: `engine:keys("id", secret)`
function engine:keys(id, secret, token) end

---Puts an operation in the queue: send (a range of a file), fetch (an object, or with part_of_object a range, into a file), allocate.
---@param tag integer comes back with the result
---@param op table action, key, path, target, query, headers, offset, length, size, known, part_of_object
---@return boolean|nil ok, eirun.Error|nil err
---Example: `engine:submit(1, { action = "send", key = "a", path = "a.bin", offset = 0, length = 10 })`
function engine:submit(tag, op) end

---Waits until something has ended.
---@return table[] results {tag, status, crc, length, etag, skipped, resent, retried, rotten, error, body, request_id, ec, location}
---Example: `for _, result in ipairs(engine:wait()) do print(result.tag, result.status) end`
function engine:wait() end

---Bytes on the wire so far, without those of attempts that were repeated.
---@return integer
---Example: `print(engine:moved())`
function engine:moved() end

---Ends all transfers at once and closes the connections.
---Example: `engine:close()`
function engine:close() end

return oss
