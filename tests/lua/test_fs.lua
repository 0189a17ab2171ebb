-- SPDX-License-Identifier: Apache-2.0
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local t = require "eirun.test"
local task = require "eirun.task"

-- A directory of its own for each test.
local function with_dir(name, body)
  t.test(name, function()
    local dir = assert(fs.mkdtemp "/tmp/eirun-test-fs-")
    local ok, err = pcall(body, dir)
    fs.remove(dir, { recursive = true })
    if not ok then error(err, 0) end
  end)
end

with_dir("write_and_read_back_with_the_mode_asked_for", function(dir)
  t.eq(fs.write(dir .. "/a", "one\0two"), true)
  t.eq(fs.read(dir .. "/a"), "one\0two")
  t.eq(fs.stat(dir .. "/a").mode, 384) -- 0600
  assert(fs.write(dir .. "/b", "x", { mode = 420 })) -- 0644, whatever the umask
  t.eq(fs.stat(dir .. "/b").mode, 420)
end)

with_dir("an_atomic_write_leaves_nothing_beside_it", function(dir)
  for _ = 1, 3 do assert(fs.write(dir .. "/a", ("x"):rep(1000))) end
  assert(fs.write(dir .. "/a", "y", { durable = false }))
  t.eq(fs.list(dir), { "a" })
  t.eq(fs.read(dir .. "/a"), "y")
end)

with_dir("extend_adds_ranges_of_other_files", function(dir)
  local bytes = ("0123456789abcdef"):rep(1 << 16) -- 1 MiB: on the thread pool
  assert(fs.write(dir .. "/a", bytes, { atomic = false }))
  assert(fs.write(dir .. "/b", "tail", { atomic = false }))
  t.eq(fs.extend(dir .. "/to", dir .. "/a"), true)
  t.eq(fs.extend(dir .. "/to", dir .. "/b", 1, 2), true)
  t.eq(fs.extend(dir .. "/to", dir .. "/b", 3, 100), true)
  t.eq(fs.extend(dir .. "/to", dir .. "/b", 10), true)
  t.ok(fs.read(dir .. "/to") == bytes .. "ai" .. "l", "other bytes")
  t.match(select(2, fs.extend(dir .. "/to", dir .. "/none")).message, "^cannot extend '.*/to': no such file")
end)

with_dir("a_failed_atomic_write_keeps_the_old_content", function(dir)
  assert(fs.mkdir(dir .. "/a"))
  assert(fs.write(dir .. "/a/kept", "old"))
  local ok, err = fs.write(dir .. "/a", "new") -- a directory is in the way
  t.eq(ok, nil)
  t.match(err.message, "^cannot replace '" .. dir:gsub("%p", "%%%0") .. "/a': ")
  t.eq(fs.list(dir), { "a" })
  t.eq(fs.read(dir .. "/a/kept"), "old")
end)

with_dir("errors_name_the_file_and_the_reason", function(dir)
  local text, err = fs.read(dir .. "/missing")
  t.eq(text, nil)
  t.eq(err.kind, "not_found")
  t.eq(err.message, "cannot open '" .. dir .. "/missing': no such file or directory")
  local _, err2 = fs.read(dir)
  t.eq(err2.message, "cannot read '" .. dir .. "': illegal operation on a directory")
  local _, err3 = fs.rename(dir .. "/missing", dir .. "/b")
  t.eq(err3.message, "cannot rename '" .. dir .. "/missing' to '" .. dir .. "/b': no such file or directory")
end)

with_dir("read_refuses_more_than_its_maximum", function(dir)
  assert(fs.write(dir .. "/a", "12345"))
  t.eq(fs.read(dir .. "/a", 5), "12345")
  local text, err = fs.read(dir .. "/a", 4)
  t.eq(text, nil)
  t.eq(err.kind, "quota")
end)

with_dir("append_adds_at_the_end", function(dir)
  assert(fs.append(dir .. "/log", "a\n"))
  assert(fs.append(dir .. "/log", "b\n"))
  t.eq(fs.read(dir .. "/log"), "a\nb\n")
  t.eq(fs.stat(dir .. "/log").mode, 384)
end)

with_dir("list_is_sorted_by_bytes", function(dir)
  for _, name in ipairs { "b", "a", "B", ".hidden", "a10", "a2" } do assert(fs.write(dir .. "/" .. name, "")) end
  t.eq(fs.list(dir), { ".hidden", "B", "a", "a10", "a2", "b" })
end)

with_dir("stat_says_what_a_path_is", function(dir)
  assert(fs.write(dir .. "/f", "abc"))
  local st = fs.stat(dir .. "/f")
  t.eq({ st.type, st.size, math.type(st.ino) }, { "file", 3, "integer" })
  t.ok(st.mtime > 1e9)
  t.eq(fs.stat(dir).type, "directory")
  local none, err = fs.stat(dir .. "/none")
  t.eq({ none, err.kind }, { nil, "not_found" })
end)

