-- SPDX-License-Identifier: Apache-2.0
-- Is a SavedModel whole, and which versions does a cluster serve? The indexes are those of TensorFlow Serving's own test data.
local t = require "eirun.test"
local bundle = require "eirun.oss.bundle"
local crypto = require "eirun.core.crypto"
local folder = require "lib_folder"
local fs = require "eirun.core.fs"
local savedmodel = require "eirun.oss.savedmodel"
local served = require "eirun.oss.served"
local snappy = require "eirun.oss.snappy"

-- saved_model_half_plus_two_cpu: five floats, 20 bytes, a block compressed with Snappy.
local compressed = crypto.unhex("646c00000608011a02080100010b61080112002804350638271f01010d32010f0420040d110c00010d6205112c08280435"
  .. "10fd784f00010d6305111c0c280435efd682c315333c10280435efd682c300000000010000000103da3e1d000000000100000000c0f2a1b000010264005700"
  .. "0000000100000000" .. "75f79c875c08690e" .. ("00"):rep(36) .. "57fb808b247547db")
-- saved_model_half_plus_three: three floats, 12 bytes.
local plain = crypto.unhex("00000608011a02080100010b61080112002804350638271f00010d62080112002004280435efd682c300010d6308011200200828"
  .. "0435efd682c3000000000100000000c1e619df000000000100000000c0f2a1b000010264004200000000010000000058b2e9f74708540e" .. ("00"):rep(36)
  .. "57fb808b247547db")

t.test("an_index_tells_how_many_bytes_its_shards_have", function()
  t.eq(bundle.read(plain), { shards = 1, tensors = 3, sizes = { [0] = 12 } })
  t.eq(bundle.read(compressed), { shards = 1, tensors = 5, sizes = { [0] = 20 } })
end)

t.test("a_broken_index_is_told_and_never_a_crash", function()
  for n = 0, #plain - 1 do t.eq((bundle.read(plain:sub(1, n))), nil) end
  for n = 1, #plain - 48 do -- flip each byte in turn: it may read as something else, but it must read or be refused
    local found, why = bundle.read(plain:sub(1, n - 1) .. string.char(plain:byte(n) ~ 0xff) .. plain:sub(n + 1))
    t.ok(found or why, "neither read nor refused at " .. n)
  end
end)

t.test("snappy_literals_and_copies", function()
  t.eq(snappy.unpack "\5\16hello", "hello")
  t.eq(snappy.unpack "\8\4ab\9", nil) -- a copy that is cut off
  t.eq(snappy.unpack "\8\4ab\5\2", nil) -- shorter than it says
  t.eq(snappy.unpack "\6\4ab\1\2", "ababab") -- a copy that overlaps what it writes
  t.eq(snappy.unpack "\6\4ab\1\3", nil) -- a copy from before the beginning
end)

local function model(changes)
  local files = { ["1/saved_model.pb"] = "\8\1\18\0", ["1/variables/variables.index"] = plain,
    ["1/variables/variables.data-00000-of-00001"] = ("\0"):rep(12), ["1/assets/vocab.txt"] = "a" }
  for path, data in pairs(changes or {}) do files[path] = data or nil end
  return folder(files)
end

local function with_model(changes, fn)
  local dir = model(changes)
  local ok, err = pcall(fn, dir .. "/1")
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

