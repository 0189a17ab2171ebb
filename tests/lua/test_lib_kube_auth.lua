-- SPDX-License-Identifier: Apache-2.0
-- Who the client is: over TLS, since nothing is said to a server without. Plug-ins are shell scripts that count their runs.
local client = require "eirun.kube.client"
local config = require "eirun.kube.config"
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"

local function authority()
  local now = os.time()
  local ca = assert(crypto.ca_create { name = "tests", not_before = now - 60, not_after = now + 3600 })
  local function issue(cn, names, is_client)
    return assert(crypto.cert_issue { ca = ca, cn = cn, names = names, client = is_client, not_before = now - 60, not_after = now + 3600 })
  end
  return ca, issue
end

-- Runs body(url, ca, seen, folder); `answer(req)` says the status of each request.
local function with_tls(answer, body, names)
  local ca, issue = authority()
  local cert = issue("server", names or { "127.0.0.1" })
  local folder = assert(fs.mkdtemp "/tmp/eirun-auth-")
  local server = assert(httpd.listen { host = "127.0.0.1", port = 0, tls = { cert_pem = cert.cert_pem, key_pem = cert.key_pem,
    client_ca_pem = ca.cert_pem } })
  local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = {}, namespace = "default" }
  local seen = {}
  local ok, err = pcall(task.race, {
    function()
      httpd.serve(server, function(req)
        seen[#seen + 1] = { authorization = req.headers:get "authorization", user = req.headers:get "impersonate-user", sni = req.sni }
        local status = answer(seen[#seen], #seen)
        req:respond(status, { { "Content-Type", "application/json" } }, status == 200 and '{"kind":"ConfigMap","metadata":{"name":"a"}}'
          or '{"kind":"Status","reason":"Unauthorized","message":"Unauthorized","code":401}')
      end)
    end,
    function() body("https://127.0.0.1:" .. server.port, ca, seen, folder, issue) end,
  })
  undo()
  server:close()
  fs.remove(folder, { recursive = true })
  if not ok then error(err, 0) end
end

local function connect(url, ca, user, cluster)
  local cluster_fields = { server = url, ["certificate-authority-data"] = crypto.base64(ca.cert_pem) }
  for key, value in pairs(cluster or {}) do cluster_fields[key] = value end
  return client.new(config.resolve { ["current-context"] = "c", clusters = { { name = "c", cluster = cluster_fields } },
    users = { { name = "u", user = user } }, contexts = { { name = "c", context = { cluster = "c", user = "u" } } } })
end

local EXECUTABLE = tonumber("755", 8)

-- A plug-in that answers `status` and adds a line to a file each time it runs.
local function plugin(folder, version, status)
  local path = folder .. "/plugin"
  local answer = json.encode { kind = "ExecCredential", apiVersion = "client.authentication.k8s.io/" .. version, status = status }
  assert(fs.write(path, ("#!/bin/sh\necho \"$KUBERNETES_EXEC_INFO $FOO $1\" >> %s/runs\ncat <<'E'\n%s\nE\n"):format(folder, answer),
    { mode = EXECUTABLE }))
  return { exec = { apiVersion = "client.authentication.k8s.io/" .. version, command = path, args = { "word" }, provideClusterInfo = true,
    env = { { name = "FOO", value = "bar" } } } }
end

local function runs(folder)
  local list = {}
  for line in (fs.read(folder .. "/runs") or ""):gmatch "[^\n]+" do list[#list + 1] = line end
  return list
end

for _, version in ipairs { "v1", "v1beta1" } do
  t.test("a_plugin_runs_once_until_its_answer_expires_" .. version, function()
    with_tls(function() return 200 end, function(url, ca, seen, folder)
      local k8s = connect(url, ca, plugin(folder, version, { token = "from-plugin", expirationTimestamp = "2099-01-01T00:00:00Z" }))
      task.map({ 1, 2, 3, 4 }, function() k8s:get("ConfigMap", "a") end)
      t.eq({ #seen, seen[4].authorization, #runs(folder) }, { 4, "Bearer from-plugin", 1 })
      local told, rest = runs(folder)[1]:match "^(%b{})(.*)$"
      told = json.decode(told)
      t.eq({ told.apiVersion, told.spec.interactive, told.spec.cluster.server, rest },
        { "client.authentication.k8s.io/" .. version, false, url, " bar word" })
    end)
  end)
end

t.test("an_answer_that_has_expired_is_asked_for_again", function()
  with_tls(function() return 200 end, function(url, ca, _, folder)
    local k8s = connect(url, ca, plugin(folder, "v1", { token = "old", expirationTimestamp = "2020-01-01T00:00:00Z" }))
    k8s:get("ConfigMap", "a")
    k8s:get("ConfigMap", "a")
    t.eq(#runs(folder), 2)
  end)
end)

t.test("a_401_makes_the_plugin_run_once_more", function()
  with_tls(function(_, n) return n == 1 and 401 or 200 end, function(url, ca, seen, folder)
    t.eq(connect(url, ca, plugin(folder, "v1", { token = "x" })):get("ConfigMap", "a").metadata.name, "a")
    t.eq({ #seen, #runs(folder) }, { 2, 2 })
  end)
  with_tls(function() return 401 end, function(url, ca, seen, folder)
    local err = t.err("denied", function() connect(url, ca, plugin(folder, "v1", { token = "x" })):get("ConfigMap", "a") end)
    t.eq({ err.code, #seen }, { "Unauthorized", 2 })
  end)
end)

t.test("a_plugins_certificate_is_shown_to_the_server", function()
  with_tls(function() return 200 end, function(url, ca, seen, folder, issue)
    local cert = issue("someone", nil, true)
    local path = folder .. "/plugin"
    assert(fs.write(folder .. "/answer", json.encode({ kind = "ExecCredential",
      apiVersion = "client.authentication.k8s.io/v1", status = { clientCertificateData = cert.cert_pem, clientKeyData = cert.key_pem } },
      { reveal = true })))
    assert(fs.write(path, "#!/bin/sh\ncat " .. folder .. "/answer\n", { mode = EXECUTABLE }))
    local k8s = connect(url, ca, { exec = { apiVersion = "client.authentication.k8s.io/v1", command = path } })
    k8s:get("ConfigMap", "a")
    t.eq({ #seen, seen[1].authorization }, { 1, nil })
  end)
end)

local bad_plugins = {
  { "exit 3", "ended with code 3" }, { "echo nonsense", "did not answer an ExecCredential" },
  { [[echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","status":{"token":"x"}}']], "wants client" },
  { [[echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{}}']], "neither a token nor" },
  { [[echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"clientKeyData":"k"}}']], "both are needed" },
}

for i, row in ipairs(bad_plugins) do
  t.test("a_bad_plugin_is_named_with_what_it_did_" .. i, function()
    with_tls(function() return 200 end, function(url, ca, seen, folder)
      assert(fs.write(folder .. "/p", "#!/bin/sh\n" .. row[1] .. "\n", { mode = EXECUTABLE }))
      local user = { exec = { apiVersion = "client.authentication.k8s.io/v1", command = folder .. "/p" } }
      local err = t.err("denied", function() connect(url, ca, user):get("ConfigMap", "a") end)
      t.match(err.message, row[2])
      t.ok(err.message:find(folder, 1, true), "it is named")
      t.eq(#seen, 0)
    end)
  end)
end

t.test("a_plugin_that_is_not_there_shows_its_hint", function()
  with_tls(function() return 200 end, function(url, ca)
    local user = { exec = { apiVersion = "client.authentication.k8s.io/v1", command = "/no/such/plugin", installHint = "install it" } }
    t.eq(t.err("denied", function() connect(url, ca, user):get("ConfigMap", "a") end).hint, "install it")
  end)
end)

t.test("a_token_file_is_read_again_after_a_401", function()
  with_tls(function(seen) return seen.authorization == "Bearer new" and 200 or 401 end, function(url, ca, seen, folder)
    assert(fs.write(folder .. "/token", "old\n"))
    local k8s = connect(url, ca, { tokenFile = folder .. "/token" })
    t.err("denied", function() k8s:get("ConfigMap", "a") end)
    assert(fs.write(folder .. "/token", "new\n"))
    t.eq(k8s:get("ConfigMap", "a").metadata.name, "a")
    t.eq({ seen[1].authorization, seen[#seen].authorization }, { "Bearer old", "Bearer new" })
  end)
end)

t.test("impersonation_is_sent_along", function()
  with_tls(function() return 200 end, function(url, ca, seen)
    connect(url, ca, { token = "x", as = "jane" }):get("ConfigMap", "a")
    t.eq(seen[1].user, "jane")
  end)
end)

t.test("tls_server_name_is_the_name_that_is_checked", function()
  with_tls(function() return 200 end, function(url, ca, seen)
    connect(url, ca, { token = "x" }, { ["tls-server-name"] = "api.example.com" }):get("ConfigMap", "a")
    t.eq(seen[1].sni, "api.example.com")
    t.err("network", function() connect(url, ca, { token = "x" }):call { path = "/x", verb = "read", object = "x", attempts = 1 } end)
  end, { "api.example.com" })
end)

t.test("a_server_without_tls_is_told_nothing", function()
  local server = assert(httpd.listen { host = "127.0.0.1", port = 0 })
  local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = {}, namespace = "default" }
  local seen
  task.race { function()
    httpd.serve(server, function(req)
      seen = req.headers:get "authorization" or "nothing"
      req:respond(200, {}, "{}")
    end)
  end, function()
    client.new(config.parse(([[{"current-context":"c","clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:%d"}}],
      "users":[{"name":"u","user":{"token":"x"}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}]}]]):format(server.port)))
      :get("ConfigMap", "a")
  end }
  undo()
  server:close()
  t.eq(seen, "nothing")
end)

-- Files ----------------------------------------------------------------------------------------------------------------

local function write_config(path, text) assert(fs.write(path, text)) end

t.test("of_several_files_the_first_one_that_names_an_entry_owns_it", function()
  local folder = assert(fs.mkdtemp "/tmp/eirun-merge-")
  write_config(folder .. "/a", [[
clusters: [{ name: c, cluster: { server: "https://a" } }]
contexts: [{ name: one, context: { cluster: c, user: u } }]
]])
  assert(fs.mkdir(folder .. "/deep"))
  write_config(folder .. "/deep/b", [[
current-context: one
clusters: [{ name: c, cluster: { server: "https://b", insecure-skip-tls-verify: true } }, { name: d, cluster: { server: "https://d" } }]
users: [{ name: u, user: { tokenFile: token } }]
contexts: [{ name: two, context: { cluster: d, user: u, namespace: space } }]
]])
  local program = assert(fs.realpath "/proc/self/exe")
  local script = folder .. "/test_x.lua"
  assert(fs.write(script, [[
local t, config = require "eirun.test", require "eirun.kube.config"
t.test("merged", function()
  local one, two = config.load {}, config.load { context = "two" }
  t.eq({ one.server, one.verify, one.token_file:match "[^/]+/[^/]+$" }, { "https://a", true, "deep/token" })
  t.eq({ two.server, two.namespace, two.context }, { "https://d", "space", "two" })
  local err = t.err("invalid", function() config.load { context = "three" } end)
  t.match(err.message, "no 'three' in its contexts")
  t.match(err.hint, "'one', 'two'")
end)]]))
  local result = assert(require("eirun.core.process").run { program, "test", script, clear_env = true, timeout = 20,
    env = { KUBECONFIG = ("%s/a:%s/missing::%s/deep/b"):format(folder, folder, folder), PATH = "/usr/bin:/bin" } })
  fs.remove(folder, { recursive = true })
  t.match(result.stdout, "1 passed, 0 failed")
end)

t.test("a_pods_own_account_is_found_in_its_files", function()
  local folder = assert(fs.mkdtemp "/tmp/eirun-pod-")
  for name, text in pairs { token = "abc\n", ["ca.crt"] = "CA", namespace = "serving\n" } do
    assert(fs.write(folder .. "/" .. name, text))
  end
  local script = folder .. "/test_x.lua"
  assert(fs.write(script, ([[
local t, config = require "eirun.test", require "eirun.kube.config"
t.test("pod", function()
  local c = config.in_cluster "%s"
  t.eq({ c.server, c.namespace, c.ca_pem, c.token_file }, { "https://[fd00::1]:443", "serving", "CA", "%s/token" })
end)]]):format(folder, folder)))
  local result = assert(require("eirun.core.process").run { assert(fs.realpath "/proc/self/exe"), "test", script, clear_env = true,
    timeout = 20, env = { KUBERNETES_SERVICE_HOST = "fd00::1", KUBERNETES_SERVICE_PORT = "443", PATH = "/usr/bin:/bin" } })
  fs.remove(folder, { recursive = true })
  t.match(result.stdout, "1 passed, 0 failed")
end)
