-- SPDX-License-Identifier: Apache-2.0
-- What the tests of the HTTP server share.
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local process = require "eirun.core.process"
local task = require "eirun.task"

local M = {}

-- Calls body(client, base, server, errors) while `handler` serves. options: tls, client, limits.
function M.serving(handler, body, options)
  options = options or {}
  local server = assert(httpd.listen { host = "127.0.0.1", tls = options.tls, limits = options.limits })
  local base = (options.tls and "https" or "http") .. "://127.0.0.1:" .. server.port
  local errors = {}
  task.race {
    function()
      httpd.serve(server, handler, { on_error = function(err) errors[#errors + 1] = err end })
    end,
    function()
      local client <close> = assert(http.client(options.client))
      body(client, base, server, errors)
    end,
  }
  server:abort()
end

function M.with_dir(body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-httpd-")
  local ok, err = pcall(body, dir)
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

function M.curl(...)
  local result = assert(process.run { "curl", "-sS", "--noproxy", "*", "-m", "20", ... })
  return result.stdout, result.code, result.stderr
end

return M
