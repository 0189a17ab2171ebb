# SPDX-License-Identifier: Apache-2.0
"""The load engine against wrk, h2load, vegeta, hey and k6, all driving the same servers on loopback, in turn. Every comparison is made of
rounds in which each tool runs once; what counts is the median of the rounds' ratios, so that a machine whose speed changes hurts all alike."""
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "known"))
import known  # noqa: E402

CONNECTIONS = 64
SECONDS, ROUNDS = (int(os.environ.get(f"EIRUN_BENCH_{name}", value)) for name, value in (("SECONDS", 3), ("ROUNDS", 5)))
GO = {"vegeta": "github.com/tsenart/vegeta/v12@v12.13.0", "hey": "github.com/rakyll/hey@v0.1.5", "k6": "go.k6.io/k6@v1.8.1"}

NGINX = """worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile 30000;
events {{ worker_connections 20000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; http2_max_concurrent_streams 1000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
  server {{
    listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl backlog=4096; listen 127.0.0.1:{h2} http2 backlog=4096;
    location / {{ return 200 "{body}"; }}
  }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_nginx(folder):
    ports = {name: free_port() for name in ("plain", "tls", "h2")}
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem",
                    "-days", "2", "-subj", "/CN=localhost"], check=True, capture_output=True)
    path = f"{folder}/nginx.conf"
    with open(path, "w") as file:
        file.write(NGINX.format(folder=folder, body="x" * 128, **ports))
    server = subprocess.Popen(["nginx", "-c", path, "-p", folder], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", ports["plain"])) == 0:
                return server, {name: f"{'https' if name == 'tls' else 'http'}://127.0.0.1:{port}/" for name, port in ports.items()}
        time.sleep(0.05)
    server.kill()
    raise SystemExit("nginx does not listen")


def measured(command):
    """Standard output, CPU seconds and peak memory (MB)."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = process.stdout.read()
    _, _, usage = os.wait4(process.pid, 0)
    return output, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def find_go_tool(name):
    """From the cache, else built into it; None where there is no Go."""
    base = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "eirun-tests", "go-" + GO[name].split("@")[1])
    path = os.path.join(base, name)
    if not os.path.exists(path) and shutil.which("go"):
        subprocess.run(["go", "install", GO[name]], env={**os.environ, "GOBIN": base}, capture_output=True)
    return path if os.path.exists(path) else shutil.which(name)


def count_of(pattern):
    return lambda output: int(re.search(pattern, output).group(1))


def count_of_eirun(output):
    return json.loads(output)["requests"]


def in_turn(tools):
    """Of each tool its requests a second and requests a CPU second, a list of rounds; the first round warms up."""
    rate, cost = {name: [] for name, _, _ in tools}, {name: [] for name, _, _ in tools}
    for i in range(ROUNDS + 1):
        for name, command, count in tools:
            output, cpu, _ = measured(command)
            if i:
                rate[name].append(count(output) / SECONDS)
                cost[name].append(count(output) / cpu)
    return rate, cost


def ratios(ours, theirs):
    return statistics.median(a / b for a, b in zip(ours, theirs))


def against(row, title, tools, bound):
    tools = [tool for tool in tools if tool[0] == "eirun" or shutil.which(tool[0])]
    if len(tools) == 1:
        row(f"{title}: requests per CPU second", "no peer is installed", f">= {bound}", None)
        return
    rate, cost = in_turn(tools)
    peers = [name for name, _, _ in tools if name != "eirun"]
    best = min(peers, key=lambda name: ratios(cost["eirun"], cost[name]))
    fast = min(peers, key=lambda name: ratios(rate["eirun"], rate[name]))
    per = ", ".join(f"{name} {1e6 / statistics.median(cost[name]):.1f} us" for name, _, _ in tools)
    ratio, speed = ratios(cost["eirun"], cost[best]), ratios(rate["eirun"], rate[fast])
    row(f"{title}: requests per CPU second / {best}", f"{ratio:.2f} ({per})", f">= {bound}", ratio >= bound)
    row(f"{title}: requests a second / {fast}", f"{statistics.median(rate['eirun'])/1000:.1f}k / {statistics.median(rate[fast])/1000:.1f}k = {speed:.2f}",
        ">= 1", speed >= 1)


def closed_loops(eirun, urls, row):
    c, s = str(CONNECTIONS), str(SECONDS)
    wrk, h2load = count_of(r"(\d+) requests in"), count_of(r"requests: (\d+) total")

    def by_wrk(url):  # the others name themselves, and a server reads a header more
        return "wrk", ["wrk", "-H", "User-Agent: wrk", "-t", "1", "-c", c, "-d", s, url], wrk

    def ours(url, *args):
        return "eirun", [eirun, "load", url, "-c", c, "--threads", "1", "--duration", s, "--json", *args], count_of_eirun

    against(row, "load, HTTP/1.1", [
        ours(urls["plain"]), by_wrk(urls["plain"]),
        ("h2load", ["h2load", "--h1", "-t", "1", "-c", c, "-D", s, urls["plain"]], h2load)], 1.1)
    against(row, "load, TLS", [ours(urls["tls"], "-k"), by_wrk(urls["tls"])], 1.0)
    for streams in ("1", "10"):
        against(row, f"load, HTTP/2, {streams} stream{'s' if streams != '1' else ''} a connection", [
            ours(urls["h2"], "--http", "2", "--streams", streams),
            ("h2load", ["h2load", "-t", "1", "-c", c, "-m", streams, "-D", s, urls["h2"]], h2load)], 1.0)


K6 = """import http from "k6/http";
export const options = { discardResponseBodies: true, summaryTrendStats: ["p(50)", "p(90)", "p(95)", "p(99)"], scenarios: { a: {
  executor: "constant-arrival-rate", rate: %d, timeUnit: "1s", duration: "%ds", preAllocatedVUs: 300, maxVUs: 1000 } } };
export default function () { http.get("%s"); }
"""


