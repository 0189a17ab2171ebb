-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.vm
-- What the C module core/bind_vm.c offers; a test compares the names. Other Lua states on the same loop and clock: only strings pass.
local vm = {}

---@class eirun.core.vm.Vm
local Vm = {}

---Waits for what the state announced.
---@return string|nil
---@return eirun.Error|nil internal: it ended before
function Vm:ready() end

---Cancels its root task, waits for its clean-up and closes the state. May be called again.
---@return true|nil
---@return eirun.Error|nil internal: what its root raised
function Vm:stop() end

---@class eirun.core.vm.Start
---@field entry string a module that returns a function
---@field args? string its argument

---Starts a state.
---Example: `local state = vm.start { entry = "sandbox.main", args = "{}" }`
---@param options eirun.core.vm.Start
---@return eirun.core.vm.Vm
function vm.start(options) end

---Says something to whoever waits in `ready`.
---@param text string
function vm.announce(text) end

---Lets this state require the files of a folder, after the program's own modules.
---@param dir string
---@param globals? table what these files see; default: the state's own
function vm.set_playbook_dir(dir, globals) end

---The text of a Lua module inside the program, whatever --lua-dir says.
---@param name string `eirun.task`
---@return string|nil
function vm.source(name) end

---The names of all modules inside the program: those written in C first, then the embedded ones.
---@return string[]
function vm.modules() end

return vm
