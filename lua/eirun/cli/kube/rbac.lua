-- SPDX-License-Identifier: Apache-2.0
-- eirun kube rbac PLAYBOOK: runs it twice in a fresh sandbox, where all is made and then found, and prints the rights it used.
local args = require "eirun.play.args"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local load_book = require "eirun.play.load"
local rbac = require "eirun.kube.rbac"
local target = require "eirun.target"
local term = require "eirun.core.term"
local yaml = require "eirun.core.yaml"

local M = {}

local holder = "kubernetes-admin" -- whom the sandbox's kubeconfig names

local silent = setmetatable({}, { __index = function() return function() end end })

local function run_once(book, values, dir, audit)
  local session <close> = target.open({ sandbox = dir, audit = audit }, silent) -- luacheck: ignore 211 (it is closed)
  local code, run = require("eirun.play.run").run(book, values, silent)
  if code == 0 or code == 4 then return end
  local err = run.summary.error
  error(errors.wrap(err, ("cannot tell the rights of %s: it fails in a fresh sandbox"):format(book.path)), 0)
end

local function read_audit(path)
  local asked = {}
  for line in (fs.read(path) or ""):gmatch "[^\n]+" do
    local one = json.decode(line)
    if one.user == holder then asked[#asked + 1] = one end
  end
  return asked
end

local function recorded(book, values)
  local dir = errors.check(fs.mkdtemp "/tmp/eirun-rbac-")
  local ok, err = pcall(function()
    for _ = 1, 2 do run_once(book, values, dir .. "/box", dir .. "/audit") end
  end)
  local asked = read_audit(dir .. "/audit")
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
  return asked
end

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  local path = table.remove(words, 1) or errors.raise("invalid", "the rights of which playbook?", { code = "usage" })
  local book = load_book.playbook(path)
  -- Values and names as in the sandbox, where it will run.
  local values = args.resolve(book, load_book.layers(book, { sandbox = true }, words))
  local rules = rbac.rules(recorded(book, values))
  local name = options.account or "eirun-" .. book.name
  local account = { name = name, namespace = options.namespace or "default" }
  term.write(1, yaml.encode_all(rbac.manifests(name, account, rules)))
  return 0
end

return M
