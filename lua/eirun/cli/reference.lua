-- SPDX-License-Identifier: Apache-2.0
-- eirun reference: the library's reference as Markdown, made from the annotations in the program's own source.
local annotations = require "eirun.cli.annotations"
local vm = require "eirun.core.vm"

local M = {}

-- What a playbook may require, in the order of reading. `from` names the files where more of a module's functions and of its
-- objects' methods are written.
M.groups = {
  { title = "Playbooks", modules = {
    { name = "eirun.play", from = { "eirun.play.args", "eirun.play.run" } },
    { name = "eirun.step" }, { name = "eirun.task" }, { name = "eirun.errors" }, { name = "eirun.test" }, { name = "eirun.sandbox" },
  } },
  { title = "Cloud and cluster", modules = {
    { name = "eirun.ack", from = { "eirun.ack.node_pool", "eirun.ack.ratio" } },
    { name = "eirun.kube", from = { "eirun.kube.client", "eirun.kube.connection", "eirun.kube.pods", "eirun.kube.access",
      "eirun.kube.config", "eirun.kube.kinds", "eirun.kube.traffic", "eirun.kube.watch", "eirun.kube.store" } },
    { name = "eirun.oss" }, { name = "eirun.serve", from = { "eirun.serve.app" } }, { name = "eirun.sls" }, { name = "eirun.status" },
    { name = "eirun.price" },
    { name = "eirun.spot" },
    { name = "eirun.cloud" }, { name = "eirun.credentials" },
  } },
  { title = "Load and reports", modules = {
    { name = "eirun.loadtest" },
    { name = "eirun.load", from = { "eirun.load.phases", "eirun.load.result", "eirun.load.search", "eirun.load.trace" } },
    { name = "eirun.load.predict" },
    { name = "eirun.threshold" }, { name = "eirun.timeline" }, { name = "eirun.chart", from = { "eirun.chart.axis" } },
    { name = "eirun.report" }, { name = "eirun.lag" },
  } },
  { title = "GPUs", modules = { { name = "eirun.gpu", from = { "eirun.gpu.events", "eirun.gpu.cluster" } },
    { name = "eirun.gpu.health" }, { name = "eirun.gpu.promtext" } } },
  { title = "Files, programs and formats", modules = { { name = "eirun.fs" }, { name = "eirun.process" }, { name = "eirun.json" },
    { name = "eirun.yaml" }, { name = "eirun.secret" }, { name = "eirun.crypto" } } },
  { title = "Building a library of your own", modules = {
    { name = "eirun.resource" }, { name = "eirun.spec" }, { name = "eirun.http" }, { name = "eirun.target" },
  } },
}

-- Objects that no playbook meets.
M.private = { Step = true, Patience = true }

-- Files of lua/eirun that no playbook needs; a test sees to it that each file is either here or above.
M.internal = { "eirun.face", "eirun.main", "eirun.jmespath", "eirun.later", "eirun.output", "eirun.prelude", "eirun.sign4",
  "eirun.wire" }

-- Modules written in C: lua/eirun builds on them, a playbook cannot have them.
M.core = { "build", "clock", "crypto", "db", "fs", "gpu", "http", "httpd", "json", "kube", "load", "os", "oss", "process", "secret", "task",
  "term", "testing", "vm", "yaml" }

local function local_name(source)
  return source:match("\nreturn ([%a_][%w_]*)%s*$") or "M"
end

