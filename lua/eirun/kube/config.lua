-- SPDX-License-Identifier: Apache-2.0
-- Kubeconfig files: found, merged as kubectl merges them, resolved to one server and one identity.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local os_core = require "eirun.core.os"
local secret = require "eirun.core.secret"
local yaml = require "eirun.core.yaml"

local M = {}

---@class eirun.KubeConfig
---@field server string
---@field ca_pem? string
---@field verify boolean
---@field proxy? string
---@field tls_server_name? string
---@field cert_pem? string
---@field key_pem? userdata
---@field token? userdata
---@field token_file? string re-read while running
---@field files? {cert_pem?: string, key_pem?: string, ca_pem?: string} paths of what came from files; re-read while running
---@field exec? table a credential plug-in
---@field exec_cluster? table what the plug-in is told of the cluster
---@field headers? string[][] of impersonation
---@field namespace string
---@field context string
---@field ends? number of a kubeconfig that is issued for some time: when, seconds since the epoch
---@field renew? fun(anew?: boolean): eirun.KubeConfig, number the next one, and when to ask again; anew: whatever is known
---@field renew_at? number when to ask first
---@field first? eirun.KubeConfig the one at hand

local function fail(where, text, hint)
  errors.raise("invalid", ("%s: %s"):format(where, text), { object = where, hint = hint })
end

local function absolute(path, folder)
  return path:sub(1, 1) == "/" and path or folder .. "/" .. path
end

local function text_of(value)
  return type(value) == "string" and value ~= "" and value or nil
end

-- Reading and merging -------------------------------------------------------------------------------------------------

local lists = { clusters = "cluster", users = "user", contexts = "context" }

local function folder_of(path)
  return path:match("^(.*)/[^/]*$") or "."
end

local function check_entry(path, list, i, entry)
  local body = type(entry) == "table" and entry[lists[list]]
  if type(entry) ~= "table" or type(entry.name) ~= "string" then fail(path, ("%s[%d] has no name"):format(list, i)) end
  if body ~= nil and body ~= json.null and type(body) ~= "table" then
    fail(path, ("%s '%s': %s is no map"):format(list, entry.name, lists[list]))
  end
  return { name = entry.name, body = type(body) == "table" and body or {}, file = path, folder = folder_of(path),
    place = ("%s '%s'"):format(lists[list], entry.name) }
end

