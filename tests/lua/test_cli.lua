-- SPDX-License-Identifier: Apache-2.0
-- The command line as a user meets it: the program itself is run.
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local t = require "eirun.test"

local program = fs.realpath("/proc/self/exe")

local function eirun(...)
  local run = { program, ... }
  run.timeout = 60
  return assert(process.run(run))
end

local function scratch()
  local dir = assert(fs.mkdtemp("/tmp/eirun-cli-"))
  return setmetatable({ path = dir }, {
    __close = function()
      fs.remove(dir, { recursive = true })
    end,
  })
end

local function playbook(dir, text)
  local path = dir.path .. "/book.lua"
  assert(fs.write(path, text, { mode = 384 }))
  return path
end

t.test("a_misspelt_option_is_named_before_the_word_that_follows_it", function()
  local run = eirun("--outpt", "jsonl", "playbooks/bert.lua")
  t.eq(run.code, 64)
  t.match(run.stderr, "unknown option '%-%-outpt', did you mean '%-%-output'")
end)

t.test("a_cluster_that_is_not_on_this_machine_is_refused_with_3", function()
  local dir <close> = scratch()
  local path = playbook(dir, "return require('eirun.play').book { name = 'x', run = function() end }")
  assert(fs.write(dir.path .. "/config", [[
apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "https://192.0.2.1:6443"}}]
users: [{name: a, user: {token: abc}}]
]], { mode = 384 }))
  local run = eirun("--sandbox=" .. dir.path .. "/sb", "--kubeconfig", dir.path .. "/config", path)
  t.eq(run.code, 3, run.stderr)
  t.match(run.stderr, "will not touch the cluster")
end)

t.test("a_directory_that_another_program_holds_is_not_served_and_the_exit_code_is_75", function()
  local dir <close> = scratch()
  local lock <close> = assert(fs.lock(dir.path .. "/lock"))
  local path = playbook(dir, "return require('eirun.play').book { name = 'x', run = function() end }")
  for _, run in ipairs { eirun("sandbox", "serve", dir.path), eirun("--sandbox=" .. dir.path, path) } do
    t.eq(run.code, 75, run.stderr .. run.stdout)
  end
  t.ok(lock)
end)

t.test("no_arguments_show_the_overview_and_exit_64", function()
  local run = eirun()
  t.eq(run.code, 64)
  t.match(run.stderr, "usage: eirun")
end)

t.test("help_names_every_verb", function()
  local run = eirun("--help")
  t.eq(run.code, 0)
  for _, verb in ipairs(require("eirun.cli.verbs").all()) do
    t.match(run.stdout, "\n  " .. verb.name)
  end
end)

t.test("a_misspelt_verb_is_named_with_the_nearest", function()
  local run = eirun("versoin")
  t.eq(run.code, 64)
  t.match(run.stderr, "did you mean 'version'")
end)

t.test("a_playbook_without_a_path_is_told_how_to_name_it", function()
  local run = eirun("bert")
  t.eq(run.code, 64)
  t.match(run.stderr, "%./bert%.lua")
end)

t.test("swapped_letters_are_one_mistake", function()
  t.match(eirun("tset").stderr, "did you mean 'test'")
end)

t.test("options_without_a_playbook_ask_for_one", function()
  local run = eirun("--sandbox")
  t.eq(run.code, 64)
  t.match(run.stderr, "run which playbook")
end)

t.test("a_wrong_threshold_on_the_command_line_is_wrong_usage", function()
  local run = eirun("load", "http://127.0.0.1:1/", "--rate", "1", "-t", "p95<250")
  t.eq(run.code, 64)
  t.match(run.stderr, "p95<250\n +%^")
end)

t.test("a_misspelt_option_is_named_with_the_nearest", function()
  local run = eirun("run", "--quite", "x.lua")
  t.eq(run.code, 64)
  t.match(run.stderr, "'%-%-quite', did you mean '%-%-quiet'")
end)

t.test("a_wrong_option_value_says_what_fits", function()
  local run = eirun("run", "--output", "xml", "x.lua")
  t.eq(run.code, 64)
  t.match(run.stderr, "text or jsonl")
end)

t.test("a_sandbox_goes_on_at_its_own_date_whatever_the_clock", function()
  local dir <close> = scratch()
  for _, kind in ipairs { "virtual", "real", "10x", "virtual" } do
    local run = eirun("oss", "ls", "--sandbox=" .. dir.path .. "/box", "--clock", kind)
    t.eq(run.code, 0, run.stderr)
    t.match(run.stderr, "clock at 2026%-01%-05T08:0")
  end
end)