-- Annotated functions of the modules themselves, not of their objects, in the order of their files.
local function written(files)
  local list, seen = {}, {}
  for _, file in ipairs(files) do
    for _, entry in ipairs(file.found.functions) do
      if not entry.method and not entry.value and entry.owner == file.variable and not seen[entry.name] then
        seen[entry.name] = true
        list[#list + 1] = entry
      end
    end
  end
  return list, seen
end

-- The functions that a module really has, in the order of its files; then those that nobody wrote about.
local function functions_of(module, files)
  local real, list = require(module.name), {}
  local entries, seen = written(files)
  for _, entry in ipairs(entries) do
    if type(real[entry.name]) == "function" then
      list[#list + 1] = entry
    end
  end
  local rest = {}
  for name, value in pairs(real) do
    if type(value) == "function" and not seen[name] then
      rest[#rest + 1] = { name = name, text = {}, params = {}, returns = {} }
    end
  end
  table.sort(rest, function(a, b) return a.name < b.name end)
  return table.move(rest, 1, #rest, #list + 1, list)
end

-- The class that a local variable holds, in the same file or, where a file adds methods to another one's class, there.
local function class_of(files, file, variable)
  for _, place in ipairs { { file }, files } do
    for _, each in ipairs(place) do
      for _, class in ipairs(each.found.classes) do
        if class.variable == variable then
          return class
        end
      end
    end
  end
end

local function add_methods(files, file, by_class, order)
  for _, entry in ipairs(file.found.functions) do
    if entry.owner ~= file.variable and not M.private[entry.owner] then
      local class = class_of(files, file, entry.owner)
      local name = class and class.class or entry.owner
      if not by_class[name] then
        by_class[name] = { name = name, class = class, methods = {}, variable = entry.owner, module = file.name }
        order[#order + 1] = by_class[name]
      end
      table.insert(by_class[name].methods, entry)
    end
  end
end

local function classes_of(files)
  local by_class, order = {}, {}
  for _, file in ipairs(files) do
    add_methods(files, file, by_class, order)
  end
  for _, file in ipairs(files) do
    for _, class in ipairs(file.found.classes) do
      if not by_class[class.class] and #class.fields > 0 then
        by_class[class.class] = { name = class.class, class = class, methods = {}, module = file.name }
        order[#order + 1] = by_class[class.class]
      end
    end
  end
  return order
end

local function open_files(names)
  local files = {}
  for i, name in ipairs(names) do
    local source = assert(vm.source(name), name)
    files[i] = { name = name, variable = local_name(source), found = annotations.read(source) }
  end
  return files
end

---Everything that the reference tells of one module.
---@param module {name: string, from?: string[]}
---@return {name: string, about: string, functions: table[], classes: table[]}
function M.describe(module)
  local names = { module.name }
  table.move(module.from or {}, 1, #(module.from or {}), 2, names)
  local files = open_files(names)
  local about = {}
  for line in vm.source(module.name):gmatch("[^\n]+") do
    local text = line:match("^%-%-%-?%s*(.*)$")
    if not text or text:find("^@") then
      break
    elseif not text:find("^SPDX") then
      about[#about + 1] = text
    end
  end
  return { name = module.name, about = table.concat(about, "\n"), functions = functions_of(module, files), classes = classes_of(files) }
end

---The same of a module written in C, from its file in lua/eirun/meta.
---@param name string `json`
---@return table
function M.describe_core(name)
  local files = open_files({ "eirun.meta." .. name })
  local values = {}
  for _, entry in ipairs(files[1].found.functions) do
    if entry.value then
      values[#values + 1] = entry
    end
  end
  return { name = "eirun.core." .. name, functions = (written(files)), classes = classes_of(files), values = values }
end

-- Markdown -------------------------------------------------------------------------------------------------------------------

local starts = { "^Example:", "^Raises ", "^Errors:", "^Never raises" }

local function begins_paragraph(text)
  for _, pattern in ipairs(starts) do
    if text:find(pattern) then
      return true
    end
  end
end

-- The prose of a comment: example and errors begin paragraphs of their own, code in fences stays as it is.
local function prose(lines)
  local text, fenced = {}, false
  for _, line in ipairs(lines) do
    local fence = line:find("^```")
    if not fenced and not fence then
      line = line:gsub("(%S)%. Raises ", "%1.\n\nRaises "):gsub("(`)%. Example:", "%1.\n\nExample:"):gsub("(`) Raises ", "%1\n\nRaises ")
    end
    if not fenced and #text > 0 and (begins_paragraph(line) or fence) and text[#text] ~= "" then
      text[#text + 1] = ""
    end
    text[#text + 1] = line
    if fence then
      fenced = not fenced
      if not fenced then
        text[#text + 1] = ""
      end
    end
  end
  return (table.concat(text, "\n"):gsub("\n\n\n+", "\n\n"):gsub("%s+$", ""))
end

local function more(text)
  return text ~= "" and ": " .. text or ""
end

-- A parameter or a field.
local function row(item)
  return ("- `%s%s` `%s`%s"):format(item.name, item.optional and "?" or "", item.type, more(item.text))
end

local function add_rows(out, entry)
  for _, param in ipairs(entry.params) do
    out[#out + 1] = row(param)
  end
  for i, result in ipairs(entry.returns) do
    out[#out + 1] = ("- %s `%s`%s"):format(i == 1 and "returns" or "and", result.type, more(result.text))
  end
  if #entry.params + #entry.returns > 0 then
    out[#out + 1] = ""
  end
end

local function add_function(out, prefix, entry)
  local names = entry.args
  if not names then
    names = {}
    for i, param in ipairs(entry.params) do names[i] = param.name end
    names = table.concat(names, ", ")
  end
  out[#out + 1] = ("#### `%s%s(%s)`\n"):format(prefix, entry.name, names)
  local before, after, split = {}, {}, false
  for _, line in ipairs(entry.text) do
    split = split or begins_paragraph(line)
    table.insert(split and after or before, line)
  end
  if #before > 0 then
    out[#out + 1] = prose(before) .. "\n"
  end
  add_rows(out, entry)
  if #after > 0 then
    out[#out + 1] = prose(after) .. "\n"
  end
end

local function add_fields(out, class)
  for _, field in ipairs(class.fields) do
    out[#out + 1] = row(field)
  end
  if #class.fields > 0 then
    out[#out + 1] = ""
  end
end

local function add_class(out, described)
  out[#out + 1] = ("### %s\n"):format(described.name)
  local class = described.class
  if class then
    local text = class.class_text ~= "" and class.class_text or prose(class.text)
    if text ~= "" then
      out[#out + 1] = text .. "\n"
    end
    add_fields(out, class)
  end
  for _, entry in ipairs(described.methods) do
    add_function(out, ":", entry)
  end
end

local function add_module(out, described, short)
  out[#out + 1] = ("## %s\n"):format(described.name)
  if described.about and described.about ~= "" then
    out[#out + 1] = described.about .. "\n"
  end
  for _, entry in ipairs(described.values or {}) do
    out[#out + 1] = ("`%s.%s` `%s`: %s\n"):format(short, entry.name, entry.value, prose(entry.text))
  end
  for _, entry in ipairs(described.functions) do
    add_function(out, short .. ".", entry)
  end
  for _, class in ipairs(described.classes) do
    add_class(out, class)
  end
end

local head = [[
# Reference

Made by `eirun reference` from the annotations in `lua/eirun`; do not edit it here. How things fit together stands in the pages
beside this one.

Notation: `name?` may be left out. Times are seconds, on the run's clock unless it says otherwise; sizes are bytes. What a function
*raises* is a table with `kind`, `message` and more (`docs/errors.md`); wrong use raises kind `invalid` and names the line of the
playbook. Every function that waits can raise `cancelled` and `timeout`, and every one that asks a cloud or a cluster what that one
answers: `network`, `denied`, `not_found`, `conflict`, `quota`, `throttled`, `invalid`, `internal`. This is not said again each time.
]]

local core_head = [[
# Modules written in C

`lua/eirun` is built on these. They answer `nil, err` where the world does not comply and raise only for wrong use. A playbook cannot
require them: `eirun.json`, `eirun.fs` and their like are what it has. Tests that `eirun test` runs can, and so can files of `--lua-dir`.
]]

-- A line of links for each part.
local function contents()
  local out = {}
  local function line(title, names)
    for i, name in ipairs(names) do names[i] = ("[%s](#%s)"):format(name, (name:gsub("%.", ""))) end
    out[#out + 1] = ("- %s: %s"):format(title, table.concat(names, ", "))
  end
  for _, group in ipairs(M.groups) do
    local names = {}
    for i, module in ipairs(group.modules) do names[i] = module.name end
    line(group.title, names)
  end
  local core = {}
  for i, name in ipairs(M.core) do core[i] = "eirun.core." .. name end
  line("Modules written in C", core)
  return table.concat(out, "\n") .. "\n"
end

---The whole reference.
---@return string Markdown
function M.markdown()
  local out = { head, contents() }
  for _, group in ipairs(M.groups) do
    out[#out + 1] = ("# %s\n"):format(group.title)
    for _, module in ipairs(group.modules) do
      add_module(out, M.describe(module), module.name:match("[%w_]+$"))
    end
  end
  out[#out + 1] = core_head
  for _, name in ipairs(M.core) do
    add_module(out, M.describe_core(name), name)
  end
  return (table.concat(out, "\n"):gsub("%s+$", "")) .. "\n"
end

---The table of delays in docs/sandbox.md, in the order of lag.lua's groups.
---@return string Markdown
function M.delays()
  local lag, rows = require "eirun.lag", { "| delay | seconds | source |", "|---|---|---|" }
  for name in vm.source("eirun.lag"):gmatch("\n  ([%a_]+) = { value") do
    local fact = lag.facts[name]
    rows[#rows + 1] = ("| `%s` | %.14g | %s |"):format(name, fact.value, fact.source)
  end
  return table.concat(rows, "\n") .. "\n"
end

function M.run()
  require("eirun.core.term").write(1, M.markdown())
  return 0
end

return M
