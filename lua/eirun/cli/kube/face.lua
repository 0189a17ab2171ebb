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

---What goes on until somebody ends it, and so must end when nobody can read it.
---@param text string
function M.flow(text)
  errors.check(term.write(1, text))
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
  local k8s, session = (options.sandbox and sandbox_client or outside_client)(options)
  if options.namespace then k8s = k8s:namespace(options.namespace) end
  k8s.shared.impatient = true
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
  if err.status == 404 then return "Error from server (NotFound): the server could not find the requested resource" end
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
      M.usage("there is no need to specify a resource type as a separate argument when passing arguments in resource/name form "
        .. "(e.g. 'kubectl get resource/<resource_name>' instead of 'kubectl get resource resource/<resource_name>'")
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

---Which file a manifest came from.
M.source = setmetatable({}, { __mode = "k" })

-- JSON objects one after another, as jq prints them, are no YAML: their texts, nil where it is something else.
local function json_texts(text)
  local list, from, depth = {}, text:match "^%s*(){", 0
  local at = from
  while at do
    local place = text:find('[{}"]', at)
    if not place then return depth == 0 and not text:find("%S", at) and list or nil end
    local c = text:sub(place, place)
    at = place + 1
    if c == '"' then
      repeat
        at = text:find('["\\]', at)
        local escape = at and text:sub(at, at) == "\\"
        at = at and at + (escape and 2 or 1)
      until not escape
    else
      depth = depth + (c == "{" and 1 or -1)
      if depth == 0 then list[#list + 1], from = text:sub(from, place), at end
    end
  end
  return nil
end

local function documents_in(text)
  local yaml = require "eirun.core.yaml"
  local documents, err = yaml.decode_all(text)
  local texts = not documents and json_texts(text)
  if not texts or #texts < 2 then return documents, err end
  documents = {}
  for i, one in ipairs(texts) do
    local value, problem = require("eirun.core.json").decode(one)
    if value == nil then return nil, problem end
    documents[i] = value
  end
  return documents
end

local function manifests_in(text, where, list)
  local documents, err = documents_in(text)
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
        M.source[object] = where
      end
    end
  end
end

local suffixes = { [".yaml"] = true, [".yml"] = true, [".json"] = true }

local function files_at(path, deep, list)
  local fs = require "eirun.core.fs"
  local stat, err = fs.stat(path)
  if not stat and errors.is(err, "not_found") then errors.raise("not_found", ('the path "%s" does not exist'):format(path)) end
  errors.check(stat, err)
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

-- Objects that are acted on ------------------------------------------------------------------------------------------------

---@class eirun.kube.Target
---@field info eirun.KindInfo
---@field name string
---@field k8s eirun.KubeClient in the object's namespace
---@field object? table as it was read
---@field manifest? table as it stood in a file

---The client for an object's own namespace; raises where --namespace says another one.
---@param k8s eirun.KubeClient
---@param options table
---@param namespace string|nil
---@return eirun.KubeClient
function M.inside(k8s, options, namespace)
  if not namespace or namespace == k8s.ns then return k8s end
  if options.namespace then
    errors.raise("invalid", ("the namespace from the provided object \"%s\" does not match the namespace \"%s\". "):format(namespace,
      options.namespace) .. ("You must pass '--namespace=%s' to perform this operation."):format(namespace), { code = "usage" })
  end
  return k8s:namespace(namespace)
end

---The kind of a manifest, in kubectl's words when the server does not have it.
---@param k8s eirun.KubeClient
---@param manifest table
---@return eirun.KindInfo
function M.info_of(k8s, manifest)
  local ok, info = pcall(k8s.kind, k8s, manifest.kind, manifest.apiVersion)
  if ok then return info end
  if errors.from(info).code ~= "NoKind" then error(info, 0) end
  local place = manifest.metadata
  local text = 'resource mapping not found for name: "%s" namespace: "%s" from "%s": no matches for kind "%s" in version "%s"\n'
    .. "ensure CRDs are installed first"
  errors.raise("not_found", text:format(place.name or "", place.namespace or "", M.source[manifest] or "", manifest.kind,
    manifest.apiVersion), { code = "NoKind" })
end

---The objects that `-f` names.
---@param k8s eirun.KubeClient
---@param options table
---@param words? string[] there must be none
---@return eirun.kube.Target[]
function M.targets_in_files(k8s, options, words)
  if words and words[1] then M.usage(("Unexpected args: [%s]"):format(table.concat(words, " "))) end
  local list = {}
  for _, manifest in ipairs(M.manifests(options)) do
    local info = M.info_of(k8s, manifest)
    list[#list + 1] = { info = info, name = manifest.metadata.name, manifest = manifest,
      k8s = info.namespaced and M.inside(k8s, options, manifest.metadata.namespace) or k8s }
  end
  return list
end

local function targets_of_list(k8s, options, info, into)
  for _, object in ipairs(k8s:list(info.api_version .. "/" .. info.kind, { labels = options.selector, fields = options.field_selector,
    all = options.all_namespaces })) do
    into[#into + 1] = { info = info, name = object.metadata.name, object = object,
      k8s = info.namespaced and k8s:namespace(object.metadata.namespace) or k8s }
  end
end

local WHICH = [[
You must provide one or more resources by argument or filename.
Example resource specifications include:
   '-f rsrc.yaml'
   '--filename=rsrc.json'
   '<resource> <name>'
   '<resource>']]

---What `TYPE NAME ...`, `TYPE/NAME ...`, `TYPE -l LABELS`, `TYPE --all` and `-f FILE` name.
---@param k8s eirun.KubeClient
---@param options table
---@param words string[]
---@return eirun.kube.Target[]
function M.targets(k8s, options, words)
  if options.filename then return M.targets_in_files(k8s, options) end
  if not words[1] then M.usage(WHICH) end
  local list = {}
  for _, wanted in ipairs(M.wanted(k8s, words)) do
    if wanted.name then
      if options.selector or options.field_selector or options.all then
        M.usage "name cannot be provided when a selector is specified"
      end
      list[#list + 1] = { info = wanted.info, name = wanted.name, k8s = k8s }
    elseif options.selector or options.field_selector or options.all then
      targets_of_list(k8s, options, wanted.info, list)
    else
      M.usage "resource(s) were provided, but no name was specified"
    end
  end
  return list
end

---Runs `fn` for each; tells each failure and goes on.
---@param list table[]
---@param fn fun(item: table)
---@return integer exit_code
function M.each(list, fn)
  local failed = 0
  for _, item in ipairs(list) do
    local ok, err = pcall(fn, item)
    if not ok then
      err = errors.from(err)
      if err.kind == "cancelled" then error(err, 0) end
      M.note(M.explain(err))
      failed = 1
    end
  end
  return failed
end

-- Words ---------------------------------------------------------------------------------------------------------------

local units = { h = 3600, m = 60, s = 1, ms = 0.001 }

---A time as Go writes it: 30s, 5m, 1h30m, -1s, 0.
---@param text string|nil
---@param otherwise number|nil
---@param name string of the option
---@return number|nil seconds
function M.seconds(text, otherwise, name)
  if text == nil then return otherwise end
  if tonumber(text) then return tonumber(text) end
  local sign, rest, total = text:match "^-?", (text:gsub("^-", "")), 0
  while rest ~= "" do
    local number, unit, tail = rest:match "^([%d.]+)(%a+)(.*)$"
    if not number or not tonumber(number) or not units[unit] then
      M.usage(('invalid argument "%s" for "--%s": a time is written 30s, 5m, 1h'):format(text, name))
    end
    total, rest = total + tonumber(number) * units[unit], tail
  end
  return sign == "-" and -total or total
end

---What stands behind a result of a dry run.
---@param options table
---@return boolean dry
---@return string words
function M.dry_run(options)
  local how = options.dry_run
  if how == nil or how == "none" then return false, "" end
  if how == "client" then M.usage "--dry-run=client is not supported: say --dry-run=server, which the server checks" end
  return true, " (server dry run)"
end

---@param info eirun.KindInfo
---@return string kind.group, as in `deployment.apps`
function M.kind_word(info)
  local group = require("eirun.kube.kinds").group(info.api_version)
  return info.kind:lower() .. (group ~= "" and "." .. group or "")
end

return M
