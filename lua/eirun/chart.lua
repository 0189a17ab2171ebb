-- SPDX-License-Identifier: Apache-2.0
-- Charts for the terminal: one panel a group of series over a common time axis. Braille dots where UTF-8 is spoken, letters
-- elsewhere; without colour each series has a mark of its own.
local axis = require "eirun.chart.axis"

local M = {}

local colours = { 34, 33, 32, 35, 36, 31 } -- blue, yellow, green, magenta, cyan, red
local marks = { "*", "o", "+", "x", "#", "@" }
local blocks = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }

local function paint(text, colour, opts)
  return opts.color and ("\27[%dm%s\27[0m"):format(colour, text) or text
end

-- A canvas of `columns` x `rows` cells, each `dx` x `dy` dots; a cell remembers its dots and who drew there last.
local function new_canvas(columns, rows, dx, dy)
  return { columns = columns, rows = rows, dx = dx, dy = dy, cells = {}, owner = {} }
end

local braille_bit = { [0] = { [0] = 0x01, 0x02, 0x04, 0x40 }, { [0] = 0x08, 0x10, 0x20, 0x80 } }

local function dot(canvas, x, y, owner)
  if x < 0 or y < 0 or x >= canvas.columns * canvas.dx or y >= canvas.rows * canvas.dy then return end
  local cell = (y // canvas.dy) * canvas.columns + x // canvas.dx
  canvas.cells[cell] = (canvas.cells[cell] or 0) | braille_bit[x % canvas.dx][y % canvas.dy]
  canvas.owner[cell] = owner
end

local function upright(canvas, x, from, to, owner)
  for y = math.min(from, to), math.max(from, to) do dot(canvas, x, y, owner) end
end

-- For each dot column the lowest, highest and last value that its time saw: nothing that happened is averaged away.
local function columns_of(series, from, to, count)
  local low, high, last = {}, {}, {}
  for _, point in ipairs(series.points) do
    local x = math.floor((point[1] - from) / (to - from) * (count - 1) + 0.5)
    local value = point[2]
    if x >= 0 and x < count then
      low[x] = math.min(low[x] or value, value)
      high[x] = math.max(high[x] or value, value)
      last[x] = value
    end
  end
  return low, high, last
end

local function draw_step(canvas, series, row_of, from, to, owner)
  local count = canvas.columns * canvas.dx
  local low, high, last = columns_of(series, from, to, count)
  local held
  for x = 0, count - 1 do
    if low[x] then
      local top, bottom = high[x], low[x]
      if held then top, bottom = math.max(top, held), math.min(bottom, held) end
      upright(canvas, x, row_of(top), row_of(bottom), owner)
      held = last[x]
    elseif held then
      dot(canvas, x, row_of(held), owner)
    end
  end
end

local function bridge(canvas, x0, y0, x1, y1, owner)
  local previous = y0
  for x = x0 + 1, x1 do
    local y = math.floor(y0 + (y1 - y0) * (x - x0) / (x1 - x0) + 0.5)
    upright(canvas, x, y > previous and previous + 1 or y < previous and previous - 1 or y, y, owner)
    previous = y
  end
end

local function draw_line(canvas, series, row_of, from, to, owner)
  local count = canvas.columns * canvas.dx
  local low, high, last = columns_of(series, from, to, count)
  local widest = math.max(2, axis.gap(series.points) / (to - from) * (count - 1))
  local x0, y0
  for x = 0, count - 1 do
    if low[x] then
      local y = row_of(last[x])
      if x0 and x - x0 <= widest then bridge(canvas, x0, y0, x, y, owner) end
      upright(canvas, x, row_of(high[x]), row_of(low[x]), owner)
      x0, y0 = x, y
    end
  end
end

local function glyph(canvas, cell, opts)
  local bits, owner = canvas.cells[cell], canvas.owner[cell]
  if not bits then return " ", nil end
  return opts.braille and utf8.char(0x2800 + bits) or marks[(owner - 1) % #marks + 1], owner
end

-- One row as text; neighbours of one colour share its escapes.
local function canvas_row(canvas, row, opts)
  local text, run, run_owner = {}, {}, nil
  local function close_run()
    local joined = table.concat(run)
    text[#text + 1] = run_owner and paint(joined, colours[(run_owner - 1) % #colours + 1], opts) or joined
    run = {}
  end
  for column = 0, canvas.columns - 1 do
    local char, owner = glyph(canvas, row * canvas.columns + column, opts)
    if owner ~= run_owner then close_run() end
    run[#run + 1], run_owner = char, owner
  end
  if run_owner then close_run() end
  return (table.concat(text):gsub(" +$", ""))
end

-- The rows that carry a label of the value axis: never two on one row.
local function labels_of(panel, rows)
  local labels = {}
  for _, tick in ipairs(panel.scale.ticks) do
    local row = rows - 1 - math.floor(panel.scale.place(tick) * (rows - 1) + 0.5)
    labels[row] = axis.tick(tick, panel.unit)
  end
  return labels
end

local function legend(panel, opts)
  local parts = {}
  local title = axis.title(panel)
  if title ~= panel.series[1].name then parts[1] = title .. ":" end
  for i, series in ipairs(panel.series) do
    local most, last = nil, series.points[#series.points]
    for _, point in ipairs(series.points) do most = math.max(most or point[2], point[2]) end
    local mark = opts.braille and "━" or marks[(i - 1) % #marks + 1]
    local figures = most and (" max %s, last %s"):format(axis.tick(most, panel.unit), axis.tick(last[2], panel.unit)) or " no data"
    parts[#parts + 1] = paint(mark, colours[(i - 1) % #colours + 1], opts) .. " " .. series.name .. figures
  end
  return table.concat(parts, "   ")
end

local function draw_panel(panel, from, to, opts, out)
  local canvas = new_canvas(opts.columns, opts.rows, opts.braille and 2 or 1, opts.braille and 4 or 1)
  local dots = canvas.rows * canvas.dy
  local function row_of(value)
    return dots - 1 - math.floor(panel.scale.place(value) * (dots - 1) + 0.5)
  end
  for i = #panel.series, 1, -1 do -- the first series is drawn last: it lies on top
    local draw = panel.series[i].kind == "step" and draw_step or draw_line
    draw(canvas, panel.series[i], row_of, from, to, i)
  end
  out[#out + 1] = (" "):rep(opts.margin + 1) .. legend(panel, opts)
  local labels, edge = labels_of(panel, opts.rows), opts.unicode and "│" or "|"
  local tick = opts.unicode and "┤" or "+"
  for row = 0, opts.rows - 1 do
    local label = labels[row] or ""
    out[#out + 1] = (" "):rep(opts.margin - #label - 1) .. label .. " " .. (labels[row] and tick or edge) .. canvas_row(canvas, row, opts)
  end
end

local function time_axis(from, to, opts)
  local columns = opts.columns
  local line, text = {}, {}
  for x = 0, columns - 1 do line[x + 1] = opts.unicode and "─" or "-" end
  local written = 0
  for _, t in ipairs(axis.time_ticks(from, to, math.max(2, columns // 9))) do
    local x = math.floor((t - from) / (to - from) * (columns - 1) + 0.5)
    local label = axis.time(t)
    line[x + 1] = opts.unicode and "┬" or "+"
    local place = math.min(x, columns - #label)
    if place >= written then
      text[#text + 1] = (" "):rep(place - written) .. label
      written = place + #label + 1
      text[#text + 1] = " "
    end
  end
  local corner = opts.unicode and "└" or "+"
  return (" "):rep(opts.margin) .. corner .. table.concat(line), (" "):rep(opts.margin + 1) .. table.concat(text):gsub(" +$", "")
end

local function settle(opts)
  local full = { unicode = opts.unicode ~= false, color = opts.color == true, rows = math.max(3, opts.height or 6), margin = 9 }
  -- Braille cannot tell two lines of one colour apart, so it goes with colour.
  full.braille = full.unicode and (full.color or opts.braille == true)
  full.columns = math.max(20, math.min(opts.width or 80, 200) - full.margin - 1)
  return full
end

---Draws series over time.
---@param chart {title?: string, series: eirun.Series[], from?: number, to?: number}
---@param opts? {width?: integer, height?: integer, unicode?: boolean, color?: boolean, braille?: boolean} height: rows a panel
---@return string lines, each ended
---Example: `print(chart.draw({ series = { { name = "QPS", unit = "/s", points = points } } }, chart.terminal(1)))`.
---Never raises for a well-formed chart; a chart without points says so.
function M.draw(chart, opts)
  opts = settle(opts or {})
  local from, to = axis.span(chart.series)
  from, to = chart.from or from, chart.to or to
  local out = {}
  if chart.title then out[#out + 1] = chart.title end
  for _, panel in ipairs(axis.panels(chart.series, nil, math.max(2, opts.rows // 2))) do draw_panel(panel, from, to, opts, out) end
  if #chart.series == 0 then out[#out + 1] = "no data" end
  local line, text = time_axis(from, to, opts)
  out[#out + 1], out[#out + 2] = line, text
  return table.concat(out, "\n") .. "\n"
end

---The last `width` values as one line of blocks.
---@param values number[]
---@param width? integer default 40
---@param opts? {unicode?: boolean, high?: number}
---@return string
---Example: `chart.sparkline({ 1, 2, 4, 8 }) --> "▁▂▄█"`.
---Raises nothing.
function M.sparkline(values, width, opts)
  opts = opts or {}
  local ramp = opts.unicode ~= false and blocks or { "_", ".", ":", "-", "=", "+", "*", "#" }
  local first = math.max(1, #values - (width or 40) + 1)
  local high = opts.high or 0
  for i = first, #values do high = math.max(high, values[i]) end
  local out = {}
  for i = first, #values do
    local level = high > 0 and math.ceil(values[i] / high * #ramp) or 1
    out[#out + 1] = ramp[math.max(1, math.min(#ramp, level))]
  end
  return table.concat(out)
end

-- What the locale says about UTF-8, as setlocale decides it.
local function speaks_utf8(getenv)
  local locale = getenv "LC_ALL" or ""
  if locale == "" then locale = getenv "LC_CTYPE" or "" end
  if locale == "" then locale = getenv "LANG" or "" end
  return locale:lower():find("utf%-?8") ~= nil
end

---What the terminal behind a file descriptor can show: width, UTF-8, colour (NO_COLOR and TERM=dumb are heeded).
---@param fd? integer default 1
---@return {width: integer, unicode: boolean, color: boolean}
---Example: `chart.draw(drawing, chart.terminal(2))`. Raises nothing.
function M.terminal(fd)
  local term, os = require "eirun.core.term", require "eirun.core.os"
  local tty = term.isatty(fd or 1)
  local plain = (os.getenv "NO_COLOR" or "") ~= "" or os.getenv "TERM" == "dumb"
  return { width = tty and term.width() or 80, unicode = speaks_utf8(os.getenv), color = tty and not plain }
end

return M
