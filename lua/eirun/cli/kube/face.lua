-- SPDX-License-Identifier: Apache-2.0
-- What the verbs of `eirun kube` share: the way to the cluster, kubectl's words for failures, and its exit codes.
local errors = require "eirun.errors"
local target = require "eirun.target"
local term = require "eirun.core.term"

local M = {}

---@param text string
function M.out(text)
  term.write(1, text)
end

---@param text string a line
function M.note(text)
  term.write(2, text .. "\n")
end

---@param text string
function M.usage(text)
  errors.raise("invalid", text, { code = "usage" })
end

-- Connecting ----------------------------------------------------------------------------------------------------------

local silent = { target = function() end }

local function sandbox_client(options)
  local session = target.open(options, silent)
  if options.kubeconfig then return require("eirun.kube").connect(), session end
  local cluster = require("eirun.ack").cluster(target.current().cluster)
  return require("eirun.kube").connect(cluster), session
end

local function outside_client(options)
  local undo = target.use { sandbox = false, endpoints = {}, namespace = "default" }
  local config = require("eirun.kube.config").load { path = options.kubeconfig, context = options.context, cluster = options.cluster,
    user = options.user, server = options.server, token = options.token, insecure = options.insecure_skip_tls_verify }
  return require("eirun.kube.client").new(config), setmetatable({}, { __close = undo })
end

---A client for the options of the command line, and what to close.
---@param options table
---@return eirun.KubeClient
---@return table session
function M.connect(options)
  require "eirun.kube.access"
  require "eirun.kube.pods"
  local k8s, session = (options.sandbox and sandbox_client or outside_client)(options)
  if options.namespace then k8s = k8s:namespace(options.namespace) end
  k8s.shared.on_warning = function(text) M.note("Warning: " .. text) end
  return k8s, session
end

-- Failures ------------------------------------------------------------------------------------------------------------

