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
  t.eq({ resolved.ca_pem, resolved.token_file }, { "CA", dir .. "/token" })
end)

local bad = {
  { kubeconfig "{ exec: { command: x } }", nil, "user 'u1': exec: apiVersion 'nil' is not known" },
  { kubeconfig "{ exec: { apiVersion: client.authentication.k8s.io/v1 } }", nil, "exec: has no command" },
  { kubeconfig "{ exec: { apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Always } }", nil, "asks nobody" },
  { kubeconfig "{ exec: x }", nil, "exec: is no map" },
  { kubeconfig "{ as-groups: [a] }", nil, "as%-%* without as" },
  { kubeconfig "{ client-key-data: QQ== }", nil, "has no certificate" },
  { kubeconfig "{ client-certificate-data: '*', client-key-data: QQ== }", nil, "user 'u1': client%-certificate%-data is not base64" },
  { kubeconfig("{ token: a }", "{ server: 'ftp://x' }"), nil, "cluster 'c1': server 'ftp://x' is no http or https URL" },
  { kubeconfig("{ token: a }", "{ server: 'https://x', proxy-url: 'gopher://y' }"), nil, "proxy%-url 'gopher://y'" },
  { kubeconfig("{ token: a }", "{ server: 'https://x', certificate-authority-data: QQ==, insecure-skip-tls-verify: true }"), nil,
    "exclude each other" },
  { kubeconfig("{ token: a }", "{ server: 'https://x', certificate-authority: /no/such.pem }"), nil, "certificate%-authority: .*such.pem" },
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

-- Proxies of the environment ---------------------------------------------------------------------------------------------

local P = "http://proxy:3128"
local proxied = {
  { "https://api.example.com:6443", { HTTPS_PROXY = P }, P },
  { "https://api.example.com", { https_proxy = "proxy:3128" }, P },
  { "http://api.example.com", { HTTPS_PROXY = P } },
  { "http://api.example.com", { HTTP_PROXY = P }, P },
  { "https://api.example.com", { ALL_PROXY = "socks5://p:1" }, "socks5://p:1" },
  { "https://api.example.com", {} },
  { "https://127.0.0.1:6443", { HTTPS_PROXY = P } },
  { "https://localhost:6443", { HTTPS_PROXY = P } },
  { "https://[::1]:6443", { HTTPS_PROXY = P } },
  { "https://api.example.com:6443", { HTTPS_PROXY = P, NO_PROXY = "a.com, example.com" } },
  { "https://api.example.com:6443", { HTTPS_PROXY = P, NO_PROXY = ".EXAMPLE.com" } },
  { "https://api.example.com:6443", { HTTPS_PROXY = P, NO_PROXY = "*.example.com" } },
  { "https://example.com:6443", { HTTPS_PROXY = P, NO_PROXY = ".example.com" }, P },
  { "https://notexample.com:6443", { HTTPS_PROXY = P, NO_PROXY = "example.com" }, P },
  { "https://api.example.com:6443", { HTTPS_PROXY = P, NO_PROXY = "example.com:6443" } },
  { "https://api.example.com:6443", { HTTPS_PROXY = P, NO_PROXY = "example.com:443" }, P },
  { "https://api.example.com:6443", { HTTPS_PROXY = P, NO_PROXY = "*" } },
  { "https://10.1.2.3:6443", { HTTPS_PROXY = P, NO_PROXY = "10.0.0.0/8" } },
  { "https://11.1.2.3:6443", { HTTPS_PROXY = P, NO_PROXY = "10.0.0.0/8" }, P },
  { "https://10.1.2.3:6443", { HTTPS_PROXY = P, NO_PROXY = "10.1.2.3" } },
  { "https://[fd00::1]:6443", { HTTPS_PROXY = P, NO_PROXY = "[fd00::1]:6443" } },
  { "https://[fd00::1]:6443", { HTTPS_PROXY = P, NO_PROXY = "fd00::1" } },
  { "https://[fd00::2]:6443", { HTTPS_PROXY = P, NO_PROXY = "fd00::1" }, P },
}

for i, row in ipairs(proxied) do
  t.test("a_proxy_of_the_environment_is_taken_by_kubectls_rules_" .. i, function()
    local os_core, proxy = require "eirun.core.os", require "eirun.kube.proxy"
    local before = os_core.getenv
    os_core.getenv = function(name) return row[2][name] end
    local ok, found = pcall(proxy.of, row[1])
    os_core.getenv = before
    t.eq({ ok, found }, { true, row[3] })
  end)
end