-- The first file that names an entry owns it whole; of `current-context` the first that is not empty wins.
local function merge(into, config, path)
  if type(config) ~= "table" then fail(path, "is no kubeconfig") end
  for list in pairs(lists) do
    local entries = config[list]
    if entries ~= nil and entries ~= json.null and type(entries) ~= "table" then fail(path, list .. " is no list") end
    for i, entry in ipairs(type(entries) == "table" and entries or {}) do
      local checked = check_entry(path, list, i, entry)
      into[list][checked.name] = into[list][checked.name] or checked
    end
  end
  into.current = into.current or text_of(config["current-context"])
  into.files[#into.files + 1] = path
end

local function empty()
  return { clusters = {}, users = {}, contexts = {}, files = {} }
end

local function decode(text, path)
  local config, err = yaml.decode(text)
  if config == nil and err then fail(path, err.message) end
  return config
end

local function read_into(into, path, optional)
  local text, err = fs.read(path)
  if not text and optional and errors.is(err, "not_found") then return end
  local config = decode(errors.check(text, err), path)
  if config ~= nil and config ~= json.null then merge(into, config, path) end
end

-- Identity ------------------------------------------------------------------------------------------------------------

-- `-data` wins over the path of the same item. A file is remembered, since it may be replaced while we run.
local function pem(entry, key, config, field)
  local data = text_of(entry.body[key .. "-data"])
  if data then
    return crypto.unbase64((data:gsub("%s", ""))) or fail(entry.file, ("%s: %s-data is not base64"):format(entry.place, key))
  end
  local path = text_of(entry.body[key])
  if not path then return nil end
  path = absolute(path, entry.folder)
  local text, err = fs.read(path)
  config.files = config.files or {}
  config.files[field] = path
  return text or fail(entry.file, ("%s: %s: %s"):format(entry.place, key, err.message))
end

local BASIC = "basic authentication was removed from Kubernetes in 1.19"
local gone = { ["auth-provider"] = "auth-provider was removed from Kubernetes in 1.26: use an exec plug-in", username = BASIC,
  password = BASIC }

local versions = { ["client.authentication.k8s.io/v1"] = true, ["client.authentication.k8s.io/v1beta1"] = true }

local function check_exec(user)
  local exec = user.body.exec
  local function bad(text, hint) fail(user.file, ("%s: exec: %s"):format(user.place, text), hint) end
  if type(exec) ~= "table" then bad "is no map" end
  if not versions[exec.apiVersion] then
    bad(("apiVersion '%s' is not known"):format(tostring(exec.apiVersion)), "client.authentication.k8s.io/v1 and /v1beta1 are")
  end
  if not text_of(exec.command) then bad "has no command" end
  if exec.interactiveMode == "Always" then bad("interactiveMode is Always, and eirun asks nobody", "use kubectl for this plug-in") end
  return exec
end

local function exec_of(user)
  if user.body.exec == nil or user.body.exec == json.null then return nil end
  local exec = check_exec(user)
  local new = {}
  for key, value in pairs(exec) do new[key] = value end
  if exec.command:find("/", 1, true) then new.command = absolute(exec.command, user.folder) end
  return new
end

local function impersonation(user)
  local body, headers = user.body, {}
  local function add(name, value) if text_of(value) then headers[#headers + 1] = { name, value } end end
  add("Impersonate-User", body.as)
  add("Impersonate-Uid", body["as-uid"])
  for _, group in ipairs(type(body["as-groups"]) == "table" and body["as-groups"] or {}) do add("Impersonate-Group", group) end
  local extra = type(body["as-user-extra"]) == "table" and body["as-user-extra"] or {}
  local names = {}
  for name in pairs(extra) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    for _, value in ipairs(extra[name]) do
      add("Impersonate-Extra-" .. crypto.percent_encode(name:lower(), "rfc3986"), value)
    end
  end
  if #headers > 0 and not text_of(body.as) then fail(user.file, user.place .. ": as-* without as") end
  return #headers > 0 and headers or nil
end

local function identity(user, config)
  for key, words in pairs(gone) do
    if user.body[key] ~= nil and user.body[key] ~= json.null then fail(user.file, ("%s: %s"):format(user.place, words)) end
  end
  config.cert_pem = pem(user, "client-certificate", config, "cert_pem")
  local key = pem(user, "client-key", config, "key_pem")
  if config.cert_pem and not key then fail(user.file, user.place .. ": the client certificate has no key") end
  if key and not config.cert_pem then fail(user.file, user.place .. ": the client key has no certificate") end
  config.key_pem = key and secret.new(key)
  local token = text_of(user.body.token)
  config.token = token and secret.new(token)
  local file = text_of(user.body.tokenFile)
  config.token_file = file and absolute(file, user.folder)
  config.headers = impersonation(user)
  -- A plug-in is not run where there is an identity already.
  if not (config.token or config.token_file or config.cert_pem) then config.exec = exec_of(user) end
end

---Is this server certainly this machine?
---@param server string a URL
---@return boolean
---Example: `config.is_loopback "https://127.0.0.1:6443"` is true. Raises nothing.
function M.is_loopback(server)
  local host = server:match("^https?://%[([^%]]+)%]") or server:match("^https?://([^:/]+)")
  if not host then return false end
  return host == "localhost" or host == "::1" or host:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

-- Server --------------------------------------------------------------------------------------------------------------

local EXTENSION = "client.authentication.k8s.io/exec"

local function extension(body)
  for _, entry in ipairs(type(body.extensions) == "table" and body.extensions or {}) do
    if entry.name == EXTENSION then return entry.extension end
  end
end

local function server(cluster, config)
  local body = cluster.body
  local url = text_of(body.server) or fail(cluster.file, cluster.place .. " has no server")
  if not url:find("^https?://[^/]") then
    fail(cluster.file, ("%s: server '%s' is no http or https URL"):format(cluster.place, url))
  end
  config.server = url:gsub("[?#].*$", ""):gsub("/+$", "")
  config.ca_pem = pem(cluster, "certificate-authority", config, "ca_pem")
  config.verify = body["insecure-skip-tls-verify"] ~= true
  if config.ca_pem and not config.verify then
    fail(cluster.file, cluster.place .. ": certificate-authority and insecure-skip-tls-verify exclude each other")
  end
  config.proxy = text_of(body["proxy-url"])
  if config.proxy and not config.proxy:find("^https?://.") and not config.proxy:find("^socks5h?://.") then
    fail(cluster.file, ("%s: proxy-url '%s' is no http, https or socks5 URL"):format(cluster.place, config.proxy))
  end
  config.tls_server_name = text_of(body["tls-server-name"])
  config.exec_cluster = { server = config.server, ["tls-server-name"] = config.tls_server_name, ["proxy-url"] = config.proxy,
    ["insecure-skip-tls-verify"] = not config.verify or nil, config = extension(body),
    ["certificate-authority-data"] = config.ca_pem and crypto.base64(config.ca_pem) or nil }
end

local function known(set)
  local names = {}
  for name in pairs(set) do names[#names + 1] = "'" .. name .. "'" end
  table.sort(names)
  return #names > 0 and "it has " .. table.concat(names, ", ") or nil
end

local function entry(merged, list, name, where)
  return merged[list][name] or fail(where, ("has no '%s' in its %s"):format(tostring(name), list), known(merged[list]))
end

local function choose(merged, where, wanted)
  local name = wanted or merged.current
  if not name then
    fail(where, "names no current-context", "say which one: --context NAME; " .. (known(merged.contexts) or "it has none"))
  end
  return entry(merged, "contexts", name, where)
end

-- Flags of the command line that stand above the file: --cluster, --user, --server, --token.
local function overrides(config, opts)
  if opts.server then config.server, config.tls_server_name = opts.server:gsub("/+$", ""), nil end
  if opts.token then config.token, config.token_file, config.exec = secret.new(opts.token), nil, nil end
  if opts.insecure then
    config.verify, config.ca_pem = false, nil
    if config.files then config.files.ca_pem = nil end
  end
  return config
end

local function resolve(merged, where, opts)
  local context = choose(merged, where, opts.context)
  local cluster = entry(merged, "clusters", opts.cluster or context.body.cluster, context.file)
  local name = opts.user or text_of(context.body.user)
  local user = name and entry(merged, "users", name, context.file) or { body = {}, file = where, folder = ".", place = "user" }
  local config = { context = context.name, namespace = text_of(context.body.namespace) or "default" }
  server(cluster, config)
  identity(user, config)
  return overrides(config, opts)
end

-- The ways to a configuration -----------------------------------------------------------------------------------------

local ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

---The configuration of a pod: its service account, read anew while it runs. nil outside of a cluster.
---@param folder? string where the account's files lie
---@return eirun.KubeConfig|nil
---Example: `config.in_cluster()`. Raises nothing.
function M.in_cluster(folder)
  folder = folder or ACCOUNT
  local host, port = os_core.getenv "KUBERNETES_SERVICE_HOST", os_core.getenv "KUBERNETES_SERVICE_PORT"
  if not text_of(host) or not text_of(port) or not fs.stat(folder .. "/token") then return nil end
  local named = text_of(os_core.getenv "POD_NAMESPACE") or text_of((fs.read(folder .. "/namespace") or ""):match("^%s*(.-)%s*$"))
  return { server = ("https://%s:%s"):format(host:find(":", 1, true) and "[" .. host .. "]" or host, port), verify = true,
    ca_pem = fs.read(folder .. "/ca.crt") or nil, files = { ca_pem = folder .. "/ca.crt" }, token_file = folder .. "/token",
    namespace = named or "default", context = "in-cluster" }
end

local function files_of_environment()
  local list = text_of(os_core.getenv "KUBECONFIG")
  local files, seen = {}, {}
  for path in (list or (os_core.getenv "HOME" or "") .. "/.kube/config"):gmatch("[^:]+") do
    if not seen[path] then files[#files + 1] = path end
    seen[path] = true
  end
  return files
end

---@class eirun.KubeConfig.Options
---@field path? string this file alone
---@field context? string
---@field cluster? string
---@field user? string
---@field server? string
---@field token? string
---@field insecure? boolean

---The configuration that kubectl would use: the file given, else those of KUBECONFIG, merged, else ~/.kube/config, else the pod's
---own service account.
---@param opts? eirun.KubeConfig.Options
---@return eirun.KubeConfig
---Example: `config.load { context = "staging" }`. Raises "invalid" with file and place, "not_found" where there is none.
function M.load(opts)
  opts = opts or {}
  if opts.path then return M.read(opts.path, opts) end
  local merged, files = empty(), files_of_environment()
  for _, path in ipairs(files) do read_into(merged, path, true) end
  if #merged.files > 0 then return resolve(merged, table.concat(merged.files, ":"), opts) end
  local config = M.in_cluster() or opts.server and { server = opts.server, verify = true, namespace = "default", context = "none" }
  if config then return overrides(config, opts) end
  errors.raise("not_found", "there is no kubeconfig: looked at " .. table.concat(files, ", "),
    { hint = "give --kubeconfig FILE, or set KUBECONFIG" })
end

---Reads one kubeconfig file.
---@param path string
---@param opts? string|eirun.KubeConfig.Options a context's name, or options
---@return eirun.KubeConfig
---Example: `config.read("/etc/kubernetes/admin.conf")`. Raises "not_found" for no file, "invalid" with file and place for a bad one.
function M.read(path, opts)
  if type(opts) ~= "table" then opts = { context = opts } end
  local merged = empty()
  read_into(merged, path)
  return resolve(merged, path, opts)
end

---The same from text.
---@param text string
---@param opts? {context?: string, where?: string, folder?: string}
---@return eirun.KubeConfig
---Example: `config.parse(text, { where = "kubeconfig of c1" })`. Raises "invalid" with `where` and the place.
function M.parse(text, opts)
  opts = opts or {}
  local where = opts.where or "kubeconfig"
  local config = decode(text, where)
  if config == nil then fail(where, "is empty") end
  return M.resolve(config, opts)
end

---A configuration whose kubeconfig ends and is asked for again before it does, while the client runs.
---@param ask fun(anew?: boolean): string, number|nil, number|nil its text, when it ends, and when to ask again
---@param opts? {context?: string, where?: string}
---@return eirun.KubeConfig
---Example: `config.issued(function(anew) return cluster:kubeconfig { minutes = 60, anew = anew } end)`. Raises as `parse`, and what
---asking raises.
function M.issued(ask, opts)
  local function one(anew)
    local text, ends, at = ask(anew)
    local config = M.parse(text, opts)
    config.ends = ends
    return config, at or ends or math.huge
  end
  local first, at = one()
  if at == math.huge then return first end
  local config = {}
  for key, value in pairs(first) do config[key] = value end
  config.first, config.renew, config.renew_at = first, one, at
  return config
end

---Picks a context out of a decoded kubeconfig.
---@param config table
---@param opts? {context?: string, where?: string, folder?: string}
---@return eirun.KubeConfig
---Example: `config.resolve(yaml.decode(text))`. Raises kind "invalid" with the file's name.
function M.resolve(config, opts)
  opts = opts or {}
  local where, merged = opts.where or "kubeconfig", empty()
  merge(merged, config, where)
  for list in pairs(lists) do
    for _, one in pairs(merged[list]) do one.folder = opts.folder or "." end
  end
  return resolve(merged, where, opts)
end

return M
