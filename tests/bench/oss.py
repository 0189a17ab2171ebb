# SPDX-License-Identifier: Apache-2.0
"""Uploads against the official SDKs and curl: to nginx with DAV on a tmpfs, which is nobody's own, and to the sandbox beside it."""
import hashlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "oss")
ROUNDS, FILES, LARGE, WORKERS = int(os.environ.get("ROUNDS", 5)), 10000, 1_000_000_000, 16

NGINX = """worker_processes 1; daemon off; {user} pid {folder}/pid; error_log {folder}/error.log; worker_rlimit_nofile 30000;
events {{ worker_connections 2000; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 600; client_max_body_size 0;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {folder}/root; location / {{ dav_methods PUT DELETE; create_full_put_path on; }} }}
}}
"""


def cache_folder():
    digest = hashlib.sha256()
    for name in ("package-lock.json", "go.sum", "main.go"):
        with open(os.path.join(HERE, name), "rb") as file:
            digest.update(file.read())
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(base, "eirun-tests", "bench-oss-" + digest.hexdigest()[:16])
    os.makedirs(folder, exist_ok=True)
    return folder


def install():
    """The peers that can be had: name -> command."""
    cache, peers = cache_folder(), {}
    if shutil.which("go"):
        program = os.path.join(cache, "bench-go")
        if not os.path.exists(program):
            subprocess.run(["go", "build", "-mod=readonly", "-o", program, "."], cwd=HERE, check=True, capture_output=True, timeout=600)
        peers["Go SDK v2"] = [program]
    if shutil.which("node") and shutil.which("npm"):
        if not os.path.isdir(os.path.join(cache, "node_modules/ali-oss")):
            for name in ("package.json", "package-lock.json"):
                shutil.copy(os.path.join(HERE, name), cache)
            subprocess.run(["npm", "ci", "--no-fund", "--no-audit", "--ignore-scripts"], cwd=cache, check=True, capture_output=True, timeout=600)
        peers["ali-oss"] = ["node", os.path.join(HERE, "bench.mjs")]
    return peers, cache


# One stream keeps one core of the client busy and one of the server: each has its own, so that the scheduler is not what is measured.
def pinned(core):
    return lambda: os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[core]})


