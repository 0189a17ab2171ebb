-- SPDX-License-Identifier: Apache-2.0
-- The log service's client: both calls, both signatures, pages, and answers that are not complete yet.
local t = require "eirun.test"
local fake = require "lib_fake"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local sls = require "eirun.sls"

local function ask(more)
  local given = { project = "k8s-log-c1", logstore = "nginx-ingress", from = 1000, to = 2000, query = "*" }
  for key, value in pairs(more or {}) do given[key] = value end
  return given
end

t.test("version_1_has_its_parameters_in_the_query", function()
  fake.with(function() return 200, '[{"a":"1"}]', { ["x-log-progress"] = "Complete" } end, function(_, seen)
    local rows, complete = sls.query(ask { line = 5, offset = 10, reverse = true })
    t.eq({ rows[1].a, complete }, { "1", true })
    t.eq({ seen[1].method, seen[1].path }, { "GET", "/logstores/nginx-ingress" })
    t.eq(seen[1].query, { type = "log", from = "1000", to = "2000", query = "*", line = "5", offset = "10", reverse = "true" })
    t.match(seen[1].headers:get "authorization", "^SLS4%-HMAC%-SHA256 Credential=id/")
    t.eq(seen[1].headers:get "host", "k8s-log-c1.cn-hangzhou.log.aliyuncs.com")
  end)
end)

t.test("version_2_has_them_in_a_body", function()
  fake.with(function() return 200, '{"meta":{"progress":"Complete"},"data":[{"a":"1"}]}' end, function(_, seen)
    local rows, complete = sls.query(ask { api = "v2", signature = "v1" })
    t.eq({ rows[1].a, complete }, { "1", true })
    t.eq({ seen[1].method, seen[1].path }, { "POST", "/logstores/nginx-ingress/logs" })
    t.eq(seen[1].json(), { from = 1000, to = 2000, query = "*" })
    t.match(seen[1].headers:get "authorization", "^LOG id:")
    t.eq(seen[1].headers:get "x-log-bodyrawsize", tostring(#seen[1].body))
    t.match(seen[1].headers:get "content-md5", "^%u?[%u%d]+$")
  end)
end)

t.test("an_incomplete_answer_is_asked_for_again", function()
  for _, api in ipairs { "v1", "v2" } do
    fake.with(function(_, n)
      local progress = n < 3 and "Incomplete" or "Complete"
      if api == "v1" then return 200, json.encode(json.array { { n = tostring(n) } }), { ["x-log-progress"] = progress } end
      return 200, { meta = { progress = progress }, data = { { n = tostring(n) } } }
    end, function(_, seen)
      local rows, complete = sls.query(ask { api = api })
      t.eq({ rows[1].n, complete, #seen }, { "3", true, 3 })
    end)
  end
end)

t.test("one_that_stays_incomplete_is_said_to_be_so", function()
  fake.with(function() return 200, "[]", { ["x-log-progress"] = "Incomplete" } end, function(_, seen)
    local _, complete = sls.query(ask { timeout = 0.5 })
    t.eq(complete, false)
    t.ok(#seen >= 2)
  end)
end)

t.test("a_search_is_read_page_by_page_and_sql_is_not", function()
  fake.with(function(call)
    local from, rows = tonumber(call.query.offset or 0), json.array {}
    for i = from + 1, math.min(from + tonumber(call.query.line or 100), 250) do rows[#rows + 1] = { i = tostring(i) } end
    return 200, json.encode(rows)
  end, function(_, seen)
    t.eq({ #sls.all(ask()), #seen }, { 250, 3 })
    t.eq(#sls.all(ask { limit = 120 }), 120)
    t.eq(seen[5].query.line, "20")
    sls.all(ask { query = "* | SELECT count(1)" })
    t.eq(seen[6].query.line, nil)
    t.eq(#sls.all(ask { query = '"a | b"', limit = 3 }), 3)
  end)
end)

t.test("a_refusal_says_what_to_do", function()
  fake.with(function() return 400, { errorCode = "IndexConfigNotExist", errorMessage = "logstore without index" },
    { ["x-log-requestid"] = "L-1" } end, function()
    local err = t.err("not_found", function() sls.query(ask()) end)
    t.eq({ err.code, err.request_id, err.object }, { "IndexConfigNotExist", "L-1", "logstore 'k8s-log-c1/nginx-ingress'" })
    t.match(err.hint, "make an index")
  end)
  fake.with(function(_, n)
    if n == 1 then return 403, { errorCode = "ReadQuotaExceed", errorMessage = "slow down" } end
    return 200, "[]"
  end, function(_, seen)
    sls.query(ask())
    t.eq(#seen, 2)
  end)
end)

t.test("eirun_sls_query_prints_what_a_sandbox_logged", function()
  local program, folder = fs.realpath("/proc/self/exe"), assert(fs.mkdtemp "/tmp/eirun-cli-")
  local function run(...)
    local words = { program, "sls", "--sandbox=" .. folder .. "/sandbox", "query", "k8s-log-c210fbedb96674b9eaf15f2dc47d169a8", ... }
    words.timeout = 60
    return assert(process.run(words))
  end
  local counted = run("nginx-ingress", "* | SELECT count(1) AS n", "-o", "json")
  t.eq(counted.code, 0, counted.stderr)
  t.eq(counted.stdout, "[]\n")
  for _, words in ipairs { { "--api", "v1", "--signature", "v1" }, { "--api", "v2", "--signature", "v1" }, { "--api", "v1" } } do
    t.eq(run("nginx-ingress", "* | SELECT count(1) AS n", table.unpack(words)).code, 0)
  end
  local gone = run("nothing")
  t.eq(gone.code, 1)
  t.match(gone.stderr, "cannot query logstore '.*/nothing'.*LogStoreNotExist.*is log collection")
  t.match(run("nginx-ingress", "*", "--from", "yesterday").stderr, "%-%-from is 15m")
  t.match(run("nginx-ingress", "*", "--from", "now").stderr, "not before")
  t.eq(run("nginx-ingress", "*", "--from", "2026-01-02T03:04:05Z", "-o", "csv").stdout, "\r\n")
  fs.remove(folder, { recursive = true })
end)