def at_rate(folder, eirun, url, rate, seconds):
    """The tools that hold a rate: command, and from its output the requests and the seconds at p50, p90, p95, p99."""
    def of_eirun(output):
        result = json.loads(output)
        return result["requests"], [result["latency"][key] for key in ("p50", "p90", "p95", "p99")]

    def of_vegeta(_):
        report = json.loads(subprocess.check_output([vegeta, "report", "-type=json", f"{folder}/vegeta.bin"]))
        return report["status_codes"].get("200", 0), [report["latencies"][key] / 1e9 for key in ("50th", "90th", "95th", "99th")]

    def of_hey(output):
        found = dict(re.findall(r"(\d+)%+ in ([\d.]+) secs", output))
        return int(re.search(r"\[200\]\s+(\d+)", output).group(1)), [float(found[key]) for key in ("50", "90", "95", "99")]

    def of_k6(_):
        with open(f"{folder}/k6.json") as file:
            metrics = json.load(file)["metrics"]
        return metrics["http_reqs"]["count"], [metrics["http_req_duration"][f"p({p})"] / 1e3 for p in (50, 90, 95, 99)]

    tools = {"eirun": ([eirun, "load", url, "--rate", str(rate), "--duration", f"{seconds}s", "--threads", "1", "--json"], of_eirun)}
    vegeta, hey, k6 = (find_go_tool(name) for name in ("vegeta", "hey", "k6"))
    if vegeta:
        with open(f"{folder}/target", "w") as file:
            file.write(f"GET {url}\n")
        tools["vegeta"] = ([vegeta, "attack", "-rate", str(rate), "-duration", f"{seconds}s", "-targets", f"{folder}/target", "-output",
                            f"{folder}/vegeta.bin"], of_vegeta)
    if hey:
        tools["hey"] = ([hey, "-z", f"{seconds}s", "-c", "50", "-q", str(rate // 50), url], of_hey)
    if k6:
        with open(f"{folder}/k6.js", "w") as file:
            file.write(K6 % (rate, seconds, url))
        tools["k6"] = ([k6, "run", "-q", "--summary-export", f"{folder}/k6.json", f"{folder}/k6.js"], of_k6)
    return tools


def constant_rate(eirun, folder, urls, row):
    tools = at_rate(folder, eirun, urls["plain"], 15000, SECONDS)
    cost, share = {name: [] for name in tools}, {name: [] for name in tools}
    for i in range(ROUNDS + 1):
        for name, (command, read) in tools.items():
            output, cpu, _ = measured(command)
            if i:
                requests = read(output)[0]
                cost[name].append(cpu / requests)
                share[name].append(requests / (15000 * SECONDS))
    for name in tools:
        figure = f"{statistics.median(cost[name]) * 1e6:.1f} us, {statistics.median(share[name]) * 100:.1f} % of the rate"
        ratio = ratios(cost["eirun"], cost[name])
        bound = "" if name in ("eirun", "k6") else "<= 0.6"
        row(f"load, 15,000/s: CPU a request, {name}", figure + ("" if name == "eirun" else f", eirun / {name} {ratio:.2f}"), bound,
            ratio <= 0.6 if bound else None)
    achieved = statistics.median(share["eirun"])
    row("load, 15,000/s: achieved of planned", f"{achieved:.4f}", "0.999..1.001", abs(achieved - 1) <= 0.001)


def truth_of(name, output, stamps, rate):
    """What the tool says that it measures, by the server's time stamps: eirun from the planned time, the others from when they sent."""
    if name != "eirun":
        return [(sent - got) / 1e9 for got, sent in stamps if sent]
    return known.from_plan(stamps, json.loads(output)["started_at"], [i / rate for i in range(len(stamps))])


def agreement(eirun, folder, row):
    """Percentiles against the server's own time stamps: the largest share by which one of p50, p90, p95, p99 is off."""
    binary, rate, off = known.build(folder), 1000, {}
    for i in range(ROUNDS):
        for name in at_rate(folder, eirun, "", rate, SECONDS):
            with known.Known(binary, folder, "lognormal", 0.02, 0.8) as server:
                command, read = at_rate(folder, eirun, server.url, rate, SECONDS)[name]
                output = measured(command)[0]
                percentiles = read(output)[1]
            real = truth_of(name, output, server.stamps, rate)
            truth = [known.percentile(real, p) for p in (50, 90, 95, 99)]
            off.setdefault(name, []).append(max(abs(a / b - 1) for a, b in zip(percentiles, truth)))
    for name in off:
        ours, theirs = statistics.median(off["eirun"]), statistics.median(off[name])
        row(f"load, a log-normal server: percentiles off the truth, {name}", f"{theirs * 100:.2f} %", "" if name == "eirun" else "eirun's at most",
            None if name == "eirun" else ours <= theirs)


def many_connections(eirun, urls, row):
    output, _, peak = measured([eirun, "load", urls["plain"], "-c", "10000", "--max-connections", "10000", "--threads", "1", "--duration", "5", "--json"])
    opened = json.loads(output)["connections"] if output.startswith("{") else 0
    row("load, 10,000 connections", f"{peak:.0f} MB ({opened} opened)", "< 200 MB", peak < 200 and opened >= 10000)


def bench(eirun, folder, row):
    if not shutil.which("nginx"):
        row("load", "nginx is not installed", "", None)
        return
    server, urls = start_nginx(folder)
    try:
        closed_loops(eirun, urls, row)
        constant_rate(eirun, folder, urls, row)
        many_connections(eirun, urls, row)
    finally:
        server.terminate()
        server.wait()
    agreement(eirun, folder, row)
