-- SPDX-License-Identifier: Apache-2.0
local json = require "eirun.core.json"
local kubeclient = require "sandbox.kubeclient"
local t = require "eirun.test"

local function reply(status, value)
  local headers = { get = function() return nil end }
  return { status = status, body = type(value) == "string" and value or json.encode(value), headers = headers }
end

-- Answers requests from a list of replies and remembers what was asked. A stream is a list of chunks; a string "cut" breaks it.
local function fake(replies, streams)
  local http = { asked = {}, opened = {} }
  function http:request(request)
    self.asked[#self.asked + 1] = request
    local next_one = table.remove(replies, 1)
    return next_one or reply(500, "no reply is left")
  end
  function http:open(request)
    self.opened[#self.opened + 1] = request
    local chunks = table.remove(streams or {}, 1)
    if not chunks then return nil, { kind = "network", message = "no stream is left" } end
    local stream = { status = chunks.status or 200 }
    function stream:read()
      local chunk = table.remove(chunks, 1)
      if chunk == "cut" then return nil, { kind = "network", message = "cut" } end
      return chunk
    end
    function stream:close() end
    return stream
  end
  return http
end

local function client(replies, streams)
  local http = fake(replies, streams)
  return kubeclient.new { server = "https://api:6443/", http = http, token = "secret" }, http
end

local function pod(name, version, phase)
  return { kind = "Pod", metadata = { namespace = "default", name = name, uid = "u-" .. name, resourceVersion = tostring(version) },
    status = { phase = phase } }
end

t.test("paths_follow_group_and_namespace", function()
  local path = kubeclient.resources.path
  t.eq(path("pods", "default", "web-0", "status"), "/api/v1/namespaces/default/pods/web-0/status")
  t.eq(path("nodes", nil, "n1"), "/api/v1/nodes/n1")
  t.eq(path("leases", "kube-node-lease", "n1"), "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1")
  t.eq(path("pods"), "/api/v1/pods")
end)

t.test("apply_carries_its_type_manager_and_kind", function()
  local kube, http = client { reply(200, { metadata = { name = "c" } }) }
  t.ok(kube:patch("configmaps", "default", "c", { metadata = { name = "c" } }, { type = "apply", field_manager = "kubelet", force = true }))
  local asked = http.asked[1]
  t.eq(asked.url, "https://api:6443/api/v1/namespaces/default/configmaps/c?fieldManager=kubelet&force=true")
  t.eq(json.decode(asked.body), { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "c" } })
  local seen = {}
  for _, header in ipairs(asked.headers) do seen[header[1]] = header[2] end
  t.eq(seen["Content-Type"], "application/apply-patch+yaml")
  t.eq(seen.Authorization, "Bearer secret")
end)

t.test("a_failure_keeps_reason_and_message", function()
  local kube = client { reply(409, { kind = "Status", reason = "AlreadyExists", message = 'pods "a" already exists' }) }
  local object, err = kube:create("pods", pod("a"))
  t.eq(object, nil)
  t.eq(err.kind, "conflict")
  t.eq(err.code, "AlreadyExists")
  t.eq(err.message, 'pods "a" already exists')
end)

t.test("a_throttled_write_is_sent_again_and_a_failed_one_is_not", function()
  local kube, http = client { reply(429, "slow down"), reply(201, pod("a", 1)), reply(500, "boom") }
  t.ok(kube:create("pods", pod("a")))
  t.eq(#http.asked, 2)
  local _, err = kube:create("pods", pod("a"))
  t.eq(err.kind, "internal")
  t.eq(#http.asked, 3)
end)

t.test("lists_follow_their_pages", function()
  local kube, http = client {
    reply(200, { metadata = { resourceVersion = "5", continue = "t/1" }, items = json.array { pod("a", 1) } }),
    reply(200, { metadata = { resourceVersion = "5" }, items = json.array { pod("b", 2) } }),
  }
  local list = kube:list("pods", { namespace = "default", field_selector = "spec.nodeName=n1" })
  t.eq(#list.items, 2)
  t.match(http.asked[1].url, "fieldSelector=spec.nodeName%%3Dn1")
  t.match(http.asked[2].url, "continue=t%%2F1")
end)

t.test("an_empty_list_may_say_null", function()
  local kube = client { reply(200, '{"metadata":{"resourceVersion":"5"},"items":null}') }
  t.eq(#kube:list("pods").items, 0)
end)

local function lines(...)
  local out = {}
  for i, event in ipairs { ... } do out[i] = json.encode(event) .. "\n" end
  return table.concat(out)
end

local function recorded(cache_options)
  local seen = {}
  cache_options.on_add = function(o) seen[#seen + 1] = "+" .. o.metadata.name end
  cache_options.on_update = function(_, o) seen[#seen + 1] = "~" .. o.metadata.name .. o.status.phase end
  cache_options.on_delete = function(o) seen[#seen + 1] = "-" .. o.metadata.name end
  return seen, cache_options
end

t.test("a_cache_follows_the_watch_and_frames_need_not_align", function()
  local text = lines({ type = "ADDED", object = pod("b", 6, "Pending") }, { type = "MODIFIED", object = pod("a", 7, "Running") },
    { type = "BOOKMARK", object = { kind = "Pod", metadata = { resourceVersion = "9" } } }, { type = "DELETED", object = pod("b", 10) })
  local chunks = { text:sub(1, 20), text:sub(21, 300), text:sub(301), "cut" }
  local first = reply(200, { metadata = { resourceVersion = "5" }, items = json.array { pod("a", 1, "Pending") } })
  local kube, http = client({ first }, { chunks })
  local seen, options = recorded {}
  local cache = kube:informer("pods", options)
  local open = http.open
  http.open = function(self, request)
    if #self.opened == 1 then cache:stop() end
    return open(self, request)
  end
  cache:run()
  t.eq(seen, { "+a", "+b", "~aRunning", "-b" })
  t.match(http.opened[1].url, "resourceVersion=5&watch=true&allowWatchBookmarks=true")
  t.match(http.opened[2].url, "resourceVersion=10&")
  t.eq(cache:get("default", "a").status.phase, "Running")
  t.eq(#cache:list(), 1)
end)

t.test("an_expired_version_lists_again_and_tells_what_went", function()
  local gone = lines { type = "ERROR", object = { kind = "Status", code = 410, reason = "Expired" } }
  local kube, http = client({
    reply(200, { metadata = { resourceVersion = "5" }, items = json.array { pod("a", 1, "Pending"), pod("b", 2, "Pending") } }),
    reply(200, { metadata = { resourceVersion = "50" }, items = json.array { pod("b", 40, "Running"), pod("c", 45, "Pending") } }),
  }, { { gone } })
  local seen, options = recorded {}
  local cache = kube:informer("pods", options)
  local open = http.open
  http.open = function(self, request)
    if #self.opened == 1 then cache:stop() end
    return open(self, request)
  end
  cache:run()
  t.eq(seen, { "+a", "+b", "-a", "~bRunning", "+c" })
  t.match(http.opened[2].url, "resourceVersion=50&")
end)

t.test("a_kubeconfig_names_server_and_token", function()
  local options = kubeclient.options_of {
    ["current-context"] = "c", contexts = { { name = "c", context = { cluster = "k", user = "u" } } },
    clusters = { { name = "k", cluster = { server = "https://h:1", ["certificate-authority-data"] = "cGVt" } } },
    users = { { name = "u", user = { token = "tok" } } },
  }
  t.eq(options.server, "https://h:1")
  t.eq(options.ca_pem, "pem")
  t.eq(options.token, "tok")
  t.err("invalid", function() kubeclient.options_of { ["current-context"] = "x", contexts = {} } end)
end)
