#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""eirun kube against kubectl and a plain parallel client, on one real API server (tests/cluster builds it), in turn.

    tests/bench/kube.py [apply|list|start ...]
"""
import concurrent.futures
import http.client
import json
import os
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests/cluster"))
import build  # noqa: E402
import controlplane  # noqa: E402

EIRUN = os.environ.get("EIRUN", os.path.join(ROOT, "build/release/eirun"))
CONFIGMAPS, PODS, CONNECTIONS = 1000, 20000, 16
rows = []


def row(name, figure, bound, ok):
    rows.append((name, figure, bound, "ok" if ok else "MISSED"))


class Plain:
    """The least that puts objects on the server: so many connections, each with one request at a time."""

    def __init__(self, plane):
        self.port, self.token, self.local = plane.port("kube-apiserver"), plane.state["token"], threading.local()
        self.context = ssl.create_default_context(cafile=f"{plane.pki}/ca.crt")

    def send(self, method, path, body, kind):
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context)
        connection = self.local.connection
        connection.request(method, path, body, {"Authorization": "Bearer " + self.token, "Content-Type": kind})
        reply = connection.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise SystemExit(f"{method} {path}: {reply.status} {text[:200]}")

    def all(self, requests):
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda r: self.send(*r), requests))


def once(command):
    """Wall seconds and peak memory (MB) of one run."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    errors = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command} failed: {errors[:500]}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def configmap(i, namespace):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"bench-{i:04}", "namespace": namespace},
            "data": {"key": f"value {i}", "text": "x" * 200}}


def manifests(folder, namespace):
    path = f"{folder}/{namespace}.yaml"
    with open(path, "w") as file:
        for i in range(CONFIGMAPS):
            file.write(json.dumps(configmap(i, namespace)) + "\n---\n")
    return path


def apply_by(plane, who, namespace, folder, *options):
    path = manifests(folder, namespace)
    if who == "plain":
        client = Plain(plane)
        requests = [("PATCH", f"/api/v1/namespaces/{namespace}/configmaps/bench-{i:04}?fieldManager=plain&fieldValidation=Strict",
                     json.dumps(configmap(i, namespace)), "application/apply-patch+yaml") for i in range(CONFIGMAPS)]
        started = time.monotonic()
        client.all(requests)
        return time.monotonic() - started
    program = [EIRUN, "kube"] if who == "eirun" else [f"{plane.programs}/kubectl"]
    extra = [] if who == "eirun" else ["--server-side"]
    return once([*program, "--kubeconfig", plane.kubeconfig, "apply", *extra, *options, "-f", path])[0]


def bench_apply(plane, folder):
    times, resent = {who: ([], []) for who in ("eirun", "kubectl", "plain")}, []
    for turn in range(4):
        for who, (first, again) in times.items():
            namespace = f"{who}-{turn}"
            Plain(plane).all([("POST", "/api/v1/namespaces", json.dumps({"metadata": {"name": namespace}}), "application/json")])
            taken = apply_by(plane, who, namespace, folder), apply_by(plane, who, namespace, folder)
            if turn:  # the first round warms the server
                first.append(taken[0])
                again.append(taken[1])
            if turn and who == "eirun":
                resent.append(apply_by(plane, who, namespace, folder, "--resend"))
    (a, a2), (k, k2), (p, p2) = ((statistics.median(f), statistics.median(s)) for f, s in times.values())
    row("apply 1,000 ConfigMaps: kubectl --server-side / eirun", f"{k:.2f} s / {a:.2f} s = {k/a:.1f}", ">= 3", k / a >= 3)
    row("apply them again: kubectl --server-side / eirun", f"{k2:.2f} s / {a2:.2f} s = {k2/a2:.1f}", ">= 2.5", k2 / a2 >= 2.5)
    row("apply: eirun / a plain client with 16 connections", f"{a:.2f} s / {p:.2f} s = {a/p:.2f}", "<= 1.2", a / p <= 1.2)
    row("apply again: eirun / the plain client", f"{a2:.2f} s / {p2:.2f} s = {a2/p2:.2f}", "<= 1.2", a2 / p2 <= 1.2)
    # eirun sends nothing that is as it was applied; with all of it sent:
    r = statistics.median(resent)
    row("apply --resend: kubectl / eirun, eirun / the plain client", f"{k2/r:.1f}, {r/p2:.2f}", "told", True)


