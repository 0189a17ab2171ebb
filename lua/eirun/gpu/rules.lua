-- SPDX-License-Identifier: Apache-2.0
-- What is wrong with a GPU and what to do about it, as data. Severities: "fatal" (do not run anything there), "warning" (see to it),
-- "notice" (the program's own fault, or over already).
local M = {}

local RESTART = "restart the program on it"
local RESET = "drain the node and reset the GPU (nvidia-smi --gpu-reset), or reboot"
local REBOOT = "drain the node and reboot it; when it comes again, have the board replaced"
local PROGRAM = "look for the fault in the program: it asked for what the GPU cannot do"
local LINK = "drain the node and reset all its GPUs; when it comes again, have the NVLink bridge or board checked"
local LATER = "let the node run out of work, then reset the GPU"
local SUPPORT = "keep the output of nvidia-bug-report.sh; when it comes again, ask the vendor"

-- number = { severity, words, advice }: the driver's catalogue of XIDs, as far as data centre GPUs tell them.
local xids = {
  [8] = { "notice", "a channel did not answer in time", RESTART },
  [13] = { "notice", "graphics engine exception", PROGRAM },
  [31] = { "notice", "memory page fault", PROGRAM },
  [32] = { "warning", "corrupted push buffer", RESTART .. "; " .. SUPPORT },
  [38] = { "warning", "driver firmware error", SUPPORT },
  [39] = { "notice", "copy engine exception", RESTART },
  [43] = { "notice", "the GPU stopped a program that had failed", PROGRAM },
  [45] = { "notice", "work was removed after an earlier error", "look for the XID before it" },
  [46] = { "fatal", "the GPU stopped processing", RESET },
  [48] = { "fatal", "double bit ECC error", RESET },
  [54] = { "fatal", "auxiliary power is not connected", "have the board's power cable checked" },
  [56] = { "warning", "display engine error", SUPPORT },
  [57] = { "warning", "error in programming the video memory", SUPPORT },
  [58] = { "fatal", "unstable video memory", RESET },
  [60] = { "warning", "video processor exception", RESTART },
  [61] = { "fatal", "internal micro-controller stopped at a breakpoint", RESET },
  [62] = { "fatal", "internal micro-controller halted", RESET },
  [63] = { "warning", "a memory row is to be remapped, or a page retired", LATER },
  [64] = { "fatal", "a memory row could not be remapped, or a page retired", RESET },
  [65] = { "warning", "video processor exception", RESTART },
  [66] = { "notice", "illegal access by a driver", PROGRAM },
  [68] = { "notice", "video decoder exception", RESTART },
  [69] = { "notice", "graphics engine class error", PROGRAM },
  [73] = { "warning", "video encoder exception", RESTART },
  [74] = { "fatal", "NVLink error", LINK },
  [78] = { "warning", "a virtual GPU could not start", SUPPORT },
  [79] = { "fatal", "the GPU has fallen off the bus", REBOOT },
  [80] = { "warning", "corrupted data sent to the GPU", RESTART .. "; " .. SUPPORT },
  [92] = { "warning", "many single bit ECC errors", "watch it; when it goes on, drain the node and run the field diagnostics" },
  [94] = { "warning", "contained ECC error: one program lost its data", RESTART .. "; " .. LATER },
  [95] = { "fatal", "uncontained ECC error: data of any program may be wrong", RESET },
  [109] = { "fatal", "a context switch did not end", RESET },
  [110] = { "fatal", "security fault", REBOOT },
  [119] = { "fatal", "the GPU's system processor did not answer", RESET },
  [120] = { "fatal", "error of the GPU's system processor", RESET },
  [121] = { "warning", "error corrected on the chip-to-chip link", LATER },
  [122] = { "warning", "the board's flash cannot be read", SUPPORT },
  [123] = { "warning", "the board's flash cannot be written", RESET },
  [136] = { "fatal", "NVLink could not be trained", LINK },
  [137] = { "notice", "NVLink access to memory that is not mapped", PROGRAM },
  [140] = { "fatal", "ECC error that was not recovered", RESET },
  [143] = { "fatal", "the GPU could not be initialised", REBOOT },
  [144] = { "fatal", "NVLink error (SAW)", LINK },
  [145] = { "fatal", "NVLink error (RLW)", LINK },
  [146] = { "fatal", "NVLink error (TLW)", LINK },
  [147] = { "fatal", "NVLink error (TREX)", LINK },
  [148] = { "fatal", "NVLink error (NVLPW)", LINK },
  [149] = { "fatal", "NVLink error (NETIR)", LINK },
  [150] = { "fatal", "NVLink error (MSE)", LINK },
  [151] = { "fatal", "key rotation error", REBOOT },
  [154] = { "warning", "the driver asks for another recovery action", "see `nvidia-smi -q`, GPU Recovery Action, and do that" },
  [155] = { "warning", "NVLink went down", LINK },
  [156] = { "warning", "a part of the GPU is to be retired", LATER },
  [157] = { "fatal", "a part of the GPU could not be retired", RESET },
  [158] = { "fatal", "the GPU did not answer in time", RESET },
  [160] = { "warning", "a memory channel is to be retired", LATER },
  [161] = { "fatal", "a memory channel could not be retired", RESET },
}

---What is known of an XID; an unknown one is a warning.
---@param number integer
---@return {severity: string, text: string, advice: string}
---Example: `rules.xid(79).text` is "the GPU has fallen off the bus". Raises nothing.
function M.xid(number)
  local row = xids[number] or { "warning", "an error without an entry here", "look it up in the driver's catalogue of XIDs; " .. SUPPORT }
  return { severity = row[1], text = row[2], advice = row[3] }
end

-- Events other than XIDs: kind = { severity, words, advice }.
M.events = {
  lost = { "fatal", "the GPU is lost", REBOOT },
  unavailable = { "fatal", "the GPU is not available", REBOOT },
  ecc_uncorrected = { "fatal", "a memory error could not be corrected", RESET },
  ecc_corrected_storm = { "warning", "memory errors are corrected all the time", LATER },
  dram_retirement = { "warning", "memory was retired", LATER },
  dram_retirement_failure = { "fatal", "memory could not be retired", RESET },
  poison = { "warning", "poisoned data was contained", RESTART },
  poison_fatal = { "fatal", "poisoned data spread", RESET },
  recovery_action = { "warning", "the driver asks for a recovery action", "see `nvidia-smi -q`, GPU Recovery Action, and do that" },
}

local HW_SLOWDOWN, HW_THERMAL, SW_THERMAL, POWER_BRAKE = 0x8, 0x40, 0x20, 0x80

local function has_reason(bit)
  return function(device) return device.clock_reason_bits ~= nil and device.clock_reason_bits & bit ~= 0 end
end

local function grown(key)
  return function(device, before)
    return before ~= nil and device[key] ~= nil and before[key] ~= nil and device[key] > before[key]
  end
end

local function over_zero(key)
  return function(device) return (device[key] or 0) > 0 end
end

-- What can be seen in a look: name, severity, found(device, the same device in an earlier look), words, advice.
M.looks = {
  { "lost", "fatal", function(device) return device.lost end, "the GPU is lost", REBOOT },
  { "unreadable", "fatal", function(device) return device.unreadable ~= nil and not device.lost end,
    function(device) return "the driver does not give it out: " .. device.unreadable end, REBOOT },
  { "remap_failure", "fatal", over_zero "remapped_failure", "a memory row could not be remapped",
    "drain the node and have the board replaced" },
  { "ecc_uncorrected", "fatal", over_zero "ecc_uncorrected",
    function(device) return ("%d memory errors could not be corrected since the driver came up"):format(device.ecc_uncorrected) end,
    RESET },
  { "remap_pending", "warning", over_zero "remapped_pending", "memory rows wait to be remapped", LATER },
  { "retired_pending", "warning", over_zero "retired_pending", "memory pages wait to be retired", LATER },
  { "ecc_growth", "warning", grown "ecc_corrected", function(device, before)
    return ("%d more memory errors were corrected"):format(device.ecc_corrected - before.ecc_corrected)
  end, "watch it; when it goes on, drain the node and run the field diagnostics" },
  { "power_brake", "warning", has_reason(POWER_BRAKE), "the clocks are held back by the power supply's brake",
    "have the rack's power checked" },
  { "thermal_slowdown", "warning", function(device) return has_reason(HW_THERMAL)(device) or has_reason(SW_THERMAL)(device) end,
    function(device) return ("too hot, %s degrees: the clocks are held back"):format(device.temperature or "?") end,
    "check air flow and fans; move work away" },
  { "hardware_slowdown", "warning", function(device)
    return has_reason(HW_SLOWDOWN)(device) and not has_reason(HW_THERMAL)(device) and not has_reason(POWER_BRAKE)(device)
  end, "the clocks are held back by the hardware", "check power and cooling" },
  { "pcie_narrow", "notice", function(device)
    return device.pcie_width ~= nil and device.pcie_width_max ~= nil and device.pcie_width < device.pcie_width_max
  end, function(device) return ("the PCIe link has %d of %d lanes"):format(device.pcie_width, device.pcie_width_max) end,
    "reseat the board at the next maintenance" },
}

-- What can be seen in a node of the cluster: name, severity, found(node), words, advice.
M.nodes = {
  { "not_allocatable", "warning", function(node)
    local held = node.mode == "exclusive" and (node.allocated or 0) > node.gpus
    return held or node.mode == "exclusive" and node.allocatable < node.gpus
  end, function(node)
    if node.allocatable < node.gpus then return ("%d of %d GPUs are not given to pods"):format(node.gpus - node.allocatable, node.gpus) end
    return ("%d GPUs, but its pods hold %d"):format(node.gpus, node.allocated)
  end, "the device plugin calls them unhealthy, or is gone: look at its log, and for XIDs in the node's kernel log" },
}

M.order = { fatal = 1, warning = 2, notice = 3 }

return M
