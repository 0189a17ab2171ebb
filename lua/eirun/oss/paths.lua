-- SPDX-License-Identifier: Apache-2.0
-- Places as people write them: oss://bucket/key, or a path of this machine.
local errors = require "eirun.errors"

local M = {}

local MOST_KEY = 1023

---A name as it may be shown on a terminal: control bytes and what is no UTF-8 stand as \x0a.
---@param text string
---@return string
---Example: `paths.show "a\nb"` is `a\x0ab`. Raises nothing.
function M.show(text)
  local function code(c) return ("\\x%02x"):format(c:byte()) end
  if not utf8.len(text) then text = text:gsub("[\128-\255]", code) end
  return (text:gsub("%c", code))
end

---Why no object can have this key; nil when it can.
---@param key string
---@return string|nil
---Example: `paths.bad_key "/a"` says that it begins with a slash. Raises nothing.
function M.bad_key(key)
  if key == "" then return "a key has at least one byte" end
  if #key > MOST_KEY then return ("a key has at most %d bytes, this one has %d"):format(MOST_KEY, #key) end
  if key:find "^[/\\]" then return "a key does not begin with '/' or '\\'" end
  if key:find("\0", 1, true) then return "a key holds no NUL byte" end
  if not utf8.len(key) then return "a key is UTF-8 text" end
  for segment in key:gmatch "[^/]+" do
    if segment == "." or segment == ".." then return ("a key with '%s' as a folder is changed by programs on its way"):format(segment) end
  end
end

---The key, or a failure that says what is wrong with it.
---@param key string
---@param bucket? string for the message
---@return string key
---Example: `paths.check_key(given.key)`. Raises "invalid".
function M.check_key(key, bucket)
  local why = M.bad_key(key)
  if why then
    errors.raise("invalid", ("oss://%s/%s cannot be an object: %s"):format(bucket or "", M.show(key), why))
  end
  return key
end

---Takes `oss://bucket/key` apart; nil for anything else.
---@param text string
---@return {bucket: string, key: string}|nil
---Example: `paths.remote "oss://models/bert/3/"` is `{ bucket = "models", key = "bert/3/" }`. Raises "invalid" without a bucket.
function M.remote(text)
  local rest = text:match "^oss://(.*)$" or text:match "^OSS://(.*)$"
  if not rest then return nil end
  local bucket, key = rest:match "^([^/]*)/?(.*)$"
  if bucket == "" then
    errors.raise("invalid", ("'%s' names no bucket: write oss://BUCKET/KEY"):format(M.show(text)), { code = "usage" })
  end
  return { bucket = bucket, key = key }
end

---A prefix that ends like a folder: "" stays the whole bucket.
---@param prefix string
---@return string
---Example: `paths.folder "a/b"` is `a/b/`. Raises nothing.
function M.folder(prefix)
  return prefix == "" and "" or (prefix:gsub("/*$", "/"))
end

---The last name of a path or key.
---@param path string
---@return string
---Example: `paths.base "a/b.txt"` is `b.txt`. Raises nothing.
function M.base(path)
  return path:match "([^/]+)/*$" or ""
end

---Why a key must not become a file below a folder; nil when it may.
---@param relative string
---@return string|nil
---Example: `paths.bad_file "../etc/passwd"` says that it leads out of the folder. Raises nothing.
function M.bad_file(relative)
  if relative:find("\0", 1, true) then return "its name holds a NUL byte" end
  if relative:find "^/" or relative:find("//", 1, true) then return "an empty name is no folder" end
  for segment in relative:gmatch "[^/]+" do
    if segment == ".." then return "it leads out of the folder" end
    if segment == "." then return "'.' is no name of a file" end
    if #segment > 255 then return "a name of more than 255 bytes fits no file system" end
  end
end

return M
