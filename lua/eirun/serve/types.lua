-- SPDX-License-Identifier: Apache-2.0
-- The kinds of serving jobs that arena knows by a Deployment, and the names that it gives to their objects.
local M = {}

---@class eirun.ServingType
---@field label string value of the label servingType, and the end of the books' name
---@field title string what `arena serve list` shows
---@field short string what `--type` takes
---@field chart string name of arena's chart: the label app, and the end of the Deployment's name
---@field chart_version string
---@field folder string folder of the chart: a key of the books
---@field container string name of the container
---@field service? "release" the Service is named after the release instead of the Deployment

---@type table<string, eirun.ServingType>
M.made = {
  tensorflow = { label = "tf-serving", title = "Tensorflow", short = "tf", chart = "tensorflow-serving", chart_version = "0.11.0",
    folder = "tfserving", container = "serving" },
  triton = { label = "triton-serving", title = "Triton", short = "triton", chart = "tritoninferenceserver", chart_version = "0.10.0",
    folder = "triton", container = "tritonserver" },
  custom = { label = "custom-serving", title = "Custom", short = "custom", chart = "custom-serving", chart_version = "0.11.0",
    folder = "custom-serving", container = "custom-serving", service = "release" },
}

-- Others that arena keeps in Deployments: they are listed, scaled and deleted, but not made here.
local foreign = {
  { label = "trt-serving", title = "Tensorrt", short = "trt" },
  { label = "kf-serving", title = "KFServing", short = "kf" },
  { label = "seldon-serving", title = "Seldon", short = "seldon" },
}

local by_label, by_word, words = {}, {}, {}

local function add(row)
  by_label[row.label] = row
  by_word[row.short:lower()], by_word[row.title:lower()], by_word[row.label] = row, row, row
  words[#words + 1] = row.short
end

for _, name in ipairs { "tensorflow", "triton", "custom" } do add(M.made[name]) end
for _, row in ipairs(foreign) do add(row) end

---The type with this servingType label; nil for one that is none of arena's.
---@param label string|nil
---@return eirun.ServingType|nil
function M.of_label(label) return by_label[label] end

---The type that `--type` names: its name, its title or its label in any case.
---@param word string
---@return eirun.ServingType|nil
---@return string|nil known the words there are
function M.of_word(word) return by_word[word:lower()], table.concat(words, ", ") end

---@class eirun.Job
---@field type eirun.ServingType
---@field name string
---@field version string the job's, not the model's
---@field release string
---@field fullname string of the Deployment
---@field service string of the Service
---@field books string of the ConfigMap that arena keeps the job's books in
---@field namespace string

---Names of a job, as arena builds them.
---@param type eirun.ServingType
---@param name string
---@param version string
---@param namespace string
---@return eirun.Job
function M.names(type, name, version, namespace)
  local release = name .. "-" .. version
  local fullname = release .. "-" .. type.chart
  return { type = type, name = name, version = version, namespace = namespace, release = release, fullname = fullname,
    service = type.service == "release" and release or fullname, books = release .. "-" .. type.label }
end

return M
