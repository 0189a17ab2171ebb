-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local analysis = require "sandbox.sls.analysis"
local parser = require "sandbox.sls.parser"
local search = require "sandbox.sls.search"

local function known(name)
  return ({ proxy_upstream_name = true, status = true, request_time = true, method = true, url = true, __time__ = true })[name] or false
end

-- 29 requests of one route in fifteen seconds, 3 of another; the last two of the first failed.
local function sample()
  local records = {}
  for i = 1, 29 do
    records[i] = { __time__ = 100 + i % 15, proxy_upstream_name = "default-bert-8501", status = i > 27 and 503 or 200,
      request_time = i / 1000, method = "POST", url = "/v1/models/bert:predict" }
  end
  for i = 30, 32 do
    records[i] = { __time__ = 101, proxy_upstream_name = "default-bert-8501-canary", status = 200, request_time = 0.5,
      method = "GET", url = "/" }
  end
  return records
end

local function run(text, records)
  local left, sql = search.split(text)
  local predicate, kept = search.compile(left, known), {}
  for _, record in ipairs(records or sample()) do
    if predicate(record) then kept[#kept + 1] = record end
  end
  return (analysis.run(parser.parse(sql), kept, known))
end

local function refused(text)
  local ok, err = pcall(run, text)
  t.ok(not ok, "was accepted: " .. text)
  t.eq(err.code, "ParameterInvalid")
  return err.message
end

t.test("the_adapters_query_divides_whole_numbers", function()
  local rows = run("* and proxy_upstream_name: default-bert-8501 | SELECT count(1) / 15 as value from log "
    .. "WHERE __time__ >= 100  and __time__ < 115")
  t.eq(rows, { { value = "1" } })
end)

t.test("floating_point_division_is_asked_for_by_1_0", function()
  t.eq(run '* and proxy_upstream_name: "default-bert-8501" | select count(1)*1.0/16 as qps where __time__ < 200', { { qps = "1.8125" } })
end)

t.test("eiruns_own_query_gives_rate_percentile_and_errors", function()
  local rows = run('* and proxy_upstream_name: "default-bert-8501" | SELECT count(1)*1.0/15 as qps, '
    .. "approx_percentile(request_time,0.99)*1000 as p99, "
    .. "sum(case when status >= 500 then 1 else 0 end)*1.0/count(1) as err FROM log WHERE __time__ >= 100 and __time__ < 115")
  t.eq(#rows, 1)
  t.ok(math.abs(tonumber(rows[1].qps) - 29 / 15) < 1e-9)
  t.ok(math.abs(tonumber(rows[1].p99) - 29) < 1e-9)
  t.ok(math.abs(tonumber(rows[1].err) - 2 / 29) < 1e-9)
end)

t.test("groups_are_counted_and_sorted", function()
  local rows = run "* | SELECT proxy_upstream_name, count(1) as n GROUP BY proxy_upstream_name ORDER BY n DESC LIMIT 20"
  t.eq(rows, { { proxy_upstream_name = "default-bert-8501", n = "29" }, { proxy_upstream_name = "default-bert-8501-canary", n = "3" } })
  t.eq(run "* | select method, count(*) as c group by method order by c limit 1", { { method = "GET", c = "3" } })
end)

t.test("grouping_by_an_expression_and_by_alias", function()
  local rows = run "* | select __time__ - __time__ % 5 as slot, count(1) as n group by slot order by slot"
  t.eq(rows[1], { slot = "100", n = "12" })
  t.eq(#rows, 3)
end)

t.test("an_aggregate_over_nothing_is_one_row", function()
  t.eq(run('* | select count(1) / 15 as value, avg(request_time) as a from log where __time__ > 500'), { { value = "0", a = "null" } })
  t.eq(run('* | select method, count(1) as n from log where __time__ > 500 group by method'), {})
end)

t.test("averages_are_doubles_and_print_as_such", function()
  t.eq(run("* and method: GET | select avg(request_time) * 1000 as ms, sum(status) as s, max(status) as m"), {
    { ms = "500.0", s = "600", m = "200" } })
end)

t.test("search_terms_combine", function()
  t.eq(run('method: POST and status: 503 | select count(1) as n'), { { n = "2" } })
  t.eq(run('method: GET or status >= 500 | select count(1) as n'), { { n = "5" } })
  t.eq(run('not method: POST | select count(1) as n'), { { n = "3" } })
  t.eq(run('(method: GET or method: POST) and status < 300 | select count(1) as n'), { { n = "30" } })
  t.eq(run('proxy_upstream_name: default-bert* | select count(1) as n'), { { n = "32" } })
  t.eq(run('url: predict | select count(1) as n'), { { n = "29" } })
end)

t.test("a_route_matches_whole_words_only", function()
  t.eq(run('proxy_upstream_name: default-bert | select count(1) as n'), { { n = "0" } })
end)

t.test("unknown_things_are_refused_by_name", function()
  t.match(refused '* | select histogram(status) from log', "histogram is not supported")
  t.match(refused '* | select count(1) from other', "only FROM log")
  t.match(refused '* | select slb_pool_name, count(1) group by slb_pool_name', "slb_pool_name.* is not config as key value config")
  t.match(refused 'slb_pool_name: x | select count(1)', "is not config as key value config")
  t.match(refused '* | select method, count(1) from log', "must be an aggregate expression or appear in GROUP BY")
  t.match(refused '* | select count(1) from log union select 1', "not supported")
  t.match(refused "* | select 'abc", "unfinished quote")
  t.match(refused '* | select count(1) / 0 as v from log', "Division by zero")
  t.match(refused '* | selec count(1)', "expected 'select'")
  refused '* | select'
  refused '* | select count(1'
  refused '* | select sum(method) from log where method + 1 = 2'
end)

t.test("random_text_never_crashes_the_parser", function()
  local draw = require("sandbox.rng").stream "sls fuzz"
  local parts = { "select", "count(1)", "(", ")", "*", "/", "15", "'a'", '"b"', "case", "when", "end", "and", "or", "not", ",", "from log",
    "where", "__time__", ">=", "group by", "order by", "limit", "1.5e3", "is null", "in (1,2)", "status", ";", "\0", "|" }
  for _ = 1, 2000 do
    local text = { "select" }
    for i = 2, draw(2, 9) do text[i] = parts[draw(#parts)] end
    local ok, err = pcall(function() return analysis.run(parser.parse(table.concat(text, " ")), sample(), known) end)
    t.ok(ok or (type(err) == "table" and err.code == "ParameterInvalid"), table.concat(text, " ") .. " -> " .. tostring(err))
  end
end)
