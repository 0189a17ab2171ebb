-- SPDX-License-Identifier: Apache-2.0
-- The model server: what it reads from a real SavedModel, what it answers, how it loads, how long it takes.
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local modelconfig = require "sandbox.inference.modelconfig"
local network = require "sandbox.inference.network"
local replica = require "sandbox.inference.replica"
local rest = require "sandbox.inference.rest"
local savedmodel = require "sandbox.inference.savedmodel"
local task = require "eirun.core.task"
local t = require "eirun.test"
local tfserving = require "sandbox.inference.tfserving"
local rng = require "sandbox.rng"

local root = debug.getinfo(1, "S").source:match "^@(.-)tests/virtual/[^/]*$" or ""
local version = 1623831335
local function model_file(path) return assert(fs.read(root .. "playbooks/models/chnsenticorp/" .. path)) end
local function real_model() return assert(savedmodel.parse(model_file(version .. "/saved_model.pb"))) end
local function sample() return model_file "sample.json" end

-- The sample's text and a second one.
local function two()
  local doc = json.decode(sample())
  local other = json.decode(sample()).instances[1]
  other.input_ids[2] = 4711
  doc.instances[2] = other
  return json.encode(doc)
end

local function server_of(bundle, name)
  return { models = { [name or "chnsenticorp"] = { versions = { [version] = { state = "AVAILABLE", bundle = bundle } } } } }
end

t.test("the_signature_is_read_from_the_model", function()
  local signature = real_model().signatures.serving_default
  t.eq(signature.method, "tensorflow/serving/predict")
  t.eq(signature.inputs.input_ids.dtype, 3)
  t.eq({ signature.inputs.segment_ids.shape[1].size, signature.inputs.segment_ids.shape[2].size }, { -1, 128 })
  t.eq(signature.outputs.probabilities.dtype, 1)
  t.eq({ signature.outputs.probabilities.shape[1].size, signature.outputs.probabilities.shape[2].size }, { -1, 2 })
end)

t.test("a_file_that_is_no_model_is_refused", function()
  t.match(select(2, savedmodel.parse "not protobuf at all"), "Data loss")
  t.match(select(2, savedmodel.parse ""), "Data loss")
  t.match(select(2, savedmodel.parse "\8\1"), "Could not find meta graph def matching supplied tags: { serve }")
end)

t.test("status_and_metadata_have_the_servers_shape", function()
  local server = server_of(real_model())
  local status, body = rest.answer(server, "GET", "/v1/models/chnsenticorp")
  t.eq(status, 200)
  t.eq(json.decode(body).model_version_status[1], { version = "1623831335", state = "AVAILABLE",
    status = { error_code = "OK", error_message = "" } })
  status, body = rest.answer(server, "GET", "/v1/models/chnsenticorp/versions/1623831335/metadata")
  t.eq(status, 200)
  local doc = json.decode(body)
  t.eq(doc.model_spec, { name = "chnsenticorp", signature_name = "", version = "1623831335" })
  local signature = doc.metadata.signature_def.signature_def.serving_default
  t.eq(signature.inputs.input_mask.dtype, "DT_INT32")
  t.eq(signature.outputs.probabilities.tensor_shape.dim[2].size, "2")
  t.eq(signature.method_name, "tensorflow/serving/predict")
end)

local function predict(body, path)
  local status, text = rest.answer(server_of(real_model()), "POST", path or "/v1/models/chnsenticorp:predict", body)
  return status, json.decode(text), text
end