with_dir("mkdir_with_parents_is_content_with_what_exists", function(dir)
  assert(fs.mkdir(dir .. "/a/b/c", { parents = true }))
  assert(fs.mkdir(dir .. "/a/b/c", { parents = true }))
  t.eq(fs.stat(dir .. "/a/b/c").mode, 448) -- 0700
  local ok, err = fs.mkdir(dir .. "/a")
  t.eq({ ok, err.kind }, { nil, "conflict" })
  assert(fs.write(dir .. "/file", ""))
  t.eq((fs.mkdir(dir .. "/file/sub", { parents = true })), nil)
end)

with_dir("remove_takes_a_tree_but_never_follows_a_link", function(dir)
  assert(fs.mkdir(dir .. "/keep"))
  assert(fs.write(dir .. "/keep/file", "x"))
  assert(fs.mkdir(dir .. "/tree/deep/deeper", { parents = true }))
  assert(fs.write(dir .. "/tree/deep/f", "x"))
  assert(require("eirun.core.process").run { "ln", "-s", dir .. "/keep", dir .. "/tree/deep/link" })
  local ok, err = fs.remove(dir .. "/tree")
  t.eq({ ok, err.message }, { nil, "cannot remove '" .. dir .. "/tree': directory not empty" })
  assert(fs.remove(dir .. "/tree", { recursive = true }))
  t.eq(fs.list(dir), { "keep" })
  t.eq(fs.read(dir .. "/keep/file"), "x")
  local gone, why = fs.remove(dir .. "/tree", { recursive = true })
  t.eq({ gone, why.kind }, { nil, "not_found" })
end)

with_dir("digest_of_a_file_and_of_a_range", function(dir)
  local text = ("0123456789"):rep(100000) -- long enough for the thread pool
  assert(fs.write(dir .. "/a", text, { durable = false }))
  local all = assert(fs.digest(dir .. "/a", { "md5", "sha256", "crc64" }))
  t.eq(all, { size = #text, md5 = crypto.md5(text), sha256 = crypto.sha256(text), crc64 = crypto.crc64(text) })
  local part = assert(fs.digest(dir .. "/a", { "md5" }, 5, 12))
  t.eq(part, { size = 12, md5 = crypto.md5 "567890123456" })
  t.eq(fs.digest(dir .. "/a", { "md5" }, #text - 3, 100).size, 3)
  t.err("is not one of", fs.digest, dir .. "/a", { "md4" })
end)

with_dir("large_files_go_through_the_thread_pool_while_other_tasks_run", function(dir)
  local text = ("x"):rep(8 << 20)
  local turns, done = 0, false
  task.together(function(all)
    all(function()
      while not done do
        turns = turns + 1
        task.sleep(0)
      end
    end)
    assert(fs.write(dir .. "/a", text, { durable = false }))
    t.eq(#fs.read(dir .. "/a"), #text)
    done = true
  end)
  t.ok(turns > 1)
end)

with_dir("a_cancelled_read_raises_and_leaks_nothing", function(dir)
  assert(fs.write(dir .. "/a", ("x"):rep(8 << 20), { durable = false }))
  t.err("timeout", task.timeout, 0, fs.read, dir .. "/a")
  t.err("timeout", task.timeout, 0, fs.digest, dir .. "/a", { "sha256" })
end)

with_dir("a_lock_says_who_holds_it", function(dir)
  local lock <close> = assert(fs.lock(dir .. "/lock"))
  local second, err = fs.lock(dir .. "/lock")
  t.eq({ second, err.kind }, { nil, "conflict" })
  t.ok(err.holder.pid > 0)
  t.match(err.holder.since, "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$")
  t.match(err.message, "is locked by process " .. err.holder.pid .. " on ")
  lock:close()
  local third = assert(fs.lock(dir .. "/lock"))
  third:close()
  third:close()
end)

with_dir("realpath_resolves", function(dir)
  assert(fs.mkdir(dir .. "/a"))
  t.eq(fs.realpath(dir .. "/a/../a/."), fs.realpath(dir) .. "/a")
  t.eq((fs.realpath(dir .. "/none")), nil)
end)

with_dir("secrets_can_be_written_and_unknown_options_are_refused", function(dir)
  local secret = require("eirun.core.secret").new "s3cret"
  assert(fs.write(dir .. "/key", secret))
  t.eq(fs.read(dir .. "/key"), "s3cret")
  t.err("did you mean 'atomic'", fs.write, dir .. "/key", "x", { atomc = true })
  t.err("NUL", fs.read, "a\0b")
end)
