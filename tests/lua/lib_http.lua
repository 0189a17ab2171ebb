-- SPDX-License-Identifier: Apache-2.0
-- A server in the same program for tests of the HTTP client.
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local task = require "eirun.task"

local M = {}

-- A handler that only waits for its client to go away has nobody to answer.
local function report(err, req)
  if not req:closed() then
    error(err, 0)
  end
end

-- Calls fn(client, base url, server) while `handler` serves; everything is closed afterwards.
function M.serving(handler, fn, options)
  options = options or {}
  local server = assert(httpd.listen { host = "127.0.0.1", port = 0, tls = options.tls })
  local base = (options.tls and "https" or "http") .. "://127.0.0.1:" .. server.port
  task.race {
    function()
      httpd.serve(server, handler, { on_error = report })
    end,
    function()
      local client <close> = assert(http.client(options.client))
      fn(client, base, server)
    end,
  }
  server:abort()
end

function M.with_dir(fn)
  local dir = assert(fs.mkdtemp("/tmp/eirun-http-"))
  local ok, err = pcall(fn, dir)
  fs.remove(dir, { recursive = true })
  if not ok then
    error(err, 0)
  end
end

function M.routed(routes, fn)
  http.routes(routes)
  local ok, err = pcall(fn)
  http.routes {}
  if not ok then
    error(err, 0)
  end
end

-- Answers with what came: method, target, header lines, body.
function M.echo(req)
  local lines = { req.method .. " " .. req.target }
  for _, header in ipairs(req.headers) do
    lines[#lines + 1] = header[1] .. "=" .. header[2]
  end
  req:respond(200, { { "X-A", "1" }, { "x-a", "2" } }, table.concat(lines, "\n") .. "\n\n" .. assert(req:body()))
end

return M
