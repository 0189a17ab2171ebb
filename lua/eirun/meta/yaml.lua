-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.yaml
-- What the C module core/bind_yaml.c offers; a test compares the names.
local yaml = {}

---The same values and marks as json's.
---@type lightuserdata
yaml.null = nil
---As `json.array`.
---Example: `yaml.encode { args = yaml.array {} }`
---@generic T: table
---@param value? T
---@return T
function yaml.array(value) end
---As `json.is_array`.
---Example: `yaml.is_array(yaml.decode "[]")` is true.
---@param value any
---@return boolean
function yaml.is_array(value) end

---@class eirun.core.yaml.Options
---@field reveal? boolean write secrets out; the text is then a secret itself
---@field fold? boolean break long plain text at 80 characters, as kubectl does

---Reads one document; null when there is none. Scalars mean what kubectl takes them for (sigs.k8s.io/yaml): `yes`, `on` and `y` are
---true, 0755 is 493, 1e3 is a float, dates stay strings; keys that are numbers or booleans become strings. A merge (`<<`) works
---where it stands: it overrides what the map said before it.
---Errors: invalid, with `line` and `column`, for what is not YAML, a key said twice, a key that is null or a collection, integers beyond
---64 bits (kubectl would lose their digits), .inf and .nan, an unknown alias, aliases that stand for more than 4 MiB, more than
---512 levels, a second document; quota for more than 64 MiB.
---Example: `local deployment = assert(yaml.decode(fs.read "deployment.yaml"))`
---@param text string
---@return any value
---@return eirun.Error|nil
function yaml.decode(text) end

---Reads all documents of a stream into an array; an empty document is null. Errors as `decode`.
---@param text string
---@return any[]|nil
---@return eirun.Error|nil
---Example: `for _, object in ipairs(assert(yaml.decode_all(text))) do k8s:ensure(object) end`
function yaml.decode_all(text) end

---Writes one document as kubectl lays it out: keys sorted, lists not indented, text of several lines as a literal block, quotes
---only where some YAML reader would take the text for something else. Raises as `json.encode` does.
---Example: `yaml.encode { image = "nginx", tag = "1.0" } --> image: nginx\ntag: "1.0"\n`
---@param value any
---@param options? eirun.core.yaml.Options
---@return string|eirun.Secret
function yaml.encode(value, options) end

---Writes a stream, `---` between its documents.
---@param values any[]
---@param options? eirun.core.yaml.Options
---@return string|eirun.Secret
---Example: `yaml.encode_all { service, deployment }`
function yaml.encode_all(values, options) end

return yaml
