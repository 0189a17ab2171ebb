-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local adapter = require "sandbox.metrics_adapter"
local logs = require "sandbox.sls.logs"
local query = require "sandbox.sls.query"
local sls = require "sandbox.sls"

local silent = { set = function() end }
local store = "k8s-log-x/nginx-ingress"
local index = { status = "long", request_time = "double", proxy_upstream_name = "text", upstream_addr = "text", method = "text" }

local function access(i, route)
  return { client_ip = "203.0.113.7", x_forward_for = "", remote_user = "-", method = "POST", url = "/v1/models/m:predict",
    version = "HTTP/1.1", status = 200, body_bytes_sent = 113, http_referer = "-", http_user_agent = "load", request_length = 540,
    request_time = (i % 97) / 1000, proxy_upstream_name = route or "default-a-8501", upstream_addr = ("172.20.0.%d:8501"):format(i % 6),
    upstream_response_length = 113, upstream_response_time = (i % 97) / 1000, upstream_status = "200",
    req_id = ("%032x"):format(i * 2654435761 % (1 << 40)), host = "test.example.com", proxy_alternative_upstream_name = "",
    time = "2026-01-05T08:00:00+00:00" }
end

local function with_dir(fn)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ok, err = pcall(fn, dir)
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

local function size_of(dir)
  local total = 0
  for _, name in ipairs(fs.list(dir)) do total = total + fs.stat(dir .. "/" .. name).size end
  return total
end

t.test("48000_records_stay_small_on_disk_and_are_found_again", function()
  with_dir(function(dir)
    local box = logs.open(dir .. "/sls.db", silent)
    for i = 1, 48000 do
      box:append(store, access(i), 1000 + i / 60)
      if i % 300 == 0 then box:flush() end
    end
    box:close()
    t.ok(size_of(dir) < 20e6, ("%d bytes"):format(size_of(dir)))
    box = logs.open(dir .. "/sls.db", silent)
    t.eq(box:count(store), 48000)
    local result = query.run(box, store, index, { from = 1000, to = 2000, query = "* | select count(1) as n, sum(status) as s" }, 2000)
    t.eq(result.rows, { { n = "48000", s = "9600000" } })
    box:close()
  end)
end)

