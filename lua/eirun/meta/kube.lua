-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.kube
-- What the C module modules/kube/bind_kube.c offers; a test compares the names. Playbooks use eirun.kube.
local kube = {}

---@class eirun.core.kube.Picker
---@field pick fun(self, text: string): table|nil, eirun.Error|nil values by path of one JSON object; a path that is not there has none
---@field items fun(self, text: string): table[]|nil, string|eirun.Error|nil, string|nil of a list: values of each item, `continue`,
--- resource version

---Makes a picker of paths (`metadata.name`, `metadata.labels['app.kubernetes.io/name']`). The text is checked as JSON and passed over
---without a table for what is not wanted. Errors of its calls: invalid, with the byte, for what is no JSON and for a key on the way to a
---path that is said twice.
---Example: `local picker = assert(kube.picker { "metadata.name", "status.phase" })`
---@param paths string[]
---@return eirun.core.kube.Picker|nil
---@return eirun.Error|nil
function kube.picker(paths) end

---A line `head` + name for each object of a list.
---Errors: invalid for what is no list.
---Example: `local lines, continue = kube.names(text, "pod/")`
---@param text string
---@param head string
---@return string|nil lines
---@return string|eirun.Error|nil continue
function kube.names(text, head) end

---@class eirun.core.kube.Store
---@field begin fun(self) a list begins
---@field page fun(self, text: string): string|nil, eirun.Error|nil a page of it; answers `continue`, "" on the last
---@field finish fun(self): boolean|nil, eirun.Error|nil what was in no page is deleted
---@field feed fun(self, chunk: string): integer|nil, boolean|eirun.Error, table|nil events; whether a watch-list's first objects are
--- whole; the object of an ERROR event
---@field forget_line fun(self) a new stream begins
---@field get fun(self, namespace: string, name: string): table|nil
---@field rows fun(self): table[] all objects, in no order
---@field changes fun(self, most?: integer): table[] `{type, object}`, oldest first; each object once
---@field facts fun(self): {count: integer, bytes: integer, events: integer, waiting: integer, version: string}
---@field close fun(self)

---Makes a store of objects of which these paths are kept, beside namespace, name, uid and resource version.
---Errors: invalid for a path that is none, or is asked for twice.
---Example: `local store = assert(kube.store({ "status.phase" }, true))`
---@param paths string[]
---@param track? boolean keep a queue of changes
---@return eirun.core.kube.Store|nil
---@return eirun.Error|nil
function kube.store(paths, track) end

---@class eirun.core.kube.Lines
---@field feed fun(self, chunk: string): string[]|nil, eirun.Error|nil the lines that this piece ends
---@field close fun(self)

---Makes a splitter of pieces into lines. Errors of feed: quota for a line of more than 64 MiB.
---Example: `for _, line in ipairs(lines:feed(chunk)) do handle(line) end`
---@return eirun.core.kube.Lines
function kube.lines() end

return kube
