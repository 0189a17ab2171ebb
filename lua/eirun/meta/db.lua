-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.db
-- What the C module core/bind_db.c offers; a test compares the names.
local db = {}

---@class eirun.core.db.Options
---@field mode? "create"|"write"|"read"|"memory" default: create, readable by its owner alone; memory ignores the path
---@field durable? boolean default true: a commit survives a power cut; false: only the death of the process
---@field busy_timeout? number seconds that a statement waits for another process, default 5; nothing else runs meanwhile

---A SQLite database in WAL mode. Calls are synchronous: none yields. Parameters are strings, numbers, booleans (1 and 0), nil and
---json.null. Integers keep 64 bits; a string is stored as text where it is UTF-8, else as a blob, and comes back as the same
---bytes; NULL comes back as nil. Errors carry SQLite's words as `message` and its name as `code` ("SQLITE_BUSY"):
---conflict (busy: retryable; or a constraint), denied, invalid, quota, internal. Wrong numbers of parameters raise.
---@class eirun.core.db.Database
local Database = {}

---Runs a script. Each commit, here and below, is an event that a kill test may stop at.
---@param sql string
---@return true|nil
---@return eirun.Error|nil
function Database:exec(sql) end

---Runs one statement and answers how many rows it changed. Statements are kept prepared.
---Example: `assert(d:run("insert into x values (?, ?)", 1, "one"))`
---@param sql string
---@param ... any
---@return integer|nil
---@return eirun.Error|nil
function Database:run(sql, ...) end

---All rows, each an array of its columns (a NULL leaves a hole).
---@param sql string
---@param ... any
---@return any[][]|nil
---@return eirun.Error|nil
function Database:rows(sql, ...) end

---The columns of the first row; nothing when there is none.
---Example: `local name, size = d:row("select name, size from file where id = ?", id)`
---@param sql string
---@param ... any
---@return any ...
function Database:row(sql, ...) end

---What was not committed is lost. May be called again.
function Database:close() end

---Opens or makes a database.
---Example: `local d <close> = assert(db.open("state.db", { durable = false }))`
---@param path string
---@param options? eirun.core.db.Options
---@return eirun.core.db.Database|nil
---@return eirun.Error|nil
function db.open(path, options) end

return db
