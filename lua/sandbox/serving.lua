-- SPDX-License-Identifier: Apache-2.0
-- What a serving sandbox leaves in its directory for others: env.sh, kubeconfig, serve.json.
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local clock = require "eirun.core.clock"

local serving = {}

local owner_only = tonumber("600", 8)

local function write(path, text) assert(fs.write(path, text, { mode = owner_only, atomic = true })) end

local function quoted(value) return "'" .. tostring(value):gsub("'", "'\\''") .. "'" end

-- One export line for each service that has a variable, plain http on loopback.
function serving.environment(ctx)
  local lines = {
    "export ALIBABA_CLOUD_ACCESS_KEY_ID=" .. quoted(ctx.access_key_id),
    "export ALIBABA_CLOUD_ACCESS_KEY_SECRET=" .. quoted(ctx.access_key_secret),
    "export ALIBABA_CLOUD_REGION_ID=" .. quoted(ctx.region),
    "export EIRUN_CA_FILE=" .. quoted(ctx.dir .. "/ca.pem"),
  }
  for _, service in ipairs(ctx.services) do
    local ports = ctx.server.ports[service.name]
    if service.env and ports.plain then
      lines[#lines + 1] = ("export EIRUN_ENDPOINT_%s=%s"):format(service.env, quoted("http://127.0.0.1:" .. ports.plain))
    end
  end
  table.sort(lines)
  return table.concat(lines, "\n") .. "\n"
end

local function record(ctx)
  return { pid = process.pid(), clock = clock.kind(), region = ctx.region, account = ctx.account,
    cluster_id = ctx.cluster_id, bucket = ctx.bucket, ca_file = ctx.dir .. "/ca.pem", ports = ctx.server.ports,
    routes = json.array(ctx.server:routes()), control_token = ctx.control_token, dir = ctx.dir,
    access_key_id = ctx.access_key_id, access_key_secret = ctx.access_key_secret }
end

-- serve.json is written last: who finds it may rely on the rest.
function serving.write(ctx)
  write(ctx.dir .. "/env.sh", serving.environment(ctx))
  if ctx.kubeconfig then write(ctx.dir .. "/kubeconfig", ctx.kubeconfig { address = "loopback" }) end
  write(ctx.dir .. "/serve.json", assert(json.encode(record(ctx), { indent = true })))
end

function serving.remove(dir) fs.remove(dir .. "/serve.json") end

return serving