def measured(command, env=None, core=None):
    """Standard output, wall seconds, CPU seconds and peak memory (MB)."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env,
                               preexec_fn=None if core is None else pinned(core))
    output, errors = process.stdout.read(), process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {output} {errors}")
    return output, time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


class Sink:
    """nginx with DAV in a folder on a tmpfs."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        os.makedirs(f"{folder}/root")
        path = f"{folder}/nginx.conf"
        with open(path, "w") as file:
            file.write(NGINX.format(folder=folder, port=self.port, user="user root;" if os.getuid() == 0 else ""))
        self.process = subprocess.Popen(["nginx", "-c", path, "-p", folder], stderr=subprocess.DEVNULL)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise SystemExit("nginx does not listen")

    def env(self, cache):
        return {**os.environ, "OSS_ENDPOINT": f"http://127.0.0.1:{self.port}", "OSS_BUCKET": "bench", "OSS_KEY_ID": "id",
                "OSS_KEY_SECRET": "secret", "PEER_MODULES": cache}

    def pin(self):
        """The worker, which nginx's own process has started."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout.split()
        for pid in map(int, children):
            os.sched_setaffinity(pid, {sorted(os.sched_getaffinity(0))[0]})

    def close(self):
        self.process.terminate()
        self.process.wait()


class Sandbox:
    def __init__(self, eirun, folder):
        self.folder = f"{folder}/sandbox"
        self.process = subprocess.Popen([eirun, "sandbox", "serve", self.folder], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit("the sandbox does not serve")
        with open(f"{self.folder}/serve.json", encoding="utf-8") as file:
            self.record = json.load(file)

    def env(self, cache):
        record = self.record
        return {**os.environ, "OSS_ENDPOINT": f"http://127.0.0.1:{record['ports']['oss']['plain']}", "OSS_BUCKET": record["bucket"],
                "OSS_KEY_ID": record["access_key_id"], "OSS_KEY_SECRET": record["access_key_secret"], "PEER_MODULES": cache}

    def close(self):
        self.process.terminate()
        self.process.wait()


def eirun_command(eirun, what, path, env):
    core = 1 if what == "one" else None
    env = {**env, "WHAT": what, "WORKERS": str(WORKERS), "PATH_TO": path}
    output, _, cpu, peak = measured([eirun, "test", os.path.join(HERE, "bench.lua")], env, core)
    return float(re.search(r"seconds ([\d.e-]+)", output).group(1)), cpu, peak


def curl_command(path, env):
    _, wall, cpu, peak = measured(["curl", "-sf", "-o", "/dev/null", "-T", path, f"{env['OSS_ENDPOINT']}/bench/curl.bin"], None, 1)
    return wall, cpu, peak


def in_turn(eirun, peers, what, path, env, rounds):
    """name -> list of (seconds, CPU, memory), the first round not counted."""
    results = {}
    for i in range(rounds + 1):
        turns = {"eirun": lambda: eirun_command(eirun, what, path, env)}
        if what == "one" and shutil.which("curl"):
            turns["curl -T"] = lambda: curl_command(path, env)
        for name, command in peers.items():
            def run(command=command):
                output, _, cpu, peak = measured([*command, what, str(WORKERS), path], env, 1 if what == "one" else None)
                return float(output), cpu, peak
            turns[name] = run
        for name, turn in turns.items():
            figures = turn()
            if i:
                results.setdefault(name, []).append(figures)
    return results


def medians(results):
    return {name: tuple(statistics.median(side) for side in zip(*runs)) for name, runs in results.items()}


def tree(eirun, peers, path, env, row, where, rounds):
    found = medians(in_turn(eirun, peers, "tree", path, env, rounds))
    for name, (seconds, cpu, peak) in found.items():
        row(f"oss: {FILES} files of 4 KB to {where}: {name}",
            f"{FILES/seconds:.0f}/s, {cpu/FILES*1e6:.0f} us CPU a file, {peak:.0f} MB", "<= 64 MB" if name == "eirun" else "",
            peak <= 64 if name == "eirun" else None)
    others = [found[name][0] for name in peers if name in found]
    if others:
        ratio = min(others) / found["eirun"][0]
        bound = where == "nginx"
        row(f"oss: files a second to {where} / the best SDK", f"{ratio:.2f}", ">= 2" if bound else "", ratio >= 2 if bound else None)


def one(eirun, peers, path, env, row):
    results = in_turn(eirun, peers, "one", path, env, ROUNDS)
    found = medians(results)
    for name, (seconds, cpu, peak) in found.items():
        row(f"oss: 1 GB in one stream to nginx: {name}", f"{LARGE/seconds/1e6:.0f} MB/s, {cpu:.2f} s CPU, {peak:.0f} MB",
            "<= 64 MB" if name == "eirun" else "", peak <= 64 if name == "eirun" else None)
    if "curl -T" in found:
        ratio = found["curl -T"][0] / found["eirun"][0]
        row("oss: 1 GB in one stream / curl -T, hashing", f"{ratio:.2f}", ">= 0.9", ratio >= 0.9)


def parts(eirun, peers, path, env, row):
    found = medians(in_turn(eirun, peers, "parts", path, env, 1))
    for name, (seconds, cpu, peak) in found.items():
        row(f"oss: 1 GB in parts to the sandbox: {name}", f"{LARGE/seconds/1e6:.0f} MB/s, {cpu:.2f} s CPU, {peak:.0f} MB",
            "<= 64 MB" if name == "eirun" else "", peak <= 64 if name == "eirun" else None)


def crc(eirun, folder, row):
    script = f"{folder}/crc.lua"
    with open(script, "w") as file:
        file.write('local crypto, clock = require "eirun.core.crypto", require "eirun.core.clock"\n'
                   'local data = ("0123456789abcdef"):rep(16384)\n'
                   'require("eirun.test").test("crc", function()\n  local from = clock.monotonic()\n'
                   '  for _ = 1, 8000 do crypto.crc64(data) end\n  print("rate " .. #data * 8000 / (clock.monotonic() - from) / 1e9)\nend)\n')
    rates = [float(re.search(r"rate ([\d.]+)", measured([eirun, "test", script])[0]).group(1)) for _ in range(3)]
    with open("/proc/cpuinfo") as file:
        fast = "pclmulqdq" in file.read()
    row("oss: CRC-64 of one core", f"{max(rates):.1f} GB/s", ">= 5 GB/s" if fast else "", max(rates) >= 5 if fast else None)


def write_files(folder):
    os.makedirs(f"{folder}/tree")
    for i in range(FILES):
        with open(f"{folder}/tree/f{i:05}", "wb") as file:
            file.write(os.urandom(4096))
    with open(f"{folder}/large.bin", "wb") as file:
        for _ in range(LARGE // 1_000_000):
            file.write(os.urandom(1_000_000))


def bench(eirun, folder, row):
    if len(os.sched_getaffinity(0)) < 2:
        row("oss", "needs two cores", "", None)
        return
    crc(eirun, folder, row)
    if not shutil.which("nginx") or not os.path.isdir("/dev/shm"):
        row("oss", "nginx or /dev/shm is missing", "", None)
        return
    peers, cache = install()
    with tempfile.TemporaryDirectory(prefix="eirun-bench-", dir="/dev/shm") as memory:
        write_files(memory)
        sink = Sink(f"{memory}/nginx")
        try:
            tree(eirun, peers, f"{memory}/tree", sink.env(cache), row, "nginx", ROUNDS)
            sink.pin()
            one(eirun, peers, f"{memory}/large.bin", sink.env(cache), row)
        finally:
            sink.close()
        shutil.rmtree(f"{memory}/nginx")
        sandbox = Sandbox(eirun, memory)
        try:
            tree(eirun, peers, f"{memory}/tree", sandbox.env(cache), row, "the sandbox", 1)
            parts(eirun, peers, f"{memory}/large.bin", sandbox.env(cache), row)
        finally:
            sandbox.close()
