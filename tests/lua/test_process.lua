-- SPDX-License-Identifier: Apache-2.0
local os_facts = require "eirun.core.os"
local process = require "eirun.core.process"
local secret = require "eirun.core.secret"
local t = require "eirun.test"
local task = require "eirun.task"
local term = require "eirun.core.term"

local function shell(script, options)
  options = options or {}
  options[1], options[2], options[3] = "/bin/sh", "-c", script
  return process.run(options)
end

-- A zombie that nobody reaps yet is dead.
local function is_alive(pid)
  return shell("ps -o stat= -p " .. pid).stdout:match "^[^Z]" ~= nil
end

t.test("arguments_arrive_unchanged_without_a_shell", function()
  local result = assert(process.run { "printf", "%s|", "a b", "$HOME", "*", "" })
  t.eq(result, { code = 0, stdout = "a b|$HOME|*||", stderr = "" })
end)

t.test("exit_code_and_signal_are_told_apart", function()
  t.eq(shell("exit 3").code, 3)
  t.eq(shell("exit 3").signal, nil)
  local killed = shell "kill -9 $$"
  t.eq(killed.signal, 9)
  t.eq(killed.code, 137)
end)

t.test("outputs_are_kept_apart", function()
  local result = shell "echo out; echo err >&2"
  t.eq(result.stdout, "out\n")
  t.eq(result.stderr, "err\n")
end)

t.test("input_of_any_size_is_fed", function()
  local bytes = ("0123456789"):rep(100000)
  t.ok(process.run({ "cat", stdin = bytes }).stdout == bytes)
  t.eq(process.run({ "cat", stdin = secret.new "hidden" }).stdout, "hidden")
  t.eq(process.run({ "cat" }).stdout, "")
end)

t.test("child_that_does_not_read_its_input_is_no_error", function()
  t.eq(process.run({ "true", stdin = ("x"):rep(1 << 20) }).code, 0)
end)

t.test("environment_is_added_to_or_replaced", function()
  t.eq(shell('echo "$A:${PATH:+path}"', { env = { A = "1" } }).stdout, "1:path\n")
  t.eq(shell('echo "$A:$B:$HOME"', { env = { A = "1", B = secret.new "2" }, clear_env = true }).stdout, "1:2:\n")
  t.eq(shell('echo "$PATH"', { env = { PATH = "/bin" } }).stdout, "/bin\n")
end)

t.test("working_directory_is_set", function()
  t.eq(process.run({ "pwd", cwd = "/" }).stdout, "/\n")
end)

t.test("program_that_is_not_there_is_not_found", function()
  local _, err = process.run { "eirun-no-such-program" }
  t.eq(err.kind, "not_found")
  t.eq(err.message, "cannot run 'eirun-no-such-program': no such file or directory")
end)

t.test("time_out_ends_the_child_and_what_it_started", function()
  local result, err, outcome = shell("sleep 60 & echo $!; wait", { timeout = 0.2 })
  t.eq(result, nil)
  t.eq(err.kind, "timeout")
  t.match(err.message, "'/bin/sh' did not end within 0%.2 s")
  t.eq(outcome, nil)
  t.eq(is_alive(err.stdout:match "%d+"), false)
end)

t.test("cancel_ends_and_reaps_the_child", function()
  local from = os_facts.monotonic()
  local err = t.err("timeout", task.timeout, 0.1, function()
    shell "sleep 60"
  end)
  t.eq(err.kind, "timeout")
  t.ok(os_facts.monotonic() - from < 4)
  t.eq(shell("ps -o stat= --ppid " .. process.pid() .. " | grep -c Z").stdout, "0\n")
end)

t.test("output_beyond_the_maximum_ends_the_child", function()
  local _, err = process.run { "yes", max_output = 10000 }
  t.eq(err.kind, "quota")
  t.match(err.message, "'yes' wrote more than 10000 bytes to its standard output")
end)

t.test("grandchild_that_keeps_the_pipe_does_not_keep_the_caller", function()
  local from = os_facts.monotonic()
  local result = assert(shell "sleep 20 & echo hi")
  t.eq(result.stdout, "hi\n")
  t.ok(os_facts.monotonic() - from < 10)
end)

t.test("many_children_at_once", function()
  local results = task.map({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, function(i)
    return assert(process.run { "echo", tostring(i) }).stdout
  end)
  t.eq(table.concat(results), "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n")
end)

t.test("misuse_of_run_raises", function()
  t.err("program's name", process.run, {})
  t.err("must be a string", process.run, { "echo", 5 })
  t.err("did you mean 'timeout'", process.run, { "echo", time_out = 5 })
  t.err("NUL", process.run, { "echo", "a\0b" })
  t.err("without NUL", process.run, { "echo", env = { A = "a\0b" } })
end)

t.test("facts_of_machine_and_terminal_have_their_types", function()
  t.eq(os_facts.getenv "EIRUN_NO_SUCH_VARIABLE", nil)
  t.eq(os_facts.environ().PATH, os_facts.getenv "PATH")
  t.eq(math.type(os_facts.uid()), "integer")
  t.ok(os_facts.cpu_count() >= 1)
  t.ok(os_facts.rss() > 1 << 20)
  t.ok(#os_facts.hostname() > 0)
  t.eq(math.type(term.width(99)), "integer")
  t.eq(term.isatty(99), false)
  local _, err = term.write(99, "x")
  t.match(err.message, "^cannot write to")
end)
