-- SPDX-License-Identifier: Apache-2.0
-- eirun cloud call PRODUCT ACTION [key=value ...]
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local products = require "eirun.cloud.products"
local term = require "eirun.core.term"

local function usage(text)
  errors.raise("invalid", text, { code = "usage" })
end

local function read_body(path)
  local text, err = fs.read(path == "-" and "/dev/stdin" or path)
  if not text then usage(("--body: %s"):format(err.message)) end
  return text
end

-- key=value is text, key:=JSON is anything.
local function parameter(word)
  local key, mark, text = word:match("^([^=:]+)(:?=)(.*)$")
  if not key then usage(("'%s' is neither key=value nor key:=JSON"):format(word)) end
  if mark == "=" then return key, text, false end
  local value, err = json.decode(text)
  if value == nil then usage(("%s:= wants JSON: %s"):format(key, err.message)) end
  return key, value, true
end

local function template(call)
  local operation = call.product == "cs" and products.cs_operations[call.action]
  return call.path or operation and operation[2] or ""
end

local function put(call, key, value, typed)
  local into = "query"
  if template(call):find("{" .. key .. "}", 1, true) then
    into = "params"
  elseif typed and (call.style or (products.known[call.product] or {}).style) == "ROA" then
    into = "body"
  end
  if into == "body" and type(call.body) == "string" then usage(key .. ":= belongs into the body, which --body gives already") end
  call[into] = call[into] or {}
  if call[into][key] ~= nil then usage(("'%s' is given twice"):format(key)) end
  call[into][key] = value
end

local function call_of(options, words)
  local product, action = table.remove(words, 1), table.remove(words, 1)
  if not action then usage "which operation? eirun cloud call PRODUCT ACTION, as `eirun cloud call cs DescribeClustersV1`" end
  local call = { product = product:lower(), action = action, version = options.api_version, style = options.style, path = options.path,
    method = options.method, endpoint = options.endpoint, timeout = options.timeout, add_region = true,
    body = options.body and read_body(options.body) }
  for _, word in ipairs(words) do put(call, parameter(word)) end
  return call
end

local function text_of(value)
  if value == json.null then return "" end
  if type(value) == "table" then return json.encode(value) end
  return tostring(value)
end

local function print_text(value)
  if type(value) == "table" and json.is_array(value) then
    for _, item in ipairs(value) do term.write(1, text_of(item) .. "\n") end
  else
    term.write(1, text_of(value) .. "\n")
  end
end

local function show(options, answer, body)
  if options.output == "text" then return print_text(answer) end
  local text = body or json.encode(answer, { indent = term.isatty(1) })
  term.write(1, text .. (text:sub(-1) == "\n" and "" or "\n"))
end

return function(options, words)
  local call = call_of(options, words)
  local jmespath = require "eirun.jmespath"
  if options.query then jmespath.check(options.query) end
  local session <close> = require("eirun.cli.cloud.open")(options, { identify = false }) -- luacheck: ignore
  local cloud = require "eirun.cloud"
  local answer, reply
  if options.page then answer = cloud.all(call) else answer, reply = cloud.call(call) end
  if options.query then
    answer, reply = jmespath.search(options.query, answer), nil
  end
  show(options, answer, reply and reply.body)
  return 0
end