local function invalid_words(err)
  local causes, list = err.causes_of_server or {}, {}
  local kind, name = tostring(err.server_message):match '^([%w]+)[%w.]* "([^"]*)" is invalid'
  if not kind or #causes == 0 then return nil end
  for _, cause in ipairs(causes) do list[#list + 1] = ("%s: %s"):format(cause.field, cause.message) end
  local head = ('The %s "%s" is invalid: '):format(kind, name)
  return #list == 1 and head .. list[1] or head .. "\n* " .. table.concat(list, "\n* ")
end

---A failure in kubectl's words.
---@param err eirun.Error
---@return string
function M.explain(err)
  if err.server_message then
    if err.status == 401 then return "error: You must be logged in to the server (Unauthorized)" end
    local words = err.code == "Invalid" and invalid_words(err)
    if words then return words end
    local named = err.code and err.code:find "%a"
    return ("Error from server%s: %s"):format(named and " (" .. err.code .. ")" or "", err.server_message)
  end
  if err.kind == "network" then
    local text = "Unable to connect to the server: " .. err.message
    return err.hint and text .. "; " .. err.hint or text
  end
  return "error: " .. tostring(err.message) .. (err.hint and "; " .. err.hint or "")
end

---Wraps a verb: connects, runs it, tells a failure as kubectl does. The verb answers its exit code.
---@param fn fun(k8s: eirun.KubeClient, options: table, words: string[]): integer|nil
---@param failed? integer exit code of a failure, default 1
---@return table module
function M.verb(fn, failed)
  return { run = function(options, words)
    local ok, code = pcall(function()
      local k8s, session <close> = M.connect(options) -- luacheck: ignore 211
      return fn(k8s, options, words)
    end)
    if ok then return code or 0 end
    local err = errors.from(code)
    if err.kind == "cancelled" then error(code, 0) end
    M.note(M.explain(err))
    return failed or 1
  end }
end

-- What is meant -------------------------------------------------------------------------------------------------------

---@class eirun.kube.Wanted
---@field info eirun.KindInfo
---@field name? string none: all

local function slashed(k8s, words)
  local list = {}
  for _, word in ipairs(words) do
    local kind, name = word:match "^([^/]+)/(.+)$"
    if not kind then
      M.usage "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form"
    end
    list[#list + 1] = { info = k8s:resource(kind), name = name }
  end
  return list
end

local function of_type(k8s, word)
  if word == "all" then return require("eirun.kube.discovery").category(k8s, "all") end
  return { k8s:resource(word) }
end

---Reads `TYPE[,TYPE] [NAME ...]` and `TYPE/NAME ...`.
---@param k8s eirun.KubeClient
---@param words string[]
---@return eirun.kube.Wanted[]
---Raises usage for no type, "not_found" for a type that the server does not have.
function M.wanted(k8s, words)
  if not words[1] then M.usage "You must specify the type of resource to get." end
  if words[1]:find("/", 1, true) then return slashed(k8s, words) end
  local list = {}
  for word in words[1]:gmatch "[^,]+" do
    for _, info in ipairs(of_type(k8s, word)) do
      for i = 2, math.max(2, #words) do list[#list + 1] = { info = info, name = words[i] } end
    end
  end
  return list
end

-- Manifests -----------------------------------------------------------------------------------------------------------

local function read_input()
  local fs = require "eirun.core.fs"
  return errors.check(fs.read "/dev/stdin")
end

local function manifests_in(text, where, list)
  local documents, err = require("eirun.core.yaml").decode_all(text)
  if not documents then errors.raise("invalid", ("%s: %s"):format(where, err.message)) end
  local null = require("eirun.core.json").null
  for i, document in ipairs(documents) do
    if document ~= null then
      local place = #documents > 1 and ("%s, document %d"):format(where, i) or where
      if type(document) ~= "table" then errors.raise("invalid", place .. ": is no object") end
      local items = document.kind and document.kind:find "List$" and document.items
      for _, object in ipairs(type(items) == "table" and items or { document }) do
        if type(object.kind) ~= "string" then errors.raise("invalid", place .. ": kind is not set") end
        if type(object.apiVersion) ~= "string" then errors.raise("invalid", place .. ": apiVersion is not set") end
        if type(object.metadata) ~= "table" or type(object.metadata.name or object.metadata.generateName) ~= "string" then
          errors.raise("invalid", ("%s: %s has no metadata.name"):format(place, object.kind))
        end
        list[#list + 1] = object
      end
    end
  end
end

local suffixes = { [".yaml"] = true, [".yml"] = true, [".json"] = true }

local function files_at(path, deep, list)
  local fs = require "eirun.core.fs"
  local stat = errors.check(fs.stat(path))
  if stat.type ~= "directory" then
    list[#list + 1] = path
    return
  end
  for _, name in ipairs(errors.check(fs.list(path))) do
    local below = path .. "/" .. name
    local is_dir = fs.stat(below).type == "directory"
    if is_dir and deep or not is_dir and suffixes[name:match "%.%w+$" or ""] then files_at(below, deep, list) end
  end
end

---The manifests of `-f FILE`, `-f DIR`, `-f -`, in their order.
---@param options table
---@return table[]
---Raises "invalid" with the file and the place in it.
function M.manifests(options)
  local fs, list = require "eirun.core.fs", {}
  if not options.filename then M.usage "must specify one of -f and -k" end
  for _, path in ipairs(options.filename) do
    if path == "-" then
      manifests_in(read_input(), "STDIN", list)
    else
      local files = {}
      files_at(path, options.recursive, files)
      for _, file in ipairs(files) do manifests_in(errors.check(fs.read(file)), file, list) end
    end
  end
  if #list == 0 then errors.raise("invalid", "no objects passed to apply") end
  return list
end

---@param info eirun.KindInfo
---@return string kind.group, as in `deployment.apps`
function M.kind_word(info)
  local group = require("eirun.kube.kinds").group(info.api_version)
  return info.kind:lower() .. (group ~= "" and "." .. group or "")
end

return M