t.test("a_whole_model_is_described", function()
  with_model({}, function(dir)
    local seen = savedmodel.check(dir)
    t.eq({ seen.version, #seen.files, seen.tensors, seen.shards }, { 1, 4, 3, 1 })
  end)
  with_model({ ["1/variables/variables.index"] = false, ["1/variables/variables.data-00000-of-00001"] = false }, function(dir)
    t.eq(savedmodel.check(dir).shards, 0) -- a model without variables is one, too
  end)
end)

local function refused(name, changes, pattern)
  t.test(name, function()
    with_model(changes, function(dir)
      t.match(t.err("invalid", function() savedmodel.check(dir) end).message, pattern)
    end)
  end)
end

refused("no_graph_is_no_model", { ["1/saved_model.pb"] = false }, "saved_model.pb is missing")
refused("an_empty_graph_is_no_model", { ["1/saved_model.pb"] = "" }, "saved_model.pb is empty")
refused("a_web_page_is_no_graph", { ["1/saved_model.pb"] = "<html>" }, "is no protocol buffer")
refused("a_pointer_of_git_lfs_is_no_graph", { ["1/saved_model.pb"] = "version https://git-lfs.github.com/spec/v1\n" }, "pointer of Git LFS")
refused("shards_without_an_index_are_no_model", { ["1/variables/variables.index"] = false }, "variables.index is missing")
refused("a_broken_index_is_no_model", { ["1/variables/variables.index"] = "hello" }, "variables.index is too short")
refused("a_missing_shard_is_named", { ["1/variables/variables.data-00000-of-00001"] = false }, "data%-00000%-of%-00001 is missing")
refused("a_shard_that_was_cut_off_is_named", { ["1/variables/variables.data-00000-of-00001"] = ("\0"):rep(11) },
  "has 11 bytes, its index wants 12")

t.test("versions_are_what_serving_reads_as_numbers", function()
  t.eq({ savedmodel.version "00000123", savedmodel.version "1623831335", savedmodel.version "v1", savedmodel.version "1a",
    savedmodel.version "" }, { 123, 1623831335 })
end)

-- Who serves it -------------------------------------------------------------------------------------------------------

local function workload(name, more)
  local container = { name = "c", command = more.command, args = more.args, env = more.env,
    volumeMounts = { { name = "model", mountPath = more.mount or "/models", subPath = more.sub } } }
  return { metadata = { name = name, namespace = "default" }, spec = { replicas = more.replicas or 1, template = { spec = {
    containers = { container }, volumes = { { name = "model", persistentVolumeClaim = { claimName = "models" } } } } } } }
end

local function cluster(workloads, path, bucket)
  local volume = { spec = { claimRef = { namespace = "default", name = "models" }, csi = { driver = "ossplugin.csi.alibabacloud.com",
    volumeAttributes = { Bucket = bucket or "models", path = path or "/" } } } }
  return { list = function(_, kind)
    return kind == "PersistentVolume" and { volume } or kind == "Deployment" and workloads or {}
  end }
end

-- Which of five versions must stay; the newest is 5.
local function kept(...)
  local why, list = served.by(cluster(...), "models", "bert"), {}
  for version = 1, 5 do if why(version, 5 - version) then list[#list + 1] = version end end
  return list
end

t.test("a_deployment_that_names_a_version_keeps_that_one", function()
  t.eq(kept { workload("web", { args = { "--model_base_path=/models/bert/2" } }) }, { 2 })
  t.eq(kept { workload("web", { command = { "sh", "-c", "serve --path '/models/bert/00003/' --port 1" } }) }, { 3 })
  t.eq(kept({ workload("web", { command = { "serve" } }) }, "/bert/2"), { 2 })
  t.eq(kept({ workload("web", { command = { "serve" }, sub = "bert/4" }) }, "/"), { 4 })
end)

t.test("a_deployment_that_watches_the_model_keeps_the_newest_and_the_one_before", function()
  t.eq(kept { workload("web", { args = { "--model_base_path=/models/bert" } }) }, { 4, 5 })
  t.eq(kept { workload("web", { env = { { name = "MODEL_NAME", value = "bert" } } }) }, { 4, 5 })
  t.eq(kept({ workload("web", { args = { "serve" } }) }, "/bert"), { 4, 5 })
  t.eq(kept({ workload("web", { args = { "--model_base_path=/m/deep/bert" }, mount = "/m/deep" }) }, "/"), { 4, 5 })
end)

t.test("a_file_of_models_may_name_any_version", function()
  t.eq(kept { workload("web", { args = { "--model_config_file=/etc/models.config" } }) }, { 1, 2, 3, 4, 5 })
end)

t.test("who_does_not_run_or_reads_elsewhere_keeps_nothing", function()
  t.eq(kept { workload("web", { args = { "--model_base_path=/models/bert/2" }, replicas = 0 }) }, {})
  t.eq(kept({ workload("web", { args = { "--model_base_path=/models/bert/2" } }) }, "/", "others"), {})
  t.eq(kept({ workload("web", { args = { "--model_base_path=/models/1" } }) }, "/resnet"), {})
end)
