-- SPDX-License-Identifier: Apache-2.0
-- The process tensorflow_model_server: looks for versions under the base path of each model, loads what its policy wants through
-- the container's own file system, opens its ports when the first load is through, and follows the files from then on.
local task = require "eirun.core.task"
local modelconfig = require "sandbox.inference.modelconfig"
local replica = require "sandbox.inference.replica"
local savedmodel = require "sandbox.inference.savedmodel"
local times = require "sandbox.times"

local Process = {}
Process.__index = Process
local M = {}

local poll_seconds = 1 -- file_system_poll_wait_seconds
local patience = 30 -- how often a version that is missing is looked for when nothing was written meanwhile
local load_retries, retry_seconds = 5, 60 -- max_num_load_retries, load_retry_interval_micros
local bundles = setmetatable({}, { __mode = "v" }) -- one model file is parsed once, however many replicas load it

local source = {
  config = "tensorflow_serving/model_servers/server.cc:85", core = "tensorflow_serving/model_servers/server_core.cc:462",
  adding = "tensorflow_serving/model_servers/server_core.cc:573", manager = "tensorflow_serving/core/basic_manager.cc:739",
  approve = "tensorflow_serving/core/loader_harness.cc:66", loading = "tensorflow_serving/core/loader_harness.cc:74",
  loaded = "tensorflow_serving/core/loader_harness.cc:87", unload = "tensorflow_serving/core/loader_harness.cc:138",
  reader = "external/org_tensorflow/tensorflow/cc/saved_model/reader.cc:31",
  tags = "external/org_tensorflow/tensorflow/cc/saved_model/reader.cc:54",
  restore = "external/org_tensorflow/tensorflow/cc/saved_model/loader.cc:202",
  took = "external/org_tensorflow/tensorflow/cc/saved_model/loader.cc:311",
  warmup = "tensorflow_serving/servables/tensorflow/saved_model_warmup.cc:105", retry = "tensorflow_serving/util/retrier.cc:37",
  again = "tensorflow_serving/util/retrier.cc:33", grpc = "tensorflow_serving/model_servers/server.cc:353",
  http = "tensorflow_serving/model_servers/server.cc:373",
  missing = "tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc:268",
  specific = "tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc:218",
  access = "tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc:362",
}

function Process:say(level, place, format, ...)
  local now = task.now()
  local stamp = times.iso(now):gsub("T", " "):gsub("Z$", "")
  self.log(("%s.%06d: %s %s] %s"):format(stamp, math.floor(now % 1 * 1e6), level, source[place], format:format(...)))
end

local function ended(self)
  if self.stopped then error({ stopped = true }, 0) end
end

local function pause(self, seconds)
  task.sleep(seconds)
  ended(self)
end

-- The process ends by itself: the container's exit code and its last words.
local function give_up(self, code, message)
  self.log("Failed to start server. Error: " .. message)
  error({ exit = code }, 0)
end

-- Versions -------------------------------------------------------------------------------------------------------

-- Version number -> folder name.
local function folders(self, model)
  local names, err = self.files.list(model.base_path)
  if not names then
    local detail = err and err.detail and " with error " .. err.detail or ""
    self:say("E", "access", "FileSystemStoragePathSource encountered a filesystem access error: Could not find base path %s "
      .. "for servable %s%s", model.base_path, model.name, detail)
    return nil
  end
  local found = {}
  for _, entry in ipairs(names) do
    local number = entry.dir and entry.name:find "^%d+$" and math.tointeger(tonumber(entry.name))
    if number then found[number] = entry.name end
  end
  return found
end

