-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.httpd
-- What the C module modules/httpd/bind_httpd.c offers; a test compares the names.
local httpd = {}

---@class eirun.core.httpd.Tls
---@field cert_pem string|eirun.Secret the chain, leaf first
---@field key_pem string|eirun.Secret
---@field client_ca_pem? string|eirun.Secret clients may show a certificate; one of another authority ends the handshake
---@field client_required? boolean they must

---@class eirun.core.httpd.Limits
---@field target? integer bytes, default 16 KiB; above it 414
---@field header? integer bytes of a request's head, default 64 KiB; above it 431
---@field header_count? integer default 200; above it 431
---@field body? integer bytes, default 1 GiB; above it 413
---@field connections? integer default 10000; more wait in the kernel's queue

---@class eirun.core.httpd.Options
---@field unix? string path of a socket that only our user may use; one that nobody listens on is replaced
---@field host? string an IP address or "localhost", the default
---@field port? integer default 0: one that is free, see server.port
---@field tls? eirun.core.httpd.Tls TLS 1.2 and 1.3
---@field limits? eirun.core.httpd.Limits
---@field idle_timeout? number seconds on the run's clock between requests, default 75; 0 for none
---@field header_timeout? number seconds for a request's head or a handshake, default 30
---@field stall_timeout? number seconds in which a body or a reply does not move, default 60

---@class eirun.core.httpd.Server
---@field port integer 0 on a Unix socket
---@field accept fun(self): eirun.core.httpd.Request|nil waits for a request; nil once the server is closed
---@field close fun(self) no new requests; those that were accepted may finish
---@field abort fun(self) cuts every connection; also __close and __gc

---@class eirun.core.httpd.FileOptions
---@field digest? string[] of "crc64", "md5", "sha1", "sha256", "sha512": computed while receiving
---@field max? integer bytes; above it kind quota

---@class eirun.core.httpd.Request
---@field method string
---@field target string as it was sent
---@field path string undecoded, without the query
---@field query_string string undecoded, "" without one
---@field host string the Host header, "" without one
---@field headers eirun.core.http.Headers made when first asked for; header(name) is cheaper
---@field version "1.0"|"1.1"
---@field peer string "127.0.0.1:40000", or "unix"
---@field local_port integer
---@field tls boolean
---@field sni? string the name that the client asked for
---@field peer_cn? string common name of the client's certificate
---@field peer_organizations string[] its organizations
---@field header fun(self, name: string): string|nil the first value, whatever the name's case
---@field query fun(self): table<string, string> decoded; the last of several wins
---@field query_list fun(self): string[][] { {key, value}, ... } decoded, in order
---@field body fun(self, max?: integer): string|nil, eirun.Error|nil default 64 MiB; may be called again
---@field body_to_file fun(self, path: string, options?: eirun.core.httpd.FileOptions): table|nil, eirun.Error|nil
---{ size, md5 = raw bytes, crc64 = integer, ... }; a body that does not come whole leaves no file; not synced to the disk
---@field respond fun(self, status: integer, headers?: table, body?: string|eirun.Secret): boolean|nil, eirun.Error|nil
---headers are {{name, value}, ...} in this order or {name = value}, sent sorted; true once all is with the kernel
---@field respond_file fun(self, status: integer, headers?: table, path: string, offset: integer, length: integer): true|nil, eirun.Error?
---@field start fun(self, status: integer, headers?: table): boolean|nil, eirun.Error|nil
---begins a stream: chunked, unless Content-Length is given
---@field write fun(self, bytes: string|eirun.Secret): boolean|nil, eirun.Error|nil waits while the peer does not read
---@field finish fun(self): boolean|nil, eirun.Error|nil
---@field closed fun(self): boolean the peer has ended its side, or the connection is gone
---@field wait_closed fun(self): boolean
---@field abort fun(self) cuts the connection

---Listens.
---@param options eirun.core.httpd.Options
---@return eirun.core.httpd.Server|nil server, eirun.Error|nil err kind conflict: the address is in use
---Example: `local server <close> = assert(httpd.listen { host = "127.0.0.1" })`
function httpd.listen(options) end

---@class eirun.core.httpd.ServeOptions
---@field on_error? fun(err: any, req: eirun.core.httpd.Request) a handler raised, or did not reply; it must not wait

---Answers requests, each in a task of its own, until the server is closed and the last reply is out. A handler that raises or
---returns without a reply gives 500 (413, 408 or 400 where its body was at fault); one that stops in the middle of a reply
---gets its connection cut.
---@param server eirun.core.httpd.Server
---@param handler fun(req: eirun.core.httpd.Request)
---@param options? eirun.core.httpd.ServeOptions
---Example: `httpd.serve(server, function(req) req:respond(200, { ["Content-Type"] = "text/plain" }, "hello") end)`
function httpd.serve(server, handler, options) end

return httpd