t.test("columns_keep_what_differs_and_what_is_absent", function()
  with_dir(function(dir)
    local box = logs.open(dir .. "/sls.db", silent)
    box:append(store, { status = 200, method = "GET" }, 10)
    box:append(store, { status = 200 }, 11)
    box:append(store, { status = 503, method = "PUT", extra = "x" }, 12)
    box:close()
    box = logs.open(dir .. "/sls.db", silent)
    local found = box:between(store, 0, 100)
    t.eq({ #found, found[1].method, found[2].extra, found[3].status, found[3].extra }, { 3, "GET", nil, 503, "x" })
    t.eq(found[2].method, nil)
    box:close()
  end)
end)

t.test("records_are_visible_after_the_collection_lag_only", function()
  with_dir(function(dir)
    local box = logs.open(dir .. "/sls.db", silent)
    for i = 0, 9 do box:append(store, access(i), 100 + i) end
    local function count(visible)
      return query.run(box, store, index, { from = 0, to = 1000, query = "* | select count(1) as n" }, visible).rows
    end
    t.eq(count(105), { { n = "5" } })
    t.eq(count(200), { { n = "10" } })
    local raw = query.run(box, store, index, { from = 0, to = 1000, query = "", line = 2, offset = 1, reverse = true }, 200).rows
    t.eq({ #raw, raw[1].__time__, raw[1].status }, { 2, "108", "200" })
    local slices = query.histogram(box, store, index, { from = 100, to = 110, query = "*" }, 200)
    t.eq({ #slices, slices[1].count }, { 10, 1 })
    box:close()
  end)
end)

-- The adapter against a context of its own: time, add-on, log store.
local function world(box, now, without)
  local kinds = { sls_project = { ["k8s-log-x"] = {} }, sls_logstore = { [store] = { name = "nginx-ingress", index = index } } }
  return { now = function() return now end, lag = { log_collect = 3 }, access_logs = box,
    addon_active = function() return not without end, store = { get = function(_, kind, key) return kinds[kind][key] end } }
end

local path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/"

local function ask(ctx, metric, labels)
  return adapter.answer(ctx, path .. metric, { labelSelector = labels })
end

local function selector(route, more)
  return "sls.project=k8s-log-x,sls.logstore=nginx-ingress,sls.ingress.route=" .. route .. (more or "")
end

t.test("the_adapters_query_is_word_for_word_its_own", function()
  local text, from, to = adapter.query("sls_ingress_qps", { ["sls.ingress.route"] = "default-nginx-80" }, 1741064767)
  t.eq(text, "* and proxy_upstream_name: default-nginx-80 | SELECT count(1) / 15 as value from log "
    .. "WHERE __time__ >= 1741064742  and __time__ < 1741064757")
  t.eq({ from, to }, { 1741064667, 1741064757 })
  t.match(adapter.query("sls_ingress_latency_p9999", {}, 1000),
    "upstream_name: %* | SELECT approx_percentile%(request_time, 0.9999%) %* 1000 ")
end)

t.test("qps_is_cut_to_whole_numbers_twice", function()
  with_dir(function(dir)
    local box = logs.open(dir .. "/sls.db", silent)
    for i = 1, 29 do box:append(store, access(i), 1000 + i % 15) end
    local status, list = ask(world(box, 1025), "sls_ingress_qps", selector "default-a-8501")
    t.eq({ status, list.kind, #list.items }, { 200, "ExternalMetricValueList", 1 })
    t.eq({ list.items[1].value, list.items[1].metricName, list.items[1].timestamp }, { "1", "sls_ingress_qps", "1970-01-01T00:17:05Z" })
    box:close()
  end)
end)

t.test("a_quiet_route_reads_zero_a_wrong_one_is_empty", function()
  with_dir(function(dir)
    local box = logs.open(dir .. "/sls.db", silent)
    box:append(store, access(1), 1000)
    local function items(now, route) return (select(2, ask(world(box, now), "sls_ingress_qps", selector(route)))).items end
    t.eq(items(5000, "default-a-8501")[1].value, "0")
    t.eq(#items(5000, "default-b-8501"), 0)
    box:append(store, access(2, "default-b-8501"), 5010)
    t.eq(#items(5011, "default-b-8501"), 0)
    t.eq(items(5060, "default-b-8501")[1].value, "0")
    box:close()
  end)
end)

t.test("the_adapters_failures_are_the_api_servers", function()
  with_dir(function(dir)
    local box = logs.open(dir .. "/sls.db", silent)
    local ctx = world(box, 1000)
    local function refused(metric, labels, code, pattern)
      local status, object = ask(ctx, metric, labels)
      t.eq({ status, object.kind }, { code, "Status" })
      t.match(object.message, pattern)
    end
    refused("no_such_metric", selector "x", 404, "no_such_metric")
    refused("sls_ingress_qps", "sls.logstore=nginx-ingress", 500, "sls.project must be provided")
    refused("sls_ingress_qps", "sls.project=other,sls.logstore=nginx-ingress", 500, "ProjectNotExist")
    refused("sls_ingress_qps", "sls.project=k8s-log-x,sls.logstore=other", 500, "LogStoreNotExist")
    refused("sls_alb_ingress_qps", selector "x", 500, "slb_pool_name.*is not config as key value config")
    refused("sls_ingress_qps", "sls.project in (a)", 400, "unable to parse requirement")
    t.eq((ask(world(box, 1000, true), "sls_ingress_qps", selector "x")), 404)
    t.eq(select(2, adapter.answer(ctx, "/apis/external.metrics.k8s.io/v1beta1", {})).groupVersion, "external.metrics.k8s.io/v1beta1")
    box:close()
  end)
end)

t.test("values_are_filtered_to_digits_and_dots", function()
  t.eq({ adapter.value "79", adapter.value "null", adapter.value "1.0E-4", adapter.value "12.9" }, { 79, 0, 1, 12 })
  t.ok(sls.get_logs)
end)
