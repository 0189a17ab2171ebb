-- SPDX-License-Identifier: Apache-2.0
-- JSON that comes out as it went in: integers keep 64 bits, `[]` differs from `{}`, null is a value, keys are written in order.
local core = require "eirun.core.json"
local raising = require("eirun.face").raising

local M = {}

-- JSON's null, the same value as yaml.null; nil is "not said" and cannot be encoded.
M.null = core.null

---@class eirun.json.Options
---@field indent? boolean one member a line, two spaces a level
---@field reveal? boolean write secrets out; the text is then a secret itself

---Writes a value with its keys sorted. An empty table is `{}` unless it is marked as an array; a sequence needs no mark.
---@param value any
---@param options? eirun.json.Options
---@return string|eirun.Secret
---Example: `json.encode({ items = json.array {} })` is `{"items":[]}`.
---Raises kind `invalid`, with the path of the piece (`value.items[3].name`), for what JSON cannot hold: holes in a list, keys of two
---kinds, NaN, functions, text that is not UTF-8, a cycle, secrets without `reveal`.
M.encode = raising(core.encode)

---Reads one JSON value. Numbers with a point or an exponent are floats, others integers; an integer beyond 64 bits is the nearest
---float. Lists carry the mark of `json.array`.
---@param text string
---@return any value
---Example: `local names = json.decode(fs.read "names.json")`
---Raises kind `invalid`, with the fields `line` and `column`, for what is not JSON; `quota` for more than 256 MiB.
M.decode = raising(core.decode)

---Marks a table (a new one without an argument) as a list and returns it.
---@generic T: table
---@param value? T
---@return T
---Example: `json.encode(json.array {})` is `[]`. Raises kind `invalid` for what is no table.
M.array = raising(core.array)

---Whether the value carries the mark of a list. A plain sequence does not.
---@param value any
---@return boolean
---Example: `json.is_array(json.decode "[]")` is true. Raises nothing.
M.is_array = core.is_array

return M
