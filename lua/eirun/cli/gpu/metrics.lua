-- SPDX-License-Identifier: Apache-2.0
-- eirun gpu metrics: Prometheus text once, or served.
local gpu_cli = require "eirun.cli.gpu"

local M = {}

-- known: what is remembered between looks: `xids` by GPU, `nvlinks` of note_bandwidth.
local function text_of(opts, known)
  local os_core, metrics = require "eirun.core.os", require "eirun.gpu.metrics"
  local look = require("eirun.gpu").snapshot(opts)
  for _, device in ipairs(look.devices) do device.xid = known.xids[device.index] end
  known.nvlinks = metrics.note_bandwidth(look, os_core.monotonic(), known.nvlinks)
  return metrics.write(look, os_core.getenv "NODE_NAME" or os_core.hostname()), look
end

-- "127.0.0.1:9400", ":9400" (every address), "9400", "[::1]:9400"
local function address_of(text)
  local host, port = text:match "^%[([%x:]+)%]:(%d+)$"
  if not host then host, port = text:match "^([^:]*):(%d+)$" end
  port = math.tointeger(tonumber(port or text:match "^%d+$"))
  if not port or port > 65535 then
    require("eirun.errors").raise("invalid", ("--listen wants an address as 127.0.0.1:9400, not '%s'"):format(text), { code = "usage" })
  end
  return host == nil and "127.0.0.1" or host == "" and "0.0.0.0" or host, port
end

local TEXT = { ["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8" }

local function answer(req, opts, known)
  if req.path == "/" or req.path == "/health" then
    return req:respond(200, TEXT, "GPU metrics are at /metrics\n")
  elseif req.path ~= "/metrics" then
    return req:respond(404, TEXT, "there is only /metrics\n")
  elseif req.method ~= "GET" and req.method ~= "HEAD" then
    return req:respond(405, TEXT, "only GET\n")
  end
  local ok, text = pcall(text_of, opts, known)
  if ok then return req:respond(200, TEXT, text) end
  local errors = require "eirun.errors"
  if errors.is(text, "cancelled") then error(text, 0) end
  req:respond(503, TEXT, errors.text(text) .. "\n")
end

-- The last XID of each GPU, as long as the driver tells them; dcgm-exporter shows 0 before the first one.
local function listen_for_xids(xids)
  local events <close> = require("eirun.gpu").events { kinds = { "xid" } }
  for index = 0, events.devices - 1 do xids[index] = 0 end
  for event in events:each() do
    if event.index then xids[event.index] = event.xid end
  end
end

-- Without them the metrics are served all the same; those that were told stay.
local function note_xids(xids)
  local errors = require "eirun.errors"
  local ok, err = pcall(listen_for_xids, xids)
  if ok then return end
  if errors.is(err, "cancelled") then error(err, 0) end
  require("eirun.core.term").write(2, "eirun: no XIDs are told here: " .. errors.text(errors.from(err)) .. "\n")
end

local function serve(where, opts)
  local errors, httpd, task = require "eirun.errors", require "eirun.core.httpd", require "eirun.task"
  local host, port = address_of(where)
  local server <close> = errors.check(httpd.listen { host = host, port = port })
  require("eirun.core.term").write(1, ("serving http://%s:%d/metrics\n"):format(host:find(":", 1, true) and "[" .. host .. "]" or host,
    server.port))
  local known = { xids = {}, nvlinks = {} }
  task.together(function(all)
    all(note_xids, known.xids)
    all(httpd.serve, server, function(req) answer(req, opts, known) end)
  end)
  return 0
end

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  gpu_cli.check(options, words, 0)
  local opts = { timeout = gpu_cli.seconds(options, "timeout", 5), required = options.require,
    processes = true, nvlinks = true, fields = require("eirun.gpu.metrics").fields }
  if options.listen then return serve(options.listen, opts) end
  local text, look = text_of(opts, { xids = {}, nvlinks = {} })
  gpu_cli.tell_missing(look)
  gpu_cli.say(text)
  return 0
end

return M
