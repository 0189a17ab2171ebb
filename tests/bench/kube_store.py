#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The cache of a watch: 100,000 pods of 3 KB, memory and events a second on one core. Exits 1 when a bound is missed."""
import http.server
import json
import os
import re
import subprocess
import sys
import threading

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EIRUN = os.environ.get("EIRUN", os.path.join(ROOT, "build/release/eirun"))
SCRIPT = os.path.join(ROOT, "tests/bench/kube_store.lua")
PODS, EVENTS = 2000, 200000
rows = []


def row(name, figure, bound, ok):
    rows.append((name, figure, bound, "ok" if ok else "MISSED"))


def run(env=None):
    command = ["taskset", "-c", "0", EIRUN, "test", SCRIPT] if env is None else [EIRUN, "test", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})
    found = re.search(r"^RESULT (.*)$", done.stdout, re.M)
    if not found:
        raise SystemExit(done.stdout + done.stderr)
    return json.loads(found.group(1))


def pod(i, version):
    fields = {f"f:field{n}": {"f:type": {}, "f:status": {}, "f:lastTransitionTime": {}} for n in range(24)}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": f"bert-{i:06d}", "namespace": "serving", "uid": f"u-{i:032d}",
            "resourceVersion": str(version), "labels": {"app": "bert"}, "managedFields": [{"manager": "kubelet", "fieldsV1": fields}]},
            "spec": {"nodeName": f"n-{i % 250}", "containers": [{"name": "c", "image": "tensorflow/serving:1.15.0-gpu", "env": [
                {"name": f"VARIABLE_{n}", "value": "some value of the kind that is found there"} for n in range(12)]}]},
            "status": {"phase": "Running", "podIP": f"10.0.{i // 250 % 250}.{i % 250}"}}


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        if "watch=true" not in self.path:
            body = json.dumps({"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": []}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            for n in range(EVENTS // PODS):
                self.wfile.write(STREAM[n % 2])
            threading.Event().wait(30)
        except OSError:
            pass


def stream(version):
    return b"".join(json.dumps({"type": "MODIFIED", "object": pod(i, version + i)}, separators=(",", ":")).encode() + b"\n" for i in range(PODS))


def main():
    global STREAM
    inside = run()
    row("a pod of 3 KB in the store, bytes", f"{inside['store_bytes']} ({inside['rss_bytes']} of the process)", "<= 1536",
        inside["store_bytes"] <= 1536 and inside["rss_bytes"] <= 1536)
    row("events of %d bytes a second, one core, bytes at hand" % inside["bytes_of_a_pod"], f"{inside['events_a_second']:,.0f}", ">= 100,000",
        inside["events_a_second"] >= 100000)
    row("full decode against picking, us an event", f"{inside['decode_us']:.1f} / {inside['pick_us']:.1f}", ">= 5 times",
        inside["decode_us"] >= 5 * inside["pick_us"])
    STREAM = [stream(1000000), stream(3000000)]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    outside = run({"BENCH_URL": f"http://127.0.0.1:{server.server_port}", "BENCH_EVENTS": str(EVENTS)})
    size = len(STREAM[0]) // PODS
    row("events of %d bytes a second over HTTP from a loopback server" % size, f"{outside['events_a_second']:,.0f}", ">= 100,000",
        outside["events_a_second"] >= 100000)
    for name, figure, bound, verdict in rows:
        print(f"{name:70} {figure:>24}  {bound:12} {verdict}")
    return 1 if any(r[3] == "MISSED" for r in rows) else 0


sys.exit(main())
