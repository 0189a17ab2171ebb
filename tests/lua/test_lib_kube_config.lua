-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local config = require "eirun.kube.config"
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"

local function kubeconfig(user, cluster)
  return ([[
apiVersion: v1
kind: Config
current-context: main
clusters:
- name: c1
  cluster: %s
users:
- name: u1
  user: %s
contexts:
- name: main
  context: { cluster: c1, user: u1, namespace: serving }
- name: other
  context: { cluster: nowhere, user: u1 }
]]):format(cluster or '{ server: "https://10.0.0.1:6443/prefix/?x=1" }', user)
end

t.test("the_current_context_is_resolved_and_the_token_is_a_secret", function()
  local resolved = config.parse(kubeconfig '{ token: abc }')
  t.eq({ resolved.server, resolved.namespace, resolved.context, tostring(resolved.token), resolved.verify },
    { "https://10.0.0.1:6443/prefix", "serving", "main", "<secret>", true })
end)

t.test("inline_certificates_are_decoded_and_the_key_is_a_secret", function()
  local resolved = config.parse(kubeconfig(('{ client-certificate-data: %s, client-key-data: %s }'):format(crypto.base64 "CERT",
    crypto.base64 "KEY")))
  t.eq({ resolved.cert_pem, tostring(resolved.key_pem), resolved.token }, { "CERT", "<secret>" })
end)

t.test("files_lie_beside_the_kubeconfig", function()
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  assert(fs.write(dir .. "/ca.crt", "CA"))
  assert(fs.write(dir .. "/token", " abc\n"))
  assert(fs.write(dir .. "/config", kubeconfig("{ tokenFile: token }", "{ server: https://127.0.0.1:1, certificate-authority: ca.crt }")))
  local resolved = config.read(dir .. "/config")
  fs.remove(dir, { recursive = true })
  t.eq({ resolved.ca_pem, tostring(resolved.token) }, { "CA", "<secret>" })
end)

local bad = {
  { kubeconfig "{ exec: { command: x } }", nil, "exec plug%-ins are not supported yet" },
  { kubeconfig "{ client-certificate-data: QQ== }", nil, "has no key" },
  { kubeconfig "{ username: a, password: b }", nil, "removed from Kubernetes" },
  { kubeconfig "{ token: a }", "other", "no 'nowhere' in its clusters" },
  { kubeconfig "{ token: a }", "missing", "no 'missing' in its contexts" },
  { "just text", nil, "is no kubeconfig" },
  { "a: [", nil, "line" },
}

for i, row in ipairs(bad) do
  t.test("a_bad_kubeconfig_says_what_is_wrong_" .. i, function()
    t.match(tostring(t.err("invalid", function() config.parse(row[1], { context = row[2], where = "FILE" }) end)), row[3])
  end)
end
