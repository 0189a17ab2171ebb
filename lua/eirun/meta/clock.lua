-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.clock
-- What the C module core/bind_clock.c offers; a test compares the names. The command line chooses the clock (--clock).
local clock = {}

---Which clock the run has.
---@return "real"|"virtual"|"scaled"
function clock.kind() end

---Chooses the clock, for all states of the process. Raises when a timer runs already.
---Example: `clock.use("virtual", 1767600000)`
---@param kind "real"|"virtual"|"scaled"
---@param first? number seconds since 1970 that it starts at (real: the machine's; virtual: must be given); scaled: its factor
---@param start? number scaled only: seconds since 1970 that it starts at
function clock.use(kind, first, start) end

---Seconds of the clock in one real second; nil for the virtual clock, which has no pace.
---@return number|nil
function clock.factor() end

---Seconds of the machine's monotonic clock: for measuring the program itself, never for a decision.
---@return number
function clock.monotonic() end

return clock