t.test("a_missing_playbook_is_an_error_with_its_path", function()
  local run = eirun("./nowhere.lua")
  t.ok(run.code ~= 0)
  t.match(run.stderr, "nowhere.lua")
end)

t.test("completion_scripts_are_valid_shell", function()
  local script = eirun("completion", "bash").stdout
  local checked = process.run { "bash", "-n", stdin = script, timeout = 20 }
  t.eq(checked.code, 0, checked.stderr)
end)

t.test("arguments_show_type_default_and_help", function()
  local dir <close> = scratch()
  local path = playbook(dir, [[
    local play = require "eirun.play"
    return play.book { name = "x", about = "says x", args = {
      who = play.string { default = "you", help = "whom" }, n = play.integer { required = true, help = "how many" } },
      run = function() end }
  ]])
  local run = eirun(path, "--help")
  t.eq(run.code, 0)
  t.match(run.stdout, "says x")
  t.match(run.stdout, "who=TEXT.-whom %(default: you%)")
  t.match(run.stdout, "n=N.-how many %(required%)")
end)

t.test("vars_tell_where_each_value_came_from", function()
  local dir <close> = scratch()
  local path = playbook(dir, [[
    local play = require "eirun.play"
    return play.book { name = "x", args = { a = play.integer { default = 1 }, b = play.integer { default = 1 },
      c = play.integer { default = 1 } },
      run = function() end }
  ]])
  fs.mkdir(dir.path .. "/env")
  fs.write(dir.path .. "/env/prod.lua", "return { b = 2, c = 2 }")
  local lines = {}
  for line in eirun("vars", path, "--env", "prod", "--output", "jsonl", "c=3").stdout:gmatch("[^\n]+") do
    lines[#lines + 1] = json.decode(line)
  end
  t.eq(lines[1], { name = "a", value = 1, source = "default" })
  t.eq(lines[2], { name = "b", value = 2, source = dir.path .. "/env/prod.lua" })
  t.eq(lines[3], { name = "c", value = 3, source = "command line" })
end)

t.test("an_unknown_argument_is_refused_with_the_nearest", function()
  local dir <close> = scratch()
  local path = playbook(dir, [[
    local play = require "eirun.play"
    return play.book { name = "x", args = { cluster = play.string {} }, run = function() end }
  ]])
  local run = eirun("vars", path, "clutser=c1")
  t.eq(run.code, 64)
  t.match(run.stderr, "no argument 'clutser', did you mean 'cluster'")
end)

t.test("check_finds_undefined_globals_unknown_fields_and_unused_arguments", function()
  local dir <close> = scratch()
  local path = playbook(dir, [[
local play = require "eirun.play"
local ack = require "eirun.ack"
return play.book { name = "x", args = { unused = play.string { default = "" }, cluster = play.string {} },
  run = function(p, arg)
    p:step("pool", function()
      return ack.cluster(arg.cluster):ensure_node_pool { name = "gpu", instance_tpyes = { "ecs.gn6i-c4g1.xlarge" } }
    end)
    if arg.cluster == "never" then
      pritn("typo")
    end
  end }
  ]])
  local run = eirun("check", path)
  t.eq(run.code, 1)
  t.match(run.stdout, "book.lua:9: undefined variable 'pritn', did you mean 'print'")
  t.eq(select(2, run.stdout:gsub("pritn", "")), 1, "told once")
  t.match(run.stdout, "unknown field 'instance_tpyes', did you mean 'instance_types'")
  t.match(run.stdout, "book.lua:5: ensure_node_pool") -- a tail call: the line that called the step
  t.match(run.stdout, "argument 'unused' is never used")
end)

-- A playbook that uses what steps before have made, with one word of it misspelt.
local function misspelt(dir, right, wrong)
  local text = [[
local play = require "eirun.play"
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local serve = require "eirun.serve"
return play.book { name = "x",
  run = function(p)
    local k8s = kube.connect(ack.cluster()):namespace("a"):ensure_namespace("a")
    oss.bucket("models"):ensure_tree { from = "here", to = "there" }
    ack.cluster():ensure_node_pool { name = "gpu", instance_types = { "ecs.gn6i-c4g1.xlarge" },
      spot = { on_demand_percent = 30 } }
    local app = serve.ensure_tensorflow(k8s, { name = "a", model_name = "m", model_path = "/m", image = "i", data = { claim = "/m" } })
    local hpa = k8s:ensure_hpa { name = "h", target = app, max = 2, external = { metric = "qps", average = 1, selector = { a = "b" } } }
    local web = k8s:ensure_ingress { name = "w", service = app, port = app.port }
    hpa:wait_metric()
    p:report { url = web:url() }
  end }
  ]]
  return playbook(dir, (text:gsub(right:gsub("%p", "%%%0"), wrong, 1)))
end

t.test("check_follows_what_the_library_would_have_made", function()
  local dir <close> = scratch()
  local clean = eirun("check", misspelt(dir, "local", "local"))
  t.eq(clean.code, 0, clean.stdout)
  for _, case in ipairs {
    { "from =", "form =", "unknown field 'form', did you mean 'from'" },
    { "on_demand_percent", "on_demand_percnt", "did you mean 'on_demand_percent'" },
    { "max = 2, external", "mx = 2, external", "book.lua:13: ensure_hpa: unknown field 'mx'" },
    { "metric =", "metrik =", "ensure_hpa.external: unknown field 'metrik'" },
    { "service =", "servce =", "ensure_ingress: unknown field 'servce'" },
    { ":ensure_ingress", ":ensure_ingres", "has no field 'ensure_ingres'" },
    { "app.port", "app.prt", "app: has no field 'prt', did you mean 'port'" },
    { "wait_metric", "wait_metrc", "did you mean 'wait_metric'" },
    { "web:url", "web:ulr", "book.lua:16: web: has no field 'ulr', did you mean 'url'" },
  } do
    local run = eirun("check", misspelt(dir, case[1], case[2]))
    t.eq(run.code, 1, case[2])
    t.ok(run.stdout:find(case[3], 1, true), case[2] .. ": " .. run.stdout)
  end
end)

t.test("a_misspelt_field_of_the_book_is_named_with_its_line", function()
  local dir <close> = scratch()
  local path = playbook(dir, [[
local play = require "eirun.play"
return play.book {
  name = "x",
  abuot = "y",
  run = function() end,
}
]])
  for _, run in ipairs { eirun("--sandbox=" .. dir.path .. "/sb", path), eirun("check", path) } do
    t.eq(run.code, 1)
    t.match(run.stdout .. run.stderr, "book.lua:4: play.book: unknown field 'abuot', did you mean 'about'")
  end
end)

-- Ctrl-C after half a second.
local function interrupted(path, ...)
  return assert(process.run { "timeout", "--foreground", "--preserve-status", "-s", "INT", "0.5", program, path, "--output", "jsonl",
    timeout = 30, ... })
end

t.test("ctrl_c_ends_a_loop_that_waits_for_nothing_and_the_run_is_told_to_its_end", function()
  local dir <close> = scratch()
  for _, body in ipairs { "while true do end", "while true do pcall(function() while true do end end) end",
    "while true do pcall(p.step, p, 'inner', function() while true do end end) end" } do
    local run = interrupted(playbook(dir, ([[
local play = require "eirun.play"
return play.book { name = "x", run = function(p) p:step("spin", function() %s end) end }
]]):format(body)))
    t.eq(run.code, 130, body .. run.stderr)
    t.eq(run.stderr, "", body)
    local last = assert(json.decode(run.stdout:match("([^\n]+)\n$")))
    t.eq({ last.event, last.outcome }, { "run", "cancelled" }, body)
    local failed = 0
    for line in run.stdout:gmatch("[^\n]+") do
      local event = json.decode(line)
      if event.event == "step" then
        t.eq({ event.outcome, event.error.kind }, { "failed", "cancelled" }, body)
        failed = failed + 1
      end
    end
    t.eq(last.failed, failed, body)
  end
end)

t.test("check_shows_a_syntax_error_with_its_line", function()
  local dir <close> = scratch()
  local run = eirun("check", playbook(dir, "local x = \nreturn ("))
  t.eq(run.code, 1)
  t.match(run.stdout, "book.lua:2")
end)

t.test("new_writes_a_playbook_that_checks_clean_and_is_not_overwritten", function()
  local dir <close> = scratch()
  local path = dir.path .. "/mine.lua"
  t.eq(eirun("new", path).code, 0)
  local check = eirun("check", path)
  t.eq(check.code, 0, check.stdout)
  local again = eirun("new", path)
  t.eq(again.code, 1)
  t.match(again.stderr, "%-%-force")
end)

t.test("the_man_page_names_options_and_exit_codes", function()
  local page = eirun("man").stdout
  t.match(page, "%.TH EIRUN 1")
  t.match(page, "kubeconfig")
  t.match(page, "interrupted")
end)

t.test("a_playbook_that_reaches_nothing_needs_no_credentials", function()
  local dir <close> = scratch()
  local path = playbook(dir, [[
    local play = require "eirun.play"
    return play.book { name = "x", run = function(p) p:step("one", function() end) end }
  ]])
  local run = process.run { program, path, clear_env = true, env = { HOME = dir.path }, timeout = 20 }
  t.eq(run.code, 0, run.stderr)
  t.match(run.stdout, "done       one")
end)

t.test("a_real_target_without_credentials_says_what_to_do", function()
  local dir <close> = scratch()
  local path = playbook(dir, [[
    local play = require "eirun.play"
    local ack = require "eirun.ack"
    return play.book { name = "x", run = function() return ack.cluster() end }
  ]])
  local run = process.run { program, path, "--region", "cn-hangzhou", clear_env = true,
    env = { HOME = dir.path, PATH = "/usr/bin:/bin" }, timeout = 20 }
  t.eq(run.code, 1)
  t.match(run.stderr, "ALIBABA_CLOUD_ACCESS_KEY_ID")
end)

t.test("no_test_at_all_is_a_failure_that_says_why", function()
  local dir <close> = scratch()
  assert(fs.write(dir.path .. "/test_a.lua", 'require("eirun.test").test("one", function() end)'))
  local result = eirun("test", dir.path .. "/test_a.lua", dir.path .. "/test_b.lua")
  t.eq(result.code, 1)
  t.eq(result.stdout, ("no tests: none of the 1 in %s has %q in its name\n0 passed, 0 failed, 0 skipped\n"):format(
    dir.path .. "/test_a.lua", dir.path .. "/test_b.lua"))
  assert(fs.remove(dir.path .. "/test_a.lua"))
  result = eirun("test", dir.path)
  t.eq({ result.code, result.stdout },
    { 1, ("no tests: %s holds no file test_*.lua with one\n0 passed, 0 failed, 0 skipped\n"):format(dir.path) })
end)

t.test("the_version_names_what_the_program_is_built_with", function()
  local names = {}
  for name, version in eirun("version").stdout:gmatch "([^\n]+) (%d+%.%d+[%d.]*)\n" do names[#names + 1] = version ~= "" and name end
  t.eq(names, { "eirun", "Lua", "libuv", "llhttp", "libcurl", "OpenSSL", "SQLite", "jansson", "libyaml" })
end)

-- Standard output on a full disk, or on a pipe that nobody reads.
local function out_to(where, words)
  return assert(process.run { "/bin/sh", "-c", '"$0" ' .. words .. where, program, timeout = 60 })
end

t.test("a_verb_whose_output_is_lost_says_so_and_fails", function()
  local dir <close> = scratch()
  local path = playbook(dir, "return require('eirun.play').book { name = 'x', args = { n = require('eirun.play').integer { default = 1 } },"
    .. " run = function(p) p:report { a = 1 } end }")
  assert(fs.write(dir.path .. "/test_one.lua", "require('eirun.test').test('one', function() end)"))
  local box = " --sandbox=" .. dir.path .. "/box "
  local verbs = { "--version", "version", "--help", "help kube", "reference", "man", "completion bash", "check " .. path, "vars " .. path,
    "test " .. dir.path .. "/test_one.lua", "new " .. dir.path .. "/fresh", box .. path, box .. "--output jsonl " .. path,
    "sandbox status " .. dir.path .. "/box", "cloud whoami" .. box, "cloud call cs DescribeClustersV1" .. box, "oss ls" .. box,
    "kube get nodes -o name" .. box, "kube get namespaces" .. box, "kube auth can-i get pods" .. box, "serve list" .. box,
    "doctor " .. path .. box, "load http://127.0.0.1:1/ --rate 1 --dry-run" }
  for _, words in ipairs(verbs) do
    local run = out_to(" > /dev/full", words)
    t.eq(run.code, 1, words .. ": " .. run.stderr)
    local told = select(2, run.stderr:gsub("eirun: cannot write to '/dev/stdout': no space left on device", ""))
    t.eq(told, 1, words .. ": " .. run.stderr)
  end
  local wrong = out_to(" > /dev/full", "check " .. dir.path .. "/none.lua")
  t.eq(wrong.code ~= 0, true)
end)

t.test("a_reader_that_has_seen_enough_is_no_failure", function()
  t.eq(out_to(" | head -n 1 >/dev/null", "reference").stderr, "")
end)
