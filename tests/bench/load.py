# SPDX-License-Identifier: Apache-2.0
"""The load engine against wrk and h2load, all driving one nginx worker on loopback, in turn."""
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import time

CONNECTIONS, SECONDS, ROUNDS = 64, 3, 5

NGINX = """worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile 30000;
events {{ worker_connections 20000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 "{body}"; }} }}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_nginx(folder):
    port = free_port()
    path = f"{folder}/nginx.conf"
    with open(path, "w") as file:
        file.write(NGINX.format(folder=folder, port=port, body="x" * 128))
    server = subprocess.Popen(["nginx", "-c", path, "-p", folder], stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}/"
        time.sleep(0.05)
    server.kill()
    raise SystemExit("nginx does not listen")


def measured(command):
    """Standard output, CPU seconds and peak memory (MB)."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = process.stdout.read()
    _, _, usage = os.wait4(process.pid, 0)
    return output, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def requests_of(pattern):
    return lambda output: int(re.search(pattern, output).group(1))


def peers(eirun, url):
    c, s = str(CONNECTIONS), str(SECONDS)
    list_ = [("eirun", [eirun, "load", url, "-c", c, "--threads", "1", "--duration", s, "--json"], lambda text: json.loads(text)["requests"])]
    if shutil.which("wrk"):
        list_.append(("wrk", ["wrk", "-t", "1", "-c", c, "-d", s, url], requests_of(r"(\d+) requests in")))
    if shutil.which("h2load"):
        list_.append(("h2load", ["h2load", "--h1", "-t", "1", "-c", c, "-D", s, url], requests_of(r"requests: (\d+) total")))
    return list_


def closed_loop(eirun, url, row):
    rate, cost = {}, {}
    for i in range(ROUNDS + 1):
        for name, command, count in peers(eirun, url):
            output, cpu, _ = measured(command)
            if i:  # the first round warms up
                rate.setdefault(name, []).append(count(output) / SECONDS)
                cost.setdefault(name, []).append(count(output) / cpu)
    ours, ours_rate = statistics.median(cost.pop("eirun")), statistics.median(rate.pop("eirun"))
    if not cost:
        row("load: requests per CPU second", f"{ours:.0f}; neither wrk nor h2load is installed", ">= 1.1", None)
        return
    best = max(cost, key=lambda name: statistics.median(cost[name]))
    theirs, theirs_rate = statistics.median(cost[best]), max(statistics.median(r) for r in rate.values())
    row(f"load: requests per CPU second / {best}", f"{ours/1000:.0f}k / {theirs/1000:.0f}k = {ours/theirs:.2f}", ">= 1.1", ours / theirs >= 1.1)
    row("load: requests a second / the best of them", f"{ours_rate/1000:.1f}k / {theirs_rate/1000:.1f}k = {ours_rate/theirs_rate:.2f}", ">= 1",
        ours_rate >= theirs_rate)


def open_loop(eirun, url, row):
    output, cpu, _ = measured([eirun, "load", url, "--rate", "15000", "--duration", "5", "--threads", "1", "--json"])
    result = json.loads(output)
    achieved = result["requests"] / 75000
    row("load: 15,000/s, CPU a request", f"{cpu / result['requests'] * 1e6:.1f} us, sent late by p99 {result['lateness']['p99']*1e3:.2f} ms", "", None)
    row("load: 15,000/s, achieved of planned", f"{achieved:.4f}", "0.999..1.001", abs(achieved - 1) <= 0.001)


def many_connections(eirun, url, row):
    output, _, peak = measured([eirun, "load", url, "-c", "10000", "--max-connections", "10000", "--threads", "1", "--duration", "5", "--json"])
    opened = json.loads(output)["connections"] if output.startswith("{") else 0
    row("load: 10,000 connections", f"{peak:.0f} MB ({opened} opened)", "< 200 MB", peak < 200 and opened >= 10000)


def bench(eirun, folder, row):
    if not shutil.which("nginx"):
        row("load", "nginx is not installed", "", None)
        return
    server, url = start_nginx(folder)
    try:
        for part in (closed_loop, open_loop, many_connections):
            part(eirun, url, row)
    finally:
        server.terminate()
        server.wait()
