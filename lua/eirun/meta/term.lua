-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.term
-- What the C module core/bind_term.c offers; a test compares the names.
local term = {}

---Is this file descriptor a terminal?
---@param fd integer
---@return boolean
function term.isatty(fd) end

---Columns of the terminal, 80 where there is none.
---@param fd? integer default 1
---@return integer
function term.width(fd) end

---Rows of the terminal; nothing where there is none, or it does not know.
---@param fd? integer default 1
---@return integer|nil
function term.height(fd) end

---Writes everything, waiting where the terminal or pipe is full.
---Example: `term.write(2, "eirun: no such file\n")`
---@param fd integer
---@param text string
---@return true|nil
---@return eirun.Error|nil
function term.write(fd, text) end

---Writes a secret out, for who asked for just that.
---Example: `term.reveal(1, secret.concat(token, "\n"))`
---@param fd integer
---@param secret eirun.Secret|string
---@return true|nil
---@return eirun.Error|nil
function term.reveal(fd, secret) end

---What went wrong first with the standard output, other than a reader that left; nil when nothing did.
---Example: `if term.lost() then return 1 end`
---@return eirun.Error|nil
function term.lost() end

return term
