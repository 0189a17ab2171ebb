-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.json
-- What the C module core/bind_json.c offers; a test compares the names.
local json = {}

---JSON's null: lightuserdata NULL, the same value as `cjson.null` and `yaml.null`. nil is "not said" and cannot be encoded.
---@type lightuserdata
json.null = nil

---@class eirun.core.json.Options
---@field indent? boolean one member a line, two spaces a level
---@field reveal? boolean write secrets out; the text is then a secret itself

---Writes a value with its keys sorted by bytes. Integers keep 64 bits, 3.0 stays 3.0, other floats get the fewest digits (of 15,
---16 or 17) that read back as the same. An empty table is `{}` unless it is marked as an array; a sequence needs no mark.
---Metamethods are not called. Raises, with the path (`value.items[3].name`), for: a cycle, more than 2048 levels, holes, keys of
---two kinds, NaN and infinities, strings that are not UTF-8, functions and the like, secrets without `reveal`.
---Example: `json.encode({ items = json.array {} }) --> {"items":[]}`
---@param value any
---@param options? eirun.core.json.Options
---@return string|eirun.Secret
function json.encode(value, options) end

---Reads any one JSON value (RFC 8259). Numbers with a point or an exponent are floats, others integers; an integer beyond 64 bits is
---the nearest float, as Lua, lua-cjson and kubectl read it. Decoded arrays carry the mark of `json.array`. Errors: invalid, with the
---fields `line` and `column` (where reading stopped; the message does not quote the text), for what is not JSON, a key said twice, a
---NUL in a key, a number beyond a double, more than 2048 levels; quota for more than 256 MiB.
---Example: `local value = assert(json.decode '{"a":[1,null]}')`
---@param text string
---@return any value
---@return eirun.Error|nil
function json.decode(text) end

---Marks a table (a new one without an argument) as an array and returns it.
---@generic T: table
---@param value? T
---@return T
---Example: `json.encode(json.array {})` is `[]`.
function json.array(value) end

---Whether the value carries the mark of an array. A plain sequence does not.
---@param value any
---@return boolean
---Example: `json.is_array(json.decode "[]")` is true.
function json.is_array(value) end

return json
