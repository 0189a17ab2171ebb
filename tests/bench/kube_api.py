#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""eirun kube against kubectl and a plain parallel client, on a real API server (tests/cluster/plane): ratios of one run.

tests/bench/kube_api.py [ROUNDS]. Exits 1 when a bound is missed; SKIPPED without Go.
"""
import concurrent.futures
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EIRUN = os.environ.get("EIRUN", os.path.join(ROOT, "build/release/eirun"))
OBJECTS, PODS, THREADS = 1000, 20000, 16
rows = []


def row(name, figure, bound, ok):
    rows.append((name, figure, bound, "ok" if ok else "MISSED"))


def once(command, env):
    before = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command} failed")
    return time.monotonic() - before, usage.ru_maxrss / 1024


class Plain:
    """PATCHes by threads, each with a connection of its own: what the server can do."""

    def __init__(self, plane):
        with open(plane + "/plane.json") as file:
            facts = json.load(file)
        self.port, self.token = facts["ports"]["kube-apiserver"], facts["token"]
        self.context = ssl._create_unverified_context()
        self.local = threading.local()

    def call(self, method, path, body=None, kind="application/apply-patch+yaml"):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context)
        headers = {"Authorization": "Bearer " + self.token, "Content-Type": kind}
        self.local.connection.request(method, path, body, headers)
        reply = self.local.connection.getresponse()
        text = reply.read()
        if reply.status >= 300 and reply.status != 409:
            raise SystemExit(f"{method} {path}: {reply.status} {text[:200]}")
        return text

    def apply(self, objects, space):
        def one(o):
            self.call("PATCH", f"/api/v1/namespaces/{space}/configmaps/{o['metadata']['name']}?fieldManager=plain&force=false", json.dumps(o))
        before = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(one, objects))
        return time.monotonic() - before


def config_maps(space, value):
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"cm-{i:04d}", "namespace": space},
             "data": {"a": f"{value}-{i}", "b": "x" * 60}} for i in range(OBJECTS)]


def write(path, objects):
    with open(path, "w") as file:
        file.write("\n---\n".join(json.dumps(o) for o in objects))
    return path


def applies(plain, kubectl, folder, env, rounds):
    first, again = {"eirun": [], "kubectl": [], "plain": []}, {"eirun": [], "kubectl": [], "plain": []}
    for n in range(rounds):
        for who in ("eirun", "plain", "kubectl"):
            space = f"{who}-{n}-{os.getpid()}"
            plain.call("POST", "/api/v1/namespaces", json.dumps({"metadata": {"name": space}}), "application/json")
            objects = config_maps(space, "v")
            path = write(f"{folder}/{space}.yaml", objects)
            command = {"eirun": [EIRUN, "kube", "apply", "-f", path], "kubectl": [kubectl, "apply", "--server-side", "-f", path]}.get(who)
            for times in (first, again):
                times[who].append(once(command, env)[0] if command else plain.apply(objects, space))
    for name, times, bound in (("apply 1,000 ConfigMaps", first, 3), ("apply them again", again, 2.5)):
        ours, theirs, limit = (statistics.median(times[who]) for who in ("eirun", "kubectl", "plain"))
        row(f"{name}: eirun {ours:.2f} s, kubectl {theirs:.2f} s", f"{theirs / ours:.1f} times faster", f">= {bound}", theirs >= bound * ours)
        row(f"{name}: a plain parallel client {limit:.2f} s", f"{ours / limit:.2f} times its time", "<= 1.2", ours <= 1.2 * limit)


def lists(plain, kubectl, env, rounds):
    space = f"many-{os.getpid()}"
    plain.call("POST", "/api/v1/namespaces", json.dumps({"metadata": {"name": space}}), "application/json")
    plain.call("POST", f"/api/v1/namespaces/{space}/serviceaccounts", json.dumps({"metadata": {"name": "default"}}), "application/json")
    environment = [{"name": f"VARIABLE_{n}", "value": "some value of the kind that is found there"} for n in range(12)]

    def pod(i):
        body = {"metadata": {"name": f"pod-{i:05d}", "labels": {"app": "bert"}}, "spec": {"schedulerName": "nobody", "automountServiceAccountToken": False,
                "containers": [{"name": "c", "image": "img:1", "env": environment}]}}
        plain.call("POST", f"/api/v1/namespaces/{space}/pods", json.dumps(body), "application/json")
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(pod, range(PODS)))
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(once([EIRUN, "kube", "get", "pods", "-n", space, "-o", "name"], env))
        theirs.append(once([kubectl, "get", "pods", "-n", space, "-o", "name"], env))
    a, b = statistics.median(t for t, _ in ours), statistics.median(t for t, _ in theirs)
    row(f"{PODS:,} pods to names: eirun {a:.2f} s, kubectl {b:.2f} s", f"{a / b:.2f} of its time", "< 1", a < b)
    a, b = max(m for _, m in ours), min(m for _, m in theirs)
    row(f"{PODS:,} pods to names: eirun {a:.0f} MB, kubectl {b:.0f} MB", f"{a / b:.2f} of its memory", "<= 0.25", a <= 0.25 * b)


def starts(kubectl, env, rounds):
    ours, theirs = [], []
    for _ in range(5 * rounds):
        ours.append(once([EIRUN, "kube", "get", "ns", "default", "-o", "name"], env)[0])
        theirs.append(once([kubectl, "get", "ns", "default", "-o", "name"], env)[0])
    a, b = statistics.median(ours), statistics.median(theirs)
    row(f"start to first answer: eirun {a * 1000:.0f} ms, kubectl {b * 1000:.0f} ms", f"{b / a:.1f} times faster", ">= 5", b >= 5 * a)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    plane = ROOT + "/tests/cluster/plane"
    with tempfile.TemporaryDirectory() as folder:
        started = subprocess.run([plane, "start", folder + "/plane"], capture_output=True, text=True)
        if started.returncode or not os.path.exists(folder + "/plane/plane.json"):
            print("SKIPPED: no control plane: " + (started.stdout + started.stderr).strip()[-200:])
            return 0
        try:
            with open(folder + "/plane/plane.json") as file:
                kubectl = json.load(file)["programs"] + "/kubectl"
            env = {**os.environ, "KUBECONFIG": folder + "/plane/kubeconfig", "HOME": folder}
            plain = Plain(folder + "/plane")
            once([kubectl, "get", "pods"], env)  # its discovery cache is warm, as an operator's is
            starts(kubectl, env, rounds)
            applies(plain, kubectl, folder, env, rounds)
            if os.environ.get("LISTS", "1") != "0":
                lists(plain, kubectl, env, rounds)
        finally:
            subprocess.run([plane, "stop", folder + "/plane"], capture_output=True)
    for name, figure, bound, verdict in rows:
        print(f"{name:72} {figure:>22}  {bound:8} {verdict}")
    return 1 if any(r[3] == "MISSED" for r in rows) else 0


sys.exit(main())
