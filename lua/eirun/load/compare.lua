-- SPDX-License-Identifier: Apache-2.0
-- Two runs side by side. Seconds that follow each other resemble each other, so they are gathered into blocks before a rank
-- test (Mann and Whitney) asks whether the runs differ by more than their own noise.
local M = {}

local block_seconds, least_blocks, level, least_change = 5, 8, 0.01, 0.05

local function median(values)
  table.sort(values)
  return values[(#values + 1) // 2]
end

-- Medians of the blocks in which every second had an answer.
local function blocks_of(run, field)
  local blocks, block = {}, {}
  local from, to = run.window and run.window.from or 0, run.window and run.window.to or math.huge
  for _, second in ipairs(run.series) do
    if second.t >= from and second.t + 1 <= to and second[field] then
      block[#block + 1] = second[field]
      if #block == block_seconds then
        blocks[#blocks + 1] = median(block)
        block = {}
      end
    end
  end
  return blocks
end

-- Abramowitz and Stegun 7.1.26: 1.5e-7 is more than the verdict needs.
local function erfc(x)
  local k = 1 / (1 + 0.3275911 * x)
  local sum = k * (0.254829592 + k * (-0.284496736 + k * (1.421413741 + k * (-1.453152027 + k * 1.061405429))))
  return sum * math.exp(-x * x)
end

local function two_sided(z) return erfc(math.abs(z) / math.sqrt(2)) end

-- Ranks of the pooled values, equal ones share theirs; with the sum that ties take from the variance.
local function rank_sum(a, b)
  local pool = {}
  for _, value in ipairs(a) do pool[#pool + 1] = { value, true } end
  for _, value in ipairs(b) do pool[#pool + 1] = { value, false } end
  table.sort(pool, function(x, y) return x[1] < y[1] end)
  local sum, ties, first = 0, 0, 1
  while first <= #pool do
    local last = first
    while pool[last + 1] and pool[last + 1][1] == pool[first][1] do last = last + 1 end
    local count = last - first + 1
    ties = ties + count ^ 3 - count
    for i = first, last do if pool[i][2] then sum = sum + (first + last) / 2 end end
    first = last + 1
  end
  return sum, ties
end

---The probability that two samples as different as these come from one source (two-sided rank test, normal approximation).
---@param a number[]
---@param b number[]
---@return number
---Example: `compare.rank_test({ 1, 2, 3 }, { 1, 2, 3 }) --> 1.0`. Never raises for samples that are not empty.
function M.rank_test(a, b)
  local n, m = #a, #b
  local sum, ties = rank_sum(a, b)
  local u = sum - n * (n + 1) / 2
  local variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
  if variance <= 0 then return 1.0 end
  local distance = math.max(0, math.abs(u - n * m / 2) - 0.5)
  return math.min(1.0, two_sided(distance / math.sqrt(variance)))
end

local function latency_row(a, b, field)
  local left, right = blocks_of(a, field), blocks_of(b, field)
  local row = { metric = field, a = a.window.latency[field], b = b.window.latency[field], verdict = "same" }
  if #left < least_blocks or #right < least_blocks then
    row.verdict = "too short to judge"
    return row
  end
  row.p = M.rank_test(left, right)
  row.change = median(right) / median(left) - 1
  if row.p < level and math.abs(row.change) > least_change then row.verdict = row.change > 0 and "worse" or "better" end
  return row
end

-- A result has them as a table, what `--json` wrote as a number.
local function errors_of(window) return window.error_total or window.errors.total end

-- Two shares with their pooled standard error.
local function error_row(a, b)
  local n, m = a.window.requests, b.window.requests
  local x, y = errors_of(a.window), errors_of(b.window)
  local row = { metric = "errors", a = x / math.max(1, n), b = y / math.max(1, m), verdict = "same" }
  local pooled = (x + y) / math.max(1, n + m)
  local deviation = math.sqrt(pooled * (1 - pooled) * (1 / math.max(1, n) + 1 / math.max(1, m)))
  if deviation > 0 then
    row.p = two_sided((row.b - row.a) / deviation)
    if row.p < level then row.verdict = row.b > row.a and "worse" or "better" end
  end
  return row
end

---Compares two runs in the windows that their thresholds judged.
---@param a eirun.LoadResult or what `--json` wrote of one
---@param b eirun.LoadResult
---@return {rows: {metric: string, a: number, b: number, change?: number, p?: number, verdict: string}[], worse: boolean}
---Example: `compare.runs(before, after).worse`. A difference counts when it is above 5 % and chance makes it so less than once in
---100. Never raises for two results.
function M.runs(a, b)
  local rows = { latency_row(a, b, "p50"), latency_row(a, b, "p95"), latency_row(a, b, "p99"), error_row(a, b) }
  local worse = false
  for _, row in ipairs(rows) do worse = worse or row.verdict == "worse" end
  return { rows = rows, worse = worse }
end

return M
