-- SPDX-License-Identifier: Apache-2.0
-- Kubeconfig files: read, resolved to one server and one identity. Exec plug-ins are not supported yet and say so.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local secret = require "eirun.core.secret"
local yaml = require "eirun.core.yaml"

local M = {}

---@class eirun.KubeConfig
---@field server string
---@field ca_pem? string
---@field verify boolean
---@field proxy? string
---@field cert_pem? string
---@field key_pem? userdata
---@field token? userdata
---@field namespace string
---@field context string

local function fail(where, text, hint)
  errors.raise("invalid", ("%s: %s"):format(where, text), { object = where, hint = hint })
end

local function named(list, name)
  for _, entry in ipairs(list or {}) do if entry.name == name then return entry end end
end

local function entry(config, list, name, where)
  return named(config[list], name) or fail(where, ("has no '%s' in its %s"):format(tostring(name), list))
end

local function absolute(path, folder)
  return path:sub(1, 1) == "/" and path or folder .. "/" .. path
end

-- `-data` wins over the path of the same item.
local function pem(section, key, folder, where)
  local data = section[key .. "-data"]
  if data and data ~= "" then
    return crypto.unbase64(data) or fail(where, key .. "-data is not base64")
  end
  local path = section[key]
  if not path or path == "" then return nil end
  return errors.check(fs.read(absolute(path, folder)))
end

local function trimmed(text)
  return text and text:match("^%s*(.-)%s*$")
end

local function token_of(user, folder)
  local token = user.token
  if user.tokenFile and user.tokenFile ~= "" then token = trimmed(errors.check(fs.read(absolute(user.tokenFile, folder)))) end
  return token and token ~= "" and secret.new(token) or nil
end

local function check_user(user, where)
  if user.exec then fail(where, "exec plug-ins are not supported yet", "use a kubeconfig with a certificate or a token") end
  if user["auth-provider"] then fail(where, "auth-provider was removed from Kubernetes in 1.26") end
  if user.username then fail(where, "basic authentication was removed from Kubernetes in 1.19") end
end

local function identity(user, folder, where)
  check_user(user, where)
  local cert, key = pem(user, "client-certificate", folder, where), pem(user, "client-key", folder, where)
  if cert and not key then fail(where, "the client certificate has no key") end
  return cert, key and secret.new(key), token_of(user, folder)
end

---Picks a context out of a decoded kubeconfig.
---@param config table
---@param opts? {context?: string, where?: string, folder?: string}
---@return eirun.KubeConfig
---Example: `config.resolve(yaml.decode(text))`. Raises kind "invalid" with the file's name.
function M.resolve(config, opts)
  opts = opts or {}
  local where, folder = opts.where or "kubeconfig", opts.folder or "."
  if type(config) ~= "table" then fail(where, "is no kubeconfig") end
  local name = opts.context or config["current-context"]
  local context = entry(config, "contexts", name, where).context
  local cluster = entry(config, "clusters", context.cluster, where).cluster
  local user = (named(config.users, context.user) or { user = {} }).user or {}
  local cert, key, token = identity(user, folder, where)
  if cluster["tls-server-name"] then fail(where, "tls-server-name is not supported yet", "use an address that is in the certificate") end
  local server = (cluster.server or fail(where, "its cluster has no server")):gsub("[?#].*$", ""):gsub("/+$", "")
  return {
    server = server, ca_pem = pem(cluster, "certificate-authority", folder, where), context = name,
    verify = cluster["insecure-skip-tls-verify"] ~= true,
    proxy = cluster["proxy-url"], cert_pem = cert, key_pem = key, token = token, namespace = context.namespace or "default",
  }
end

---Reads one kubeconfig file.
---@param path string
---@param context? string
---@return eirun.KubeConfig
---Example: `config.read("/etc/kubernetes/admin.conf")`. Raises "not_found" for no file, "invalid" for a bad one.
function M.read(path, context)
  return M.parse(errors.check(fs.read(path)), { where = path, folder = path:match("^(.*)/[^/]*$") or ".", context = context })
end

---The same from text.
---@param text string
---@param opts? {context?: string, where?: string, folder?: string}
---@return eirun.KubeConfig
function M.parse(text, opts)
  local config, err = yaml.decode(text)
  if config == nil then fail(opts and opts.where or "kubeconfig", err and err.message or "is empty") end
  return M.resolve(config, opts)
end

return M
