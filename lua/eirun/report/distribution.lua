-- SPDX-License-Identifier: Apache-2.0
-- A histogram as a picture: values on a logarithmic axis, bars as high as their share.
local axis = require "eirun.chart.axis"

local width, left, right, top, bottom, height = 960, 74, 16, 14, 24, 170

local function most_of(bins)
  local most, total = 0, 0
  for _, bin in ipairs(bins) do most, total = math.max(most, bin.count), total + bin.count end
  return most, total
end

local function bar(bin, scale, most, total, unit)
  local inner, tall = width - left - right, height - top - bottom
  local x0, x1 = left + scale.place(bin.from) * inner, left + scale.place(bin.to) * inner
  local y = tall * bin.count / most
  return ('<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"><title>%s to %s: %d, %.3g %%</title></rect>'):format(
    x0, top + tall - y, math.max(0.8, x1 - x0 - 0.6), math.max(0.8, y), axis.value(bin.from, unit), axis.value(bin.to, unit), bin.count,
    bin.count / total * 100)
end

local function ticks(scale, unit)
  local out = {}
  for _, tick in ipairs(scale.ticks) do
    local x = left + scale.place(tick) * (width - left - right)
    out[#out + 1] = ('<line class="grid faint" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>'):format(x, x, top, height - bottom)
    out[#out + 1] = ('<text class="tick mid" x="%.1f" y="%d">%s</text>'):format(x, height - bottom + 16, axis.value(tick, unit))
  end
  return table.concat(out)
end

---@param distribution {title: string, unit?: string, bins: {from: number, to: number, count: integer}[]} bins ascending, above 0
---@param escape fun(text: string): string
---@return string html empty when there is nothing to show
return function(distribution, escape)
  local bins = distribution and distribution.bins or {}
  if #bins == 0 then return "" end
  local most, total = most_of(bins)
  local scale = axis.scale { low = bins[1].from, high = bins[#bins].to, log = true }
  local bars = {}
  for i, bin in ipairs(bins) do bars[i] = bar(bin, scale, most, total, distribution.unit) end
  local caption = ('<figcaption><b>%s</b> <small class="note">logarithmic, highest bar %s</small></figcaption>'):format(
    escape(distribution.title), axis.value(most / total, "share"))
  local base = ('<line class="grid" x1="%d" x2="%d" y1="%d" y2="%d"/>'):format(left, width - right, height - bottom, height - bottom)
  return ('<figure>%s<svg viewBox="0 0 %d %d" role="img" aria-label="%s">%s%s%s</svg></figure>'):format(
    caption, width, height, escape(distribution.title), ticks(scale, distribution.unit), table.concat(bars), base)
end