def pod(i):
    return {"metadata": {"name": f"pod-{i:05}", "labels": {"app": "bench", "pod-template-hash": "6cdbfc64d5"}}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "registry.example.com/team/serving:1.15.0-gpu", "env": [
            {"name": f"SETTING_{n}", "value": "some value of a setting"} for n in range(8)], "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}}


def bench_list(plane, _):
    Plain(plane).all([("POST", "/api/v1/namespaces/default/pods", json.dumps(pod(i)), "application/json") for i in range(PODS)])
    ours, theirs = [], []
    for turn in range(4):
        a = once([EIRUN, "kube", "--kubeconfig", plane.kubeconfig, "get", "pods", "-o", "name"])
        b = once([f"{plane.programs}/kubectl", "--kubeconfig", plane.kubeconfig, "get", "pods", "-o", "name"])
        if turn:
            ours.append(a)
            theirs.append(b)
    (a, am), (b, bm) = (tuple(statistics.median(v) for v in zip(*side)) for side in (ours, theirs))
    row("20,000 pods to names: kubectl / eirun, time", f"{b:.2f} s / {a:.2f} s = {b/a:.1f}", "> 1", b > a)
    row("20,000 pods to names: kubectl / eirun, memory", f"{bm:.0f} MB / {am:.0f} MB = {bm/am:.1f}", ">= 4", bm / am >= 4)


def wall(command):
    """Seconds from the start of a program to its end, with as little of this script between them as can be."""
    silent = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)] + [(os.POSIX_SPAWN_OPEN, n, os.devnull, os.O_WRONLY, 0) for n in (1, 2)]
    started = time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=silent)
    _, status = os.waitpid(process, 0)
    taken = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{command} failed")
    return taken


def bench_start(plane, _):
    ours, theirs = [], []
    for turn in range(60):
        a = wall([EIRUN, "kube", "--kubeconfig", plane.kubeconfig, "get", "namespace", "default", "-o", "name"])
        b = wall([f"{plane.programs}/kubectl", "--kubeconfig", plane.kubeconfig, "get", "namespace", "default", "-o", "name"])
        if turn >= 20:  # a server that has just started has other things to do
            ours.append(a)
            theirs.append(b)
    a, b = statistics.median(ours), statistics.median(theirs)
    row("start to first answer: kubectl / eirun", f"{b*1000:.0f} ms / {a*1000:.1f} ms = {b/a:.1f}", ">= 5", b / a >= 5)


BENCHES = {"apply": bench_apply, "start": bench_start, "list": bench_list}


def main():
    try:
        build.programs()
    except build.Absent as why:
        print(f"SKIPPED: no real API server: {why}")
        return 0
    folder = tempfile.mkdtemp(prefix="eirun-bench-kube-")
    # Pods without a service account, since nobody makes accounts here.
    plane = controlplane.Plane(f"{folder}/plane", {"kube-apiserver": {"disable-admission-plugins": "ServiceAccount"}}).start(controllers=False)
    try:
        for name in sys.argv[1:] or BENCHES:
            BENCHES[name](plane, folder)
    finally:
        plane.stop()
        shutil.rmtree(folder, ignore_errors=True)
    width = max(len(r[0]) for r in rows)
    for name, figure, bound, verdict in rows:
        print(f"{name:<{width}}  {figure:<32} {bound:<8} {verdict}")
    return int(any(r[3] == "MISSED" for r in rows))


if __name__ == "__main__":
    sys.exit(main())
