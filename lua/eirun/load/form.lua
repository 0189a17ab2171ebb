-- SPDX-License-Identifier: Apache-2.0
-- Bodies of multipart/form-data (RFC 7578): fields and files in one request.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local spec = require "eirun.spec"

local M = {}

local largest_file = 64 << 20

local part_rules = {
  name = { type = "string", required = true }, value = { type = "string" }, file = { type = "string" },
  type = { type = "string" }, filename = { type = "string" },
}

local types = {
  gif = "image/gif", jpeg = "image/jpeg", jpg = "image/jpeg", json = "application/json", pdf = "application/pdf", png = "image/png",
  svg = "image/svg+xml", txt = "text/plain", html = "text/html", xml = "application/xml",
}

-- As browsers write names (WHATWG HTML, multipart/form-data encoding algorithm).
local function quoted(text)
  return '"' .. text:gsub('[\r\n"]', { ["\r"] = "%0D", ["\n"] = "%0A", ['"'] = "%22" }) .. '"'
end

local function head_of(part)
  local name = part.filename or part.file and part.file:match "[^/]*$"
  local lines = { "Content-Disposition: form-data; name=" .. quoted(part.name) .. (name and "; filename=" .. quoted(name) or "") }
  local kind = part.type or name and (types[(name:match "%.(%w+)$" or ""):lower()] or "application/octet-stream")
  if kind then lines[2] = "Content-Type: " .. kind end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function read_part(what, part)
  spec.check(what, part, part_rules)
  if (part.value == nil) == (part.file == nil) then spec.fail(what, "give value or file") end
  if part.type and part.type:find "%c" then spec.fail(what, "type holds a line end") end
  return head_of(part) .. (part.value or errors.check(fs.read(part.file, largest_file)))
end

-- The same parts get the same boundary, and no part holds it.
local function boundary_of(parts)
  local all, seed = table.concat(parts), ""
  repeat
    seed = crypto.hex(crypto.sha256(seed .. all)):sub(1, 32)
  until not all:find(seed, 1, true)
  return "eirun-" .. seed
end

---The body of a form, and its content type.
---@param parts {name: string, value?: string, file?: string, type?: string, filename?: string}[]
---@return string body
---@return string content_type
---Example: `local body, kind = form.build { { name = "image", file = "cat.png" }, { name = "top", value = "3" } }`. Raises kind
---"invalid" for a part that is none, and what reading a file raises.
function M.build(parts)
  if #parts == 0 then spec.fail("load.run", "form is empty") end
  local written = {}
  for i, part in ipairs(parts) do written[i] = read_part(("load.run.form[%d]"):format(i), part) end
  local boundary, out = boundary_of(written), {}
  for i, part in ipairs(written) do out[i] = "--" .. boundary .. "\r\n" .. part .. "\r\n" end
  return table.concat(out) .. "--" .. boundary .. "--\r\n", "multipart/form-data; boundary=" .. boundary
end

return M
