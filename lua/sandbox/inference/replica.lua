-- SPDX-License-Identifier: Apache-2.0
-- How long a replica takes: one request at a time, in order of arrival, each with a service time of its own.
local task = require "eirun.core.task"
local rest = require "sandbox.inference.rest"

local Replica = {}
Replica.__index = Replica
local M = {}

-- Seconds for one short text on BERT base in FP32 by accelerator. Assumed, of the order that public MLPerf-like runs of TensorFlow 1.15
-- show; the T4 figure makes one replica saturate near 14 requests a second.
M.service_seconds = { T4 = 0.070, A10 = 0.038, V100 = 0.032, A100 = 0.018, none = 0.9 }
local spread = 0.12 -- standard deviation of the logarithm
local next_example = 0.6 -- a further example of the same batch costs this part of the first
local max_spans = 4000 -- more than the requests of a minute; the older half is forgotten
local bookkeeping = 0.001 -- status and errors never reach the accelerator

---@param options {server: table, draw: function, accelerator?: string} `draw` is a stream of random numbers
function M.new(options)
  return setmetatable({ server = options.server, draw = options.draw, free_at = 0, closed = false,
    mean = M.service_seconds[options.accelerator or "none"] or M.service_seconds.T4, spans = {} }, Replica)
end

-- Log-normal with the given mean; Box and Muller's second number is kept for the next call.
local function normal(self)
  local kept = self.kept
  if kept then
    self.kept = nil
    return kept
  end
  local u, v = 1 - self.draw(), self.draw()
  local radius, angle = math.sqrt(-2 * math.log(u)), 2 * math.pi * v
  self.kept = radius * math.sin(angle)
  return radius * math.cos(angle)
end

function Replica:service_time(examples)
  local factor = math.exp(spread * normal(self) - spread * spread / 2)
  return self.mean * factor * (1 + next_example * (examples - 1))
end

-- What the accelerator works on, and when: for those who ask how busy it was.
local function note_span(self, from, to)
  local last = self.spans[#self.spans]
  if last and from <= last[2] then
    last[2] = to
  else
    self.spans[#self.spans + 1] = { from, to }
  end
  if #self.spans > max_spans then self.spans = table.move(self.spans, max_spans // 2, #self.spans, 1, {}) end
end

-- A request that its client will have given up before its turn comes is never worked on: the connection is gone by then.
local function reserve(self, examples, timeout)
  local now = task.now()
  local start = math.max(now, self.free_at)
  if start - now >= timeout then return timeout, true end
  self.free_at = start + self:service_time(examples)
  note_span(self, start, self.free_at)
  local wait = self.free_at - now
  return math.min(wait, timeout), wait >= timeout
end

---@return table|nil reply { status, headers, body }
---@return "timeout"|"reset"|nil why
function Replica:serve(request, timeout)
  local status, body, examples = rest.answer(self.server, request.method, request.path, request.body)
  if examples == 0 then
    task.sleep(bookkeeping)
  else
    local wait, late = reserve(self, examples, timeout)
    task.sleep(wait)
    if late then return nil, "timeout" end
  end
  if self.closed then return nil, "reset" end
  return { status = status, headers = M.json_headers, body = body }
end

M.json_headers = { { "Content-Type", "application/json" } }

---Seconds of work that wait in front of a new request.
function Replica:backlog() return math.max(0, self.free_at - task.now()) end

---The part of the last `window` seconds in which it worked, from 0 to 1.
function Replica:busy(window)
  local now, sum = task.now(), 0
  for _, span in ipairs(self.spans) do
    sum = sum + math.max(0, math.min(span[2], now) - math.max(span[1], now - window))
  end
  return math.min(1, sum / window)
end

---The process is gone: whoever still waits gets a reset.
function Replica:close() self.closed = true end

return M