local function newest(found, count)
  local numbers = {}
  for number in pairs(found) do numbers[#numbers + 1] = number end
  table.sort(numbers, function(a, b) return a > b end)
  return table.move(numbers, 1, math.min(count, #numbers), 1, {})
end

local function aspired(self, model, found)
  local policy, wanted = model.policy, {}
  if policy.kind ~= "specific" then return newest(found, policy.kind == "all" and math.maxinteger or policy.count) end
  for _, number in ipairs(policy.versions) do
    if found[number] then
      wanted[#wanted + 1] = number
    else
      self:say("W", "specific", "Version %d of servable %s, which was requested to be served as a 'specific' version in the servable's "
        .. "version policy, was not found in the file system", number, model.name)
    end
  end
  return wanted
end

-- Loading --------------------------------------------------------------------------------------------------------

local function not_found(path) return "Not found: " .. path .. "; No such file or directory" end

-- variables.data-00000-of-00002 and its brothers must all be there and readable to the last byte.
local function read_variables(self, folder)
  local names = self.files.list(folder .. "/variables")
  if not names then return true end -- a model without variables has no such folder
  local have, total = {}, nil
  for _, entry in ipairs(names) do
    have[entry.name] = true
    total = total or math.tointeger(tonumber(entry.name:match "^variables%.data%-%d+%-of%-(%d+)$"))
  end
  local wanted = { "variables.index" }
  for shard = 0, (total or 1) - 1 do wanted[#wanted + 1] = ("variables.data-%05d-of-%05d"):format(shard, total or 1) end
  for _, name in ipairs(wanted) do
    local path = folder .. "/variables/" .. name
    if not have[name] then return nil, not_found(path) end
    local ok, err = self.files.check(path)
    if not ok then return nil, ("Data loss: %s: %s"):format(path, err.message) end
  end
  return true
end

local function read_bundle(self, folder)
  local path = folder .. "/saved_model.pb"
  local data, identity = self.files.read(path)
  if not data then
    return nil, "Not found: Could not find SavedModel .pb or .pbtxt at supplied export directory path: " .. folder
  end
  local ok, why = read_variables(self, folder)
  if not ok then return nil, why end
  local key = tostring(identity) .. #data
  local bundle = bundles[key]
  if not bundle then
    bundle, why = savedmodel.parse(data)
    if not bundle then return nil, why end
    bundles[key] = bundle
  end
  return bundle
end

local function announce_load(self, name, folder)
  self:say("I", "manager", "Successfully reserved resources to load servable %s", name)
  self:say("I", "approve", "Approving load for servable version %s", name)
  self:say("I", "loading", "Loading servable version %s", name)
  self:say("I", "reader", "Reading SavedModel from: %s", folder)
end

local function load_once(self, folder)
  local began = task.now()
  local bundle, why = read_bundle(self, folder)
  ended(self)
  if not bundle then return nil, why end
  self:say("I", "tags", "Reading meta graph with tags { serve }")
  self:say("I", "restore", "Restoring SavedModel bundle.")
  pause(self, self.load_seconds)
  local took = math.floor((task.now() - began) * 1e6)
  self:say("I", "took", "SavedModel load for tags { serve }; Status: success. Took %d microseconds.", took)
  return bundle
end

local function load_version(self, model, number, folder_name)
  local name = ("{name: %s version: %d}"):format(model.name, number)
  local folder = model.base_path:gsub("/+$", "") .. "/" .. folder_name
  local entry = { state = "LOADING" }
  model.versions[number] = entry
  announce_load(self, name, folder)
  for attempt = 0, load_retries do
    if attempt > 0 then
      pause(self, self.retry_seconds or retry_seconds)
      self:say("I", "again", "Retrying of Loading servable: %s retry: %d", name, attempt)
    end
    local bundle, why = load_once(self, folder)
    if bundle then
      entry.state, entry.bundle, entry.error_code = "AVAILABLE", bundle, nil
      self:say("I", "warmup", "No warmup data file found at %s/assets.extra/tf_serving_warmup_requests", folder)
      self:say("I", "loaded", "Successfully loaded servable version %s", name)
      return true
    end
    entry.why = why
    self:say("E", "retry", "Loading servable: %s failed: %s", name, why)
  end
  entry.state, entry.error_code, entry.error_message = "END", "UNKNOWN", entry.why
  return false, ("%s due to error: %s"):format(name, entry.why)
end

local function unload_others(self, model, wanted)
  if #wanted == 0 then return end -- a server never unloads its last version because the files went away
  local keep = {}
  for _, number in ipairs(wanted) do keep[number] = true end
  for number, entry in pairs(model.versions) do
    if not keep[number] and entry.state == "AVAILABLE" then
      entry.state, entry.bundle = "END", nil
      self:say("I", "unload", "Quiescing servable version {name: %s version: %d}", model.name, number)
    end
  end
end

-- Brings one model to what its policy wants now. Answers whether anything answers, and the first failure.
local function follow(self, model)
  local found = folders(self, model)
  if not found then return model.answers, nil end
  local wanted, failure = aspired(self, model, found), nil
  if #wanted == 0 and not model.answers then
    self:say("W", "missing", "No versions of servable %s found under base path %s", model.name, model.base_path)
  end
  table.sort(wanted)
  for _, number in ipairs(wanted) do
    local entry = model.versions[number]
    if not entry or (entry.state == "END" and not entry.error_code) then
      local ok, why = load_version(self, model, number, found[number])
      if ok then model.answers = true else failure = failure or why end
    end
  end
  unload_others(self, model, wanted)
  return model.answers, failure
end

-- Start ----------------------------------------------------------------------------------------------------------

local function configured(self)
  local flags = self.flags
  if flags.model_config_file and flags.model_config_file ~= "" then
    local text = self.files.read(flags.model_config_file)
    if not text then give_up(self, 255, not_found(flags.model_config_file)) end
    local models = modelconfig.parse(text)
    if not models or #models == 0 then
      give_up(self, 255, ("Invalid argument: Invalid protobuf file: '%s'"):format(flags.model_config_file))
    end
    return models
  end
  if not flags.model_base_path or flags.model_base_path == "" then
    give_up(self, 255, "Invalid argument: Both server_options.model_base_path and server_options.model_config_file are empty!")
  end
  local name = flags.model_name or "default"
  self:say("I", "config", "Building single TensorFlow model file config:  model_name: %s model_base_path: %s", name, flags.model_base_path)
  return { { name = name, base_path = flags.model_base_path, policy = { kind = "latest", count = 1 }, labels = {} } }
end

local function check_models(self, models)
  for _, model in ipairs(models) do
    if not model.name or not model.base_path then
      give_up(self, 255, "Invalid argument: Expected ModelConfig to have a name and a base path")
    elseif model.base_path:sub(1, 1) ~= "/" and not model.base_path:find "^%a+://" then
      give_up(self, 255, ("Invalid argument: Expected model %s to have an absolute path or URI; got base_path()=%s")
        :format(model.name, model.base_path))
    end
  end
end

local function open_ports(self)
  local flags = self.flags
  local grpc, http = math.tointeger(tonumber(flags.port or 8500)), math.tointeger(tonumber(flags.rest_api_port or 0))
  self.replica = replica.new { server = { models = self.models }, draw = self.draw, accelerator = self.accelerator }
  self.network:listen(self.ip, grpc, function() return nil, "reset" end) -- HTTP/1.1 to a gRPC port
  self:say("I", "grpc", "Running gRPC ModelServer at 0.0.0.0:%d ...", grpc)
  if http and http > 0 then
    self.network:listen(self.ip, http, function(request, timeout) return self.replica:serve(request, timeout) end)
    self:say("I", "http", "Exporting HTTP/REST API at:localhost:%d ...", http)
    self.log "[evhttp_server.cc : 238] NET_LOG: Entering the event loop ..."
  end
  self.ports = { grpc, http }
  self.serving = true
end

-- Waits for a write under one of the base paths, then for the next poll.
local function wait_for_change(self, seconds)
  local changed = self.wake:wait(seconds)
  self.wake:clear()
  ended(self)
  if changed then pause(self, poll_seconds) end
  return changed
end

-- The server waits for every configured model before it opens a port.
local function first_load(self)
  while true do
    local all, failures = true, {}
    for _, model in ipairs(self.list) do
      local answers, failure = follow(self, model)
      all = all and answers
      failures[#failures + 1] = failure
    end
    if #failures > 0 then
      give_up(self, 255, ("Unknown: %d servable(s) did not become available: {%s}, "):format(#failures, table.concat(failures, "}, {")))
    end
    if all then return end
    wait_for_change(self, patience)
  end
end

local function main(self)
  self.list = configured(self)
  check_models(self, self.list)
  self:say("I", "core", "Adding/updating models.")
  for _, model in ipairs(self.list) do
    model.versions = {}
    self.models[model.name] = model
    self:say("I", "adding", " (Re-)adding model: %s", model.name)
  end
  first_load(self)
  open_ports(self)
  while true do
    if wait_for_change(self, nil) then
      for _, model in ipairs(self.list) do follow(self, model) end
    end
  end
end

---Runs the process until it ends; blocks. Answers its exit code.
function Process:run()
  local ok, why = pcall(main, self)
  if ok or (type(why) == "table" and why.stopped) then return 0 end
  if type(why) ~= "table" or not why.exit then error(why, 0) end
  return why.exit
end

---A file under this path was written.
function Process:changed(path)
  for _, model in ipairs(self.list or {}) do
    local base = model.base_path:gsub("/+$", "") .. "/"
    if path:sub(1, #base) == base then return self.wake:set() end
  end
end

---SIGTERM: this server does not drain, it goes.
function Process:stop()
  if self.stopped then return end
  self.stopped = true
  if self.replica then self.replica:close() end
  for _, port in ipairs(self.ports or {}) do self.network:close(self.ip, port) end
  self.wake:set()
end

---@class sandbox.inference.process
---@field flags table<string, string> of the command line
---@field files table { list(path), read(path), check(path) } as the container sees them
---@field log fun(line: string)
---@field network table the pod network
---@field ip string
---@field draw function random numbers of this replica
---@field load_seconds number
---@field accelerator? string
---@field retry_seconds? number between attempts to load a version

---@param options sandbox.inference.process
function M.new(options)
  local self = setmetatable({ models = {}, wake = task.event(), stopped = false, serving = false }, Process)
  for name, value in pairs(options) do self[name] = value end
  return self
end

return M