t.test("rows_get_one_distribution_each", function()
  local status, doc, text = predict(two())
  t.eq(status, 200)
  t.eq(#doc.predictions, 2)
  for _, row in ipairs(doc.predictions) do
    t.eq(#row, 2)
    t.ok(math.abs(row[1] + row[2] - 1) < 1e-6)
    t.eq(math.type(row[1]), "float")
  end
  t.match(text, '^{\n    "predictions": %[%[[%d.]+, [%d.]+%], %[[%d.]+, [%d.]+%]\n    %]\n}$')
  local _, again = predict(two())
  t.eq(again, doc)
end)

t.test("columns_say_the_same_as_rows", function()
  local rows = json.decode(two()).instances
  local inputs = { input_ids = {}, input_mask = {}, segment_ids = {} }
  for _, row in ipairs(rows) do
    for name, list in pairs(inputs) do list[#list + 1] = row[name] end
  end
  local _, by_row = predict(two())
  local status, by_column = predict(json.encode { inputs = inputs })
  t.eq(status, 200)
  t.eq(by_column.outputs, by_row.predictions)
end)

t.test("other_texts_get_other_answers", function()
  local doc = json.decode(two())
  doc.instances[1].input_ids[2] = 1
  local _, first = predict(two())
  local _, second = predict(json.encode(doc))
  t.ok(first.predictions[1][1] ~= second.predictions[1][1])
  t.eq(first.predictions[2], second.predictions[2])
end)

t.test("mistakes_are_told_in_the_servers_words", function()
  local function message(body, path)
    local status, doc = predict(body, path)
    t.ok(status >= 400, "was accepted")
    return doc.error, status
  end
  t.match(message "", "JSON Parse error: The document is empty")
  t.match(message "x", "^JSON Parse error: Invalid value. at offset: ")
  t.eq(message "{}", "Missing 'inputs' or 'instances' key")
  t.eq(message '{"instances": []}', 'JSON Value: {"instances":[]} No values in \'instances\' array')
  t.match(message '{"instances": [[1,2]]}', "^instances is a plain list, but expecting list of objects as multiple input tensors")
  t.match(message '{"instances": [{"input_ids": [1]}]}', "keys must be equal to: input_ids,input_mask,segment_ids$")
  t.match(message '{"instances": [{"words": [1]}]}', "^Failed to process element: 0 key: words of 'instances' list. "
    .. "Error: Invalid argument: JSON object: does not have named input: words$")
  t.match(message '{"instances": [{"input_ids": ["a"], "input_mask": [1], "segment_ids": [1]}]}',
    'JSON Value: "a" Type: String is not of expected type: int32$')
  t.match(message '{"instances": [{"input_ids": [1.5], "input_mask": [1], "segment_ids": [1]}]}', "is not of expected type: int32$")
  t.match(message '{"instances": [{"input_ids": [1], "input_mask": [1], "segment_ids": [1]}]}',
    "^Incompatible shapes: %[1,1%] vs. %[%?,128%]")
  t.eq(message '{"inputs": {"input_ids": [[1]]}, "signature_name": "other"}', 'Serving signature name: "other" not found in signature def')
  t.match(message '{"inputs": {"segment_ids": [[1]]}}', "^Missing named input: input_ids in 'inputs' object.$")
  local text, status = message(sample(), "/v1/models/nobody:predict")
  t.eq({ text, status }, { "Servable not found for request: Latest(nobody)", 404 })
  t.eq(message(sample(), "/v1/models/chnsenticorp/versions/7:predict"), "Servable not found for request: Specific(chnsenticorp, 7)")
  text, status = message(sample(), "/v1/models/chnsenticorp:guess")
  t.eq({ text, status }, { "Malformed request: POST /v1/models/chnsenticorp:guess", 400 })
  t.match(message('{"examples": [{}]}', "/v1/models/chnsenticorp:classify"),
    "^Expected classification signature method_name to be tensorflow/serving/classify. Was: tensorflow/serving/predict$")
end)

t.test("missing_models_and_versions_have_no_status", function()
  local server = server_of(real_model())
  local status, body = rest.answer(server, "GET", "/v1/models/nobody")
  t.eq({ status, json.decode(body).error }, { 404, "Could not find any versions of model nobody" })
  t.eq(json.decode(select(2, rest.answer(server, "GET", "/v1/models/chnsenticorp/versions/5"))).error,
    "Could not find version 5 of model chnsenticorp")
end)

t.test("outputs_follow_shape_and_type", function()
  local function dims(...)
    local shape = { unknown_rank = false }
    for i, size in ipairs { ... } do shape[i] = { size = size, name = "" } end
    return shape
  end
  local bundle = { signatures = { serving_default = { method = "tensorflow/serving/predict",
    inputs = { x = { name = "x:0", dtype = 1, shape = dims(-1) } },
    outputs = { class = { name = "c:0", dtype = 9, shape = dims(-1) }, box = { name = "b:0", dtype = 1, shape = dims(-1, 2, 3) },
      label = { name = "l:0", dtype = 7, shape = dims(-1, 1) } } } } }
  local status, text = rest.answer(server_of(bundle, "m"), "POST", "/v1/models/m:predict", '{"instances": [1.0, 2.0]}')
  t.eq(status, 200)
  local rows = json.decode(text).predictions
  t.eq(math.type(rows[1].class), "integer")
  t.eq({ #rows, #rows[1].box, #rows[1].box[1], #rows[1].label, type(rows[1].label[1]) }, { 2, 2, 3, 1, "string" })
end)

t.test("a_model_config_is_read_with_its_policy", function()
  local models = modelconfig.parse [[
    # comment
    model_config_list {
      config { name: "chnsenticorp" base_path: "/models/tensorflow" model_platform: "tensorflow"
        model_version_policy { specific { versions: 1623831335 versions: 7 } }
        version_labels { key: 'stable' value: 7 } }
      config: < name: "b", base_path: "/b", model_version_policy: { latest { num_versions: 3 } } >
      config { name: "c" base_path: "/c" model_version_policy { all { } } }
      config { name: "d" base_path: "/d" }
    }]]
  t.eq(models[1], { name = "chnsenticorp", base_path = "/models/tensorflow", policy = { kind = "specific", versions = { 1623831335, 7 } },
    labels = { stable = 7 } })
  t.eq(models[2].policy, { kind = "latest", count = 3 })
  t.eq(models[3].policy, { kind = "all" })
  t.eq(models[4].policy, { kind = "latest", count = 1 })
  t.eq(modelconfig.parse "model_config_list { config { name: ", nil)
  t.eq(modelconfig.parse "{ }", nil)
end)

t.test("the_command_line_is_read_as_a_shell_reads_it", function()
  local line = "cd /x && exec /usr/bin/tensorflow_model_server --port=8500 \\\n --model_name='a b' \"--x=$NAME\"\n"
  local words = modelconfig.shell_words(line, { NAME = "n" })
  t.eq(words, { "/usr/bin/tensorflow_model_server", "--port=8500", "--model_name=a b", "--x=n" })
  t.eq(modelconfig.flags { "server", "--port=8500", "-rest_api_port", "8501", "--enable_batching" },
    { port = "8500", rest_api_port = "8501", enable_batching = "true" })
end)

-- A process ------------------------------------------------------------------------------------------------------

local base = "/models/tensorflow"

-- A file system of a container: path -> bytes.
local function files_of(content)
  local files = { content = content }
  function files.read(path)
    if content[path] then return content[path], path end
    return nil, { message = "no such file" }
  end
  function files.check(path) return content[path] ~= nil, { message = "no such file" } end
  function files.list(path)
    local seen, list = {}, {}
    for name in pairs(content) do
      local inner, more = name:match("^" .. path:gsub("%p", "%%%0") .. "/([^/]+)(/?)")
      if inner and not seen[inner] then
        seen[inner] = true
        list[#list + 1] = { name = inner, dir = more == "/" }
      end
    end
    if #list == 0 then return nil, { message = "no such folder" } end
    table.sort(list, function(a, b) return a.name < b.name end)
    return list
  end
  return files
end

local function add_version(content, number)
  local folder = ("%s/%d"):format(base, number)
  content[folder .. "/saved_model.pb"] = model_file(version .. "/saved_model.pb")
  content[folder .. "/variables/variables.index"] = "i"
  content[folder .. "/variables/variables.data-00000-of-00002"] = "0"
  content[folder .. "/variables/variables.data-00001-of-00002"] = "1"
end

local function start(content, flags)
  local lines, net = {}, network.of {}
  local given = { port = "8500", rest_api_port = "8501", model_name = "chnsenticorp", model_base_path = base }
  for name, value in pairs(flags or {}) do given[name] = value or nil end
  local process = tfserving.new { flags = given, files = files_of(content), network = net, ip = "172.20.1.2", load_seconds = 20,
    draw = rng.stream "test", accelerator = "T4", log = function(line) lines[#lines + 1] = line end }
  local scope = task.scope()
  scope:spawn(function() process.exit_code = process:run() end)
  process.lines = function() return table.concat(lines, "\n") end
  process.end_test = function()
    process:stop()
    scope:join()
  end
  return process, net
end

t.test("ports_open_when_the_model_is_loaded", function()
  local content = {}
  add_version(content, version)
  local process, net = start(content)
  net:listen("172.20.1.2", 1, function() end)
  task.sleep(19)
  t.eq({ net:connects("172.20.1.2", 8501, 1) }, { false, "refused" })
  task.sleep(2)
  t.eq(net:connects("172.20.1.2", 8500, 1), true)
  local reply = net:call("172.20.1.2", 8501, { method = "GET", path = "/v1/models/chnsenticorp" }, 1, 10)
  t.eq(json.decode(reply.body).model_version_status[1].state, "AVAILABLE")
  t.match(process.lines(), "Successfully loaded servable version {name: chnsenticorp version: 1623831335}")
  process.end_test()
  t.eq(net:connects("172.20.1.2", 8501, 1), false)
end)

t.test("a_missing_version_is_waited_for_and_the_log_says_so", function()
  local content = { ["/etc/tf/model.config"] = ('model_config_list { config { name: "chnsenticorp" base_path: "%s" '
    .. "model_version_policy { specific { versions: 7 } } } }"):format(base) }
  add_version(content, version)
  local process = start(content, { model_config_file = "/etc/tf/model.config" })
  task.sleep(70)
  t.eq(process.serving, false)
  t.match(process.lines(), "Version 7 of servable chnsenticorp, which was requested to be served as a 'specific' version")
  t.match(process.lines(), "No versions of servable chnsenticorp found under base path /models/tensorflow")
  add_version(content, 7)
  process:changed(base .. "/7/saved_model.pb")
  task.sleep(25)
  t.eq(process.serving, true)
  t.eq(process.models.chnsenticorp.versions[version], nil)
  process.end_test()
end)

t.test("a_newer_version_takes_over_when_it_appears", function()
  local content = {}
  add_version(content, version)
  local process = start(content)
  task.sleep(25)
  add_version(content, version + 1)
  process:changed(base .. "/" .. version + 1 .. "/saved_model.pb")
  task.sleep(25)
  local versions = process.models.chnsenticorp.versions
  t.eq({ versions[version].state, versions[version + 1].state }, { "END", "AVAILABLE" })
  process.end_test()
end)

t.test("a_lost_shard_is_tried_again_and_then_ends_the_process", function()
  local content = {}
  add_version(content, version)
  content[("%s/%d/variables/variables.data-00001-of-00002"):format(base, version)] = nil
  local process = start(content)
  process.retry_seconds = 5
  task.sleep(26)
  t.eq(process.exit_code, 255)
  t.match(process.lines(), "Loading servable: {name: chnsenticorp version: 1623831335} failed: Not found: "
    .. ".*data%-00001%-of%-00002; No such file")
  t.match(process.lines(), "Failed to start server. Error: Unknown: 1 servable%(s%) did not become available")
end)

t.test("wrong_flags_end_the_process_at_once", function()
  local process = start({}, { model_base_path = false })
  task.sleep(0.1)
  t.eq(process.exit_code, 255)
  t.match(process.lines(), "model_base_path and server_options.model_config_file are empty!")
  process = start({}, { model_config_file = "/no/such" })
  task.sleep(0.1)
  t.match(process.lines(), "Not found: /no/such; No such file or directory")
end)

-- Load -----------------------------------------------------------------------------------------------------------

-- Sends `rate` requests a second for `seconds`; answers sorted latencies and how many failed.
local function drive(one, rate, seconds, timeout)
  local latencies, failed, scope = {}, 0, task.scope()
  local at = 0
  while at < seconds do
    local planned = at
    scope:spawn(function()
      task.sleep(planned)
      local began = task.now()
      local reply = one:serve({ method = "POST", path = "/v1/models/chnsenticorp:predict", body = sample() }, timeout)
      if reply then latencies[#latencies + 1] = task.now() - began else failed = failed + 1 end
    end)
    at = at + 1 / rate
  end
  scope:join()
  table.sort(latencies)
  return latencies, failed
end

local function new_replica(name)
  return replica.new { server = server_of(real_model()), draw = rng.stream(name), accelerator = "T4" }
end

t.test("ten_requests_a_second_are_comfortable_for_one_replica", function()
  local latencies = drive(new_replica "a", 10, 60, 60)
  t.eq(#latencies, 600)
  t.ok(latencies[570] < 0.25, "p95 is " .. latencies[570])
  t.ok(latencies[300] > 0.06 and latencies[300] < 0.1, "p50 is " .. latencies[300])
end)

t.test("twice_what_it_can_do_breaks_a_replica_and_nothing_waits_for_ever", function()
  local latencies, failed = drive(new_replica "b", 28, 60, 20)
  t.ok(latencies[#latencies // 2] > 5, "p50 is " .. latencies[#latencies // 2])
  t.ok(failed > 0, "nothing timed out")
  t.ok(latencies[#latencies] <= 20)
end)

t.test("a_stopped_process_resets_its_callers", function()
  local one = new_replica "c"
  local why
  local scope = task.scope()
  scope:spawn(function() why = select(2, one:serve({ method = "POST", path = "/v1/models/chnsenticorp:predict", body = sample() }, 60)) end)
  task.sleep(0.01)
  one:close()
  scope:join()
  t.eq(why, "reset")
end)
