-- SPDX-License-Identifier: Apache-2.0
-- YAML as kubectl reads and writes it, with the same values and marks as eirun.json.
local core = require "eirun.core.yaml"
local raising = require("eirun.face").raising

local M = {}

-- The same value as json.null.
M.null = core.null

---@class eirun.yaml.Options
---@field reveal? boolean write secrets out; the text is then a secret itself
---@field fold? boolean break long plain text at 80 characters, as kubectl does

---Reads one document; null when there is none. Scalars mean what kubectl takes them for: `yes` and `on` are true, 0755 is 493, dates stay
---text.
---@param text string
---@return any value
---Example: `local deployment = yaml.decode(fs.read "deployment.yaml")`
---Raises kind `invalid`, with the fields `line` and `column`, for what is not YAML, a key said twice, a second document, an integer
---beyond 64 bits.
M.decode = raising(core.decode)

---Reads all documents of a text into a list; an empty document is null.
---@param text string
---@return any[] values
---Example: `for _, object in ipairs(yaml.decode_all(fs.read "all.yaml")) do k8s:ensure(object) end`
---Raises as `decode` does.
M.decode_all = raising(core.decode_all)

---Writes one document: keys sorted, text of several lines as a literal block, quotes only where some reader would take the text for
---something else.
---@param value any
---@param options? eirun.yaml.Options
---@return string|eirun.Secret
---Example: `fs.write("pod.yaml", yaml.encode(pod))`
---Raises kind `invalid`, with the path of the piece, for what YAML cannot hold.
M.encode = raising(core.encode)

---Writes a list of documents, `---` between them.
---@param values any[]
---@param options? eirun.yaml.Options
---@return string|eirun.Secret
---Example: `fs.write("all.yaml", yaml.encode_all { service, deployment })`
---Raises as `encode` does.
M.encode_all = raising(core.encode_all)

---As `json.array`.
---@generic T: table
---@param value? T
---@return T
---Example: `yaml.encode { args = yaml.array {} }`. Raises kind `invalid` for what is no table.
M.array = raising(core.array)

---As `json.is_array`.
---@param value any
---@return boolean
---Example: `yaml.is_array(yaml.decode "[]")` is true. Raises nothing.
M.is_array = core.is_array

return M
