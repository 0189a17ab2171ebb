-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.http
-- What the C module core/bind_http.c offers; a test compares the names.
local http = {}

---@class eirun.core.http.Options
---@field ca_file? string PEM file; with it or ca_pem nothing else is trusted
---@field ca_pem? string|eirun.Secret
---@field cert_pem? string|eirun.Secret the client's own certificate
---@field key_pem? string|eirun.Secret
---@field tls_server_name? string name to send and to verify instead of the URL's host
---@field verify? boolean default true; false takes any certificate
---@field proxy? string URL, whatever no_proxy says, "" for none; default: the environment's http_proxy, https_proxy, no_proxy
---@field user_agent? string default "eirun"
---@field session_folder? string where TLS sessions are kept for the next process: only with ca_pem and proxy "", and of the first server
---@field max_connections? integer default 128: requests and streams under way; more wait their turn

---@class eirun.core.http.Sink
---@field file string a 2xx answer's body goes there; any other stays in memory
---@field offset? integer write from here; without it the file is emptied first
---@field digest? string[] of "crc64", "md5", "sha1", "sha256", "sha512": computed while writing

---@class eirun.core.http.Call
---@field method? string default "GET"
---@field url string http(s)://host[:port][/path][?query], percent-encoded; sent as it is
---@field headers? table {{name, value}, ...} in this order, or {name = value}, sent sorted; values may be secrets
---@field body? string|eirun.Secret|{file: string, offset?: integer, length?: integer}
---@field timeout? number seconds on the run's clock for everything; default none
---@field connect_timeout? number seconds until a connection with its TLS stands; default 15
---@field stall_timeout? number seconds without a byte in either direction; default 60, none for streams
---@field max_body? integer bytes in memory; default 64 MiB
---@field sink? eirun.core.http.Sink
---@field http_version? "1.1"|"2" default "1.1"; "2" shares one connection (over TLS what has a body still goes by 1.1)
---@field expect_close? boolean the connection is not used again
---@field decompress? boolean ask for gzip and undo it
---@field follow? boolean follow up to 10 redirects of GET and HEAD; credentials stay at their own host

---@class eirun.core.http.Headers array of {name, value}
---@field get fun(self, name: string): string|nil the first value, whatever the name's case
---@field list fun(self, name: string): string[]

---@class eirun.core.http.Answer
---@field status integer
---@field headers eirun.core.http.Headers
---@field body? string absent when it went to the sink
---@field digests? table<string, string|integer> raw bytes; crc64 as an integer
---@field version "1.0"|"1.1"|"2"
---@field seconds number on the run's clock
---@field remote string "127.0.0.1:443" or the Unix socket's path
---@field reused boolean over a connection that an earlier request made

---@class eirun.core.http.Stream has status, headers, version, remote and reused of an answer
---@field read fun(self, timeout?: number): string|nil, eirun.Error|nil what has come, nil at the end, nil and err on failure
---@field close fun(self) closes the connection; also __close and __gc

---@class eirun.core.http.Upload a request whose body is written piece by piece, in chunks on the wire
---@field write fun(self, bytes: string|eirun.Secret): boolean|nil, eirun.Error|nil may wait; false: the answer came already
---@field finish fun(self): eirun.core.http.Answer|nil, eirun.Error|nil ends the body and waits for the answer
---@field close fun(self) closes the connection; also __close and __gc

---@class eirun.core.http.Client
---@field request fun(self, call: eirun.core.http.Call): eirun.core.http.Answer|nil, eirun.Error|nil waits for the answer
---@field open fun(self, call: eirun.core.http.Call): eirun.core.http.Stream|nil, eirun.Error|nil waits for the header
---@field upload fun(self, call: eirun.core.http.Call): eirun.core.http.Upload|nil, eirun.Error|nil `body` is written to it
---@field close fun(self) fails what is under way; also __close and __gc

---Makes a client: options, kept connections, a limit.
---Errors of its calls: kind network, timeout, denied (outside a closed route table), quota (too large), invalid; `sent`: a byte
---may have reached the server; `retryable`: true when trying again is safe, false when it is useless, nil when only the caller
---can know, since a request that writes may have arrived.
---Example: `local client <close> = assert(http.client { ca_file = path })`
---@param options? eirun.core.http.Options
---@return eirun.core.http.Client|nil client
---@return eirun.Error|nil err
function http.client(options) end

---@class eirun.core.http.Route
---@field host string a star stands for any characters
---@field port? integer default: every port
---@field unix? string path of a socket, "@name" for an abstract one
---@field address? string "127.0.0.1:1234"

---Sets the route table of this Lua state: the first row that fits leads there, past any proxy, and the URL, Host, SNI and signature
---keep the host's name. `closed = true` refuses every other host. Raises on a wrong row.
---Example: `http.routes { { host = "*.aliyuncs.com", unix = path }, closed = true }`
---@param routes eirun.core.http.Route[]|{closed?: boolean}
function http.routes(routes) end

return http
