-- SPDX-License-Identifier: Apache-2.0
-- How identities age while a program runs: token files, plug-ins, and kubeconfigs that are issued for some minutes.
local ack = require "eirun.ack"
local auth = require "eirun.kube.auth"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local kube = require "eirun.kube"
local secret = require "eirun.core.secret"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"
local wire = require "eirun.wire"

local function with_folder(fn)
  return function()
    local folder = assert(fs.mkdtemp "/tmp/eirun-test-identity-")
    local ok, err = pcall(fn, folder)
    fs.remove(folder, { recursive = true })
    if not ok then error(err, 0) end
  end
end

-- Secrets do not show what they hold: their digests are compared.
local function is(token, text)
  local crypto = require "eirun.core.crypto"
  return crypto.hmac_sha256(token, "x") == crypto.hmac_sha256(secret.new(text), "x")
end

t.test("a_token_file_is_read_again_after_a_minute_and_not_before", with_folder(function(folder)
  local path = folder .. "/token"
  local function put(text) -- as a kubelet does it: a link that is swapped
    assert(fs.write(folder .. "/new", text .. "\n"))
    assert(fs.rename(folder .. "/new", path))
  end
  put "one"
  local who = auth.new { token_file = path }
  t.ok(is(who:now().token, "one"))
  put "two"
  task.sleep(30)
  t.ok(is(who:now().token, "one"), "read again before its time")
  task.sleep(31)
  t.ok(is(who:now().token, "two"), "not read again")
  assert(fs.remove(path))
  task.sleep(61)
  t.ok(is(who:now().token, "two"), "the last good one was dropped")
  put "three"
  task.sleep(61)
  t.ok(is(who:now().token, "three"))
end))

t.test("certificates_in_files_are_read_again_after_five_minutes_or_a_401", with_folder(function(folder)
  local config = require "eirun.kube.config"
  local function put(name, text) assert(fs.write(folder .. "/" .. name, text)) end
  for _, name in ipairs { "cert", "key", "ca" } do put(name, name .. "-one") end
  put("token", "t")
  local who = auth.new(config.resolve({ ["current-context"] = "c", contexts = { { name = "c", context = { cluster = "c", user = "u" } } },
    clusters = { { name = "c", cluster = { server = "https://a", ["certificate-authority"] = "ca" } } },
    users = { { name = "u", user = { ["client-certificate"] = "cert", ["client-key"] = "key", tokenFile = "token" } } } },
    { folder = folder }))
  local function now()
    local identity = who:now()
    return { identity.cert_pem, identity.ca_pem, is(identity.key_pem, "key-one"), is(identity.token, "t") }, identity
  end
  t.eq(now(), { "cert-one", "ca-one", true, true })
  put("cert", "cert-two")
  put("ca", "ca-two")
  task.sleep(290)
  t.eq(now()[1], "cert-one")
  task.sleep(11)
  t.eq(now(), { "cert-two", "ca-two", true, true })
  put("cert", "cert-three")
  assert(fs.remove(folder .. "/ca"))
  local _, used = now()
  t.ok(who:refused(used), "there is another one")
  t.eq(now(), { "cert-three", "ca-two", true, true })
end))

t.test("a_plugin_runs_again_when_its_answer_is_about_to_expire", with_folder(function(folder)
  local function answer(token, seconds)
    assert(fs.write(folder .. "/answer", json.encode { kind = "ExecCredential", apiVersion = "client.authentication.k8s.io/v1",
      status = { token = token, expirationTimestamp = wire.iso(task.now() + seconds) } }))
  end
  assert(fs.write(folder .. "/plugin", ("#!/bin/sh\necho >> %s/runs\ncat %s/answer\n"):format(folder, folder), { mode = tonumber("755",
    8) }))
  local who = auth.new { exec = { apiVersion = "client.authentication.k8s.io/v1", command = folder .. "/plugin" } }
  answer("one", 900)
  t.ok(is(who:now().token, "one"))
  answer("two", 1800)
  task.sleep(880)
  t.ok(is(who:now().token, "one"))
  task.sleep(15) -- five seconds before the end
  t.ok(is(who:now().token, "two"))
  t.eq(#fs.read(folder .. "/runs"), 2)
end))

-- Issued kubeconfigs ---------------------------------------------------------------------------------------------------

local function with_cluster(fn)
  return with_folder(function(folder)
    local session = target.open({ sandbox = folder .. "/box", clock = "virtual" }, { target = function() end })
    local ok, err = xpcall(fn, function(e) return type(e) == "string" and debug.traceback(e) or e end, ack.cluster())
    getmetatable(session).__close(session)
    if not ok then error(err, 0) end
  end)
end

-- Counts the kubeconfigs that a cluster asks for; `fail` makes that fail.
local function counted(cluster)
  local state, ask = { asked = 0 }, cluster.kubeconfig
  function cluster.kubeconfig(self, opts)
    local before = self.kubeconfigs and self.kubeconfigs["false/20"]
    if state.fail then errors.raise("network", "Container Service does not answer") end
    local text, ends, renew = ask(self, opts)
    if not before or before.text ~= text then state.asked = state.asked + 1 end
    return text, ends, renew
  end
  return state
end

t.test("a_kubeconfig_for_some_minutes_is_renewed_while_the_client_runs", with_cluster(function(cluster)
  local state = counted(cluster)
  local k8s = kube.connect(cluster, { minutes = 20 })
  local scoped, problems = k8s:namespace "kube-system", 0
  for _ = 1, 24 do -- two hours
    task.sleep(300)
    if not pcall(scoped.list, scoped, "Pod") then problems = problems + 1 end
  end
  t.eq(problems, 0)
  t.ok(state.asked >= 6 and state.asked <= 9, ("%d kubeconfigs in two hours"):format(state.asked))
end))

t.test("a_watch_outlives_the_kubeconfig_it_began_with", with_cluster(function(cluster)
  local k8s = kube.connect(cluster, { minutes = 20 }):namespace "default"
  local seen = {}
  task.race { function()
    for event in k8s:watch "ConfigMap" do
      seen[#seen + 1] = event.object.metadata.name
      if event.object.metadata.name == "last" then return end
    end
  end, function()
    task.sleep(3600)
    kube.connect(cluster):namespace("default"):create { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "last" } }
    task.sleep(60)
  end }
  t.eq(seen[#seen], "last")
end))

t.test("a_renewal_that_fails_does_no_harm_before_the_end_and_is_told_after_it", with_cluster(function(cluster)
  local state = counted(cluster)
  local k8s = kube.connect(cluster, { minutes = 20 })
  state.fail = true
  task.sleep(17 * 60)
  t.ok(#k8s:list "Namespace" > 0)
  task.sleep(4 * 60)
  t.match(t.err("network", function() k8s:list "Namespace" end).message, "Container Service does not answer")
  state.fail = false
  t.ok(#k8s:list "Namespace" > 0)
end))

t.test("many_tasks_share_one_renewal", with_cluster(function(cluster)
  local state = counted(cluster)
  local k8s = kube.connect(cluster, { minutes = 20 })
  task.sleep(18 * 60)
  task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function() k8s:list "Namespace" end)
  t.eq(state.asked, 2)
end))
