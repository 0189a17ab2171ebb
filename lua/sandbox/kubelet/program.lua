-- SPDX-License-Identifier: Apache-2.0
-- What a container runs: a model server where the image and the command say so, a little shell for scripts of tests, and for
-- everything else a server that answers on the ports it names.
local task = require "eirun.core.task"
local modelconfig = require "sandbox.inference.modelconfig"
local tfserving = require "sandbox.inference.tfserving"

local M = {}

local server_name = "tensorflow_model_server"
local shells = { sh = true, bash = true, ash = true, ["/bin/sh"] = true, ["/bin/bash"] = true, ["/bin/ash"] = true, ["/usr/bin/sh"] = true,
  ["/usr/bin/bash"] = true }
local job_seconds = 5 -- how long a program of a pod that is meant to end takes

-- The entry point of the image: tf_serving_entrypoint.sh.
local function image_default(env, args)
  local name, base = env.MODEL_NAME or "model", env.MODEL_BASE_PATH or "/models"
  local words = { server_name, "--port=8500", "--rest_api_port=8501", "--model_name=" .. name, "--model_base_path=" .. base .. "/" .. name }
  return table.move(args, 1, #args, #words + 1, words)
end

local function expand(list, env)
  local words = {}
  for i, word in ipairs(list or {}) do words[i] = word:gsub("%$%(([%w_]+)%)", function(name) return env[name] end) end
  return words
end

---The commands that a container's command and args come to; nil when the image's own program runs.
function M.commands(container, env)
  local command, args = expand(container.command, env), expand(container.args, env)
  local is_tf = container.image:find "tensorflow/serving" ~= nil
  if #command == 0 then
    if is_tf then return { image_default(env, args) } end
    return #args > 0 and { args } or nil
  end
  local words = table.move(args, 1, #args, #command + 1, command)
  if shells[words[1]] and words[2] and words[2]:find "^%-%a*c%a*$" then return modelconfig.shell_commands(words[3] or "", env) end
  return { words }
end

-- Programs ---------------------------------------------------------------------------------------------------------

local Program = {}
Program.__index = Program

local function pause(self, seconds)
  if self.ended:wait(seconds) then error({ stopped = true }, 0) end
end

local function serve_ports(self)
  for _, port in ipairs(self.world.ports) do
    self.world.network:listen(self.world.ip, port, function()
      return { status = 200, headers = { { "Content-Type", "text/plain" } }, body = "ok\n" }
    end)
  end
end

local function forever(self)
  serve_ports(self)
  pause(self, nil)
end

local function model_server(self, words)
  local world = self.world
  self.server = tfserving.new { flags = modelconfig.flags(words), files = world.files, log = world.log, network = world.network,
    ip = world.ip, draw = world.draw, load_seconds = world.load_seconds, accelerator = world.accelerator }
  local code = self.server:run()
  pause(self, 0)
  return code
end

local builtin = {}
function builtin.sleep(self, words)
  if words[2] == "infinity" then return forever(self) end
  local n, unit = (words[2] or "0"):match "^([%d.]+)([smhd]?)$"
  pause(self, (tonumber(n) or 0) * ({ s = 1, m = 60, h = 3600, d = 86400 })[unit == "" and "s" or unit])
  return 0
end
function builtin.exit(_, words) return math.tointeger(tonumber(words[2] or 0)), true end
builtin["true"] = function() return 0 end
builtin["false"] = function() return 1 end
function builtin.echo(self, words)
  self.world.log(table.concat(words, " ", 2))
  return 0
end
for _, name in ipairs { "set", "cd", "export", "mkdir", "trap", "ls", "cat", "env", "date", "hostname", "test" } do
  builtin[name] = function() return 0 end
end

-- Long-running programs that images of tests carry: taken as servers.
local known_servers = { nginx = true, python = true, python3 = true, tail = true, httpd = true, node = true, java = true, vllm = true,
  tritonserver = true, ["redis-server"] = true, gunicorn = true, uvicorn = true, pause = true }

local function run_command(self, words)
  local name = words[1]:match "([^/]+)$"
  if name == server_name then return model_server(self, words), true end
  if builtin[name] then return builtin[name](self, words) end
  if known_servers[name] or not self.world.is_tf then
    if self.world.ends then
      pause(self, job_seconds)
      return 0
    end
    return forever(self)
  end
  self.world.log(("sh: 1: %s: not found"):format(words[1]))
  return 127
end

local function main(self)
  local last = 0
  for _, words in ipairs(self.commands or {}) do
    local code, leave = run_command(self, words)
    if leave then return code end
    last = code
  end
  if self.commands then return last end
  if not self.world.ends then return forever(self) end
  pause(self, job_seconds)
  return 0
end

---Runs to its end; answers the exit code, 143 when it was stopped.
function Program:run()
  local ok, result = pcall(main, self)
  if ok then return result or 0 end
  if type(result) ~= "table" or not result.stopped then error(result, 0) end
  return 143
end

---SIGTERM.
function Program:stop()
  for _, port in ipairs(self.world.ports) do self.world.network:close(self.world.ip, port) end
  if self.server then self.server:stop() end
  self.ended:set()
end

---An object of a bucket was written: the model server looks when it is under one of its paths.
function Program:object_changed(bucket, key)
  local path = self.server and self.world.files.path_of(bucket, key)
  if path then self.server:changed(path) end
end

---@param container table its spec
---@param world table { env, ip, network, files, log, draw, load_seconds, accelerator, ports, ends }
function M.new(container, world)
  world.is_tf = container.image:find "tensorflow/serving" ~= nil
  return setmetatable({ world = world, commands = M.commands(container, world.env), ended = task.event() }, Program)
end

return M
