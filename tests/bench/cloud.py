# SPDX-License-Identifier: Apache-2.0
"""Signed calls over TLS on loopback, eirun against the official Node client, both at one nginx; and what a signature costs."""
import os
import re
import shutil
import socket
import statistics
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PEER = os.path.join(os.path.dirname(HERE), "peers", "signers")
CALLS, ROUNDS = 1000, 5

NGINX = """worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1000; }}
http {{
  access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} ssl; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ default_type application/json; return 200 '{{"RequestId":"0","Regions":{{"Region":[]}}}}'; }}
  }}
}}
"""

LUA = """local t = require "eirun.test"
local clock = require "eirun.core.clock"
local cloud = require "eirun.cloud"
local credentials = require "eirun.credentials"
local secret = require "eirun.core.secret"
local sign = require "eirun.cloud.sign"
local target = require "eirun.target"
local task = require "eirun.task"
t.test("calls", function()
  local undo = target.use {{ sandbox = false, region = "cn-hangzhou", endpoints = {{ ECS = "https://127.0.0.1:{port}" }},
  ca_file = "{folder}/cert.pem", credentials = credentials.static {{ access_key_id = "LTAI5tEXAMPLEKEYID000001", access_key_secret = "s" }} }}
local function call()
  cloud.call {{ product = "ecs", action = "DescribeInstances", query = {{ RegionId = "cn-hangzhou", PageSize = 100, Tag = {{ {{ Key = "a" }} }} }} }}
end
  call()
  local from = clock.monotonic()
  for _ = 1, {calls} do call() end
  print(("one by one %.6f"):format(clock.monotonic() - from))
  local list = {{}}
  for i = 1, {calls} do list[i] = i end
  from = clock.monotonic()
  task.map(list, call, 20)
  print(("twenty at a time %.6f"):format(clock.monotonic() - from))
  undo()
end)
t.test("signatures", function()
  local key = secret.new "ExampleSecretForVectorsOnly0001"
  local from = os.clock()
  for _ = 1, 20000 do
    sign.sign {{ method = "POST", path = "/", key_id = "LTAI5tEXAMPLEKEYID000001", key_secret = key,
      query = {{ RegionId = "cn-hangzhou", ["Tag.1.Key"] = "ack.alibabacloud.com/nodepool-id", ["Tag.1.Value"] = "np0", PageSize = 100 }},
      headers = {{ host = "ecs.cn-hangzhou.aliyuncs.com", accept = "application/json", ["x-acs-action"] = "DescribeInstances",
        ["x-acs-version"] = "2014-05-26", ["x-acs-date"] = "2026-01-02T03:04:05Z", ["x-acs-signature-nonce"] = "0123456789abcdef" }} }}
  end
  print(("signature %.9f"):format((os.clock() - from) / 20000))
end)
"""

NODE = """const core = require('@alicloud/openapi-core');
const { $OpenApiUtil, OpenApiUtil } = core;
const client = new core.default(new $OpenApiUtil.Config({ accessKeyId: 'LTAI5tEXAMPLEKEYID000001', accessKeySecret: 's',
  endpoint: '127.0.0.1:%(port)d', protocol: 'HTTPS', regionId: 'cn-hangzhou', ca: require('fs').readFileSync('%(folder)s/cert.pem', 'utf8') }));
const params = new $OpenApiUtil.Params({ action: 'DescribeInstances', version: '2014-05-26', protocol: 'HTTPS', method: 'POST', authType: 'AK',
  style: 'RPC', pathname: '/', reqBodyType: 'json', bodyType: 'json' });
function call() {
  const query = OpenApiUtil.query({ RegionId: 'cn-hangzhou', PageSize: 100, Tag: [{ Key: 'a' }] });
  return client.callApi(params, new $OpenApiUtil.OpenApiRequest({ query }), { ignoreSSL: false });
}
async function main() {
  await call();
  let from = process.hrtime.bigint();
  for (let i = 0; i < %(calls)d; i++) await call();
  console.log('one by one', Number(process.hrtime.bigint() - from) / 1e9);
  let left = %(calls)d;
  const worker = async () => { while (left-- > 0) await call(); };
  from = process.hrtime.bigint();
  await Promise.all(Array.from({ length: 20 }, worker));
  console.log('twenty at a time', Number(process.hrtime.bigint() - from) / 1e9);
}
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1); });
"""


def certificate(folder):
    subprocess.check_call(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                           "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{folder}/key.pem",
                           "-out", f"{folder}/cert.pem"], stderr=subprocess.DEVNULL)


def start(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(f"{folder}/nginx.conf", "w") as file:
        file.write(NGINX.format(folder=folder, port=port))
    server = subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf", "-p", folder], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, port
        time.sleep(0.05)
    server.kill()
    raise SystemExit("nginx does not listen")


def node_modules():
    """The official client, where tests/peers/signers/run has put it."""
    subprocess.run([os.path.join(PEER, "run"), "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "eirun-tests")
    found = [f"{base}/{name}/node_modules" for name in sorted(os.listdir(base)) if name.startswith("signers-")] if os.path.isdir(base) else []
    return next((path for path in found if os.path.isdir(path + "/@alicloud/openapi-core")), None)


def figures(command, env=None):
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
    if result.returncode:
        raise SystemExit(result.stdout)
    text = result.stdout
    return {name: float(value) for name, value in re.findall(r"^([a-z ]+) ([\d.]+)$", text, re.M)}


def bench(eirun, folder, row):
    if not shutil.which("nginx"):
        row("cloud: 1,000 signed calls over TLS", "nginx is not installed", ">= 5", None)
        return
    certificate(folder)
    server, port = start(folder)
    facts = {"folder": folder, "port": port, "calls": CALLS}
    try:
        with open(f"{folder}/test_calls.lua", "w") as file:
            file.write(LUA.format(**facts))
        with open(f"{folder}/calls.js", "w") as file:
            file.write(NODE % facts)
        modules = shutil.which("node") and node_modules()
        ours, theirs = [], []
        for i in range(ROUNDS + 1):
            a = figures([eirun, "test", f"{folder}/test_calls.lua"])
            b = figures(["node", f"{folder}/calls.js"], {"NODE_PATH": modules}) if modules else None
            if i:  # the first round warms up
                ours.append(a)
                theirs.append(b)
        tell(row, ours, theirs if modules else None)
    finally:
        server.terminate()
        server.wait()


def tell(row, ours, theirs):
    for name in ("one by one", "twenty at a time"):
        mine = statistics.median(one[name] for one in ours)
        if theirs is None:
            row(f"cloud: 1,000 signed calls over TLS, {name}", f"{mine:.2f} s; the Node client cannot be had", ">= 5", None)
            continue
        other = statistics.median(one[name] for one in theirs)
        row(f"cloud: official Node client / eirun, 1,000 calls over TLS, {name}", f"{other:.2f} s / {mine:.2f} s = {other/mine:.1f}",
            ">= 5", other / mine >= 5)
    cost = statistics.median(one["signature"] for one in ours)
    row("cloud: one signature, CPU time", f"{cost*1e6:.1f} us", "<= 20 us", cost <= 20e-6)
