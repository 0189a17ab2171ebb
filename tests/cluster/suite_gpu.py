# SPDX-License-Identifier: Apache-2.0
"""eirun gpu cluster on a real control plane with made-up GPU nodes: its counts are those that this file computes from `kubectl get`."""
import http.server
import json
import os
import subprocess
import threading
import time

import suite_arena
from common import check, eirun, eventually, get, kubectl, namespace

NAMESPACE = "gpus"
DEADLINE = 4  # seconds for an exporter: those that answer share the machine with five control planes
# name: (GPUs, allocatable, extra capacity, labels, metrics)
NODES = {
    "gpu-a": (4, 3, {}, {"topology.kubernetes.io/zone": "z1", "node.alibabacloud.com/spot-strategy": "SpotAsPriceGo"}, "good"),
    "gpu-b": (2, 2, {}, {"topology.kubernetes.io/zone": "z2", "node.alibabacloud.com/spot-strategy": "NoSpot"}, "garbage"),
    "gpu-c": (1, 1, {}, {"topology.kubernetes.io/zone": "z2"}, "slow"),
    "gpu-d": (0, 0, {"aliyun.com/gpu-mem": "48", "aliyun.com/gpu-count": "2"}, {"topology.kubernetes.io/zone": "z1"}, "good"),
    "gpu-e": (8, 8, {}, {}, None),
}
# name: (node, resource, of each container, init containers, phase, labels)
PODS = {
    "bert-1": ("gpu-a", "nvidia.com/gpu", [1], [], "Running", {"servingName": "bert", "servingVersion": "1"}),
    "bert-2": ("gpu-b", "nvidia.com/gpu", [1, 1], [], "Running", {"servingName": "bert", "servingVersion": "1"}),
    "first-more": ("gpu-a", "nvidia.com/gpu", [1], [2], "Running", {}),
    "done": ("gpu-e", "nvidia.com/gpu", [4], [], "Succeeded", {}),
    "failed": ("gpu-e", "nvidia.com/gpu", [2], [], "Failed", {}),
    "share": ("gpu-d", "aliyun.com/gpu-mem", [12], [], "Running", {}),
    "waits": (None, "nvidia.com/gpu", [16], [], "Pending", {"servingName": "bert", "servingVersion": "2"}),
    "plain": ("gpu-a", None, [0], [], "Running", {}),
}


class Exporter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name, how = self.path.strip("/").split("/")
        if how == "slow":
            time.sleep(30)
        body = "<html>no metrics</html>" if how == "garbage" else "".join(
            f'DCGM_FI_DEV_GPU_UTIL{{gpu="{i}",UUID="{name}-{i}"}} {10 * i}\nDCGM_FI_DEV_FB_USED{{gpu="{i}",UUID="{name}-{i}"}} 100\n'
            for i in range(max(NODES[name][0], 2)))
        try:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())
        except OSError:
            pass  # whoever gave up waiting is gone

    def log_message(self, *_):
        pass


def make_node(plane, url, name):
    gpus, allocatable, more, labels, how = NODES[name]
    annotations = {"eirun.io/gpu-metrics": f"{url}/{name}/{how}"} if how else {}
    kubectl(plane, "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {
        "name": name, "labels": labels, "annotations": annotations}}))
    base = {"cpu": "16", "memory": "64Gi", "pods": "50", **more}
    status = {"capacity": {**base, **({"nvidia.com/gpu": str(gpus)} if gpus else {})},
              "allocatable": {**base, **({"nvidia.com/gpu": str(allocatable)} if gpus else {})},
              "conditions": [{"type": "Ready", "status": "True", "reason": "Made", "message": "made up",
                              "lastHeartbeatTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}]}
    kubectl(plane, "patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def container(name, resource, count):
    limits = {resource: str(count)} if resource and count else {}
    return {"name": name, "image": "none", "resources": {"limits": limits}}


def make_pod(plane, name):
    node, resource, counts, inits, phase, labels = PODS[name]
    spec = {"containers": [container(f"c{i}", resource, n) for i, n in enumerate(counts)],
            "initContainers": [container(f"i{i}", resource, n) for i, n in enumerate(inits)],
            "tolerations": [{"operator": "Exists"}], **({"nodeName": node} if node else {})}
    kubectl(plane, "apply", "-n", NAMESPACE, "-f", "-", text=json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}))
    if phase != "Pending":
        kubectl(plane, "patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge",
                "-p", json.dumps({"status": {"phase": phase}}))


def make_all(plane):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exporter)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    namespace(plane, NAMESPACE)
    for name in NODES:
        make_node(plane, f"http://127.0.0.1:{server.server_address[1]}", name)
    for name in PODS:
        make_pod(plane, name)


def quantity(resources, kind, name):
    return int((resources.get(kind) or {}).get(name, "0"))


def asked(pod, resource):
    """As the scheduler counts: the containers together, or the neediest init container."""
    spec = pod["spec"]
    together = sum(quantity(c["resources"], "requests", resource) for c in spec["containers"])
    return max([together] + [quantity(c["resources"], "requests", resource) for c in spec.get("initContainers", [])])


def counted(plane):
    """Total, allocatable, allocated and the share of each GPU node, from kubectl alone."""
    found = {}
    for node in get(plane, "nodes")["items"]:
        status = node["status"]
        share = quantity(status, "capacity", "aliyun.com/gpu-mem")
        gpus = quantity(status, "capacity", "nvidia.com/gpu")
        if gpus or share:
            found[node["metadata"]["name"]] = {"gpus": gpus or quantity(status, "capacity", "aliyun.com/gpu-count"), "share": share,
                                               "allocatable": quantity(status, "allocatable", "nvidia.com/gpu"), "allocated": 0, "shared": 0}
    for pod in get(plane, "pods", "-A")["items"]:
        node = found.get(pod["spec"].get("nodeName"))
        if node and pod["status"]["phase"] not in ("Succeeded", "Failed"):
            node["allocated"] += asked(pod, "nvidia.com/gpu")
            node["shared"] += asked(pod, "aliyun.com/gpu-mem")
    return found


def view(plane, *args, kubeconfig=None, code=0):
    result = eirun("gpu", "cluster", "--kubeconfig", kubeconfig or plane.kubeconfig, "-o", "json", "--deadline", str(DEADLINE), *args)
    check(result.returncode == code, f"exit code {result.returncode}: {result.stderr}")
    return json.loads(result.stdout) if code == 0 else result.stderr


def the_counts_are_kubectls(plane, _):
    make_all(plane)
    found, expected = view(plane), counted(plane)
    nodes = {node["name"]: node for node in found["nodes"]}
    check(set(nodes) == set(expected), f"nodes {sorted(nodes)} and {sorted(expected)}")
    for name, want in expected.items():
        have = nodes[name]
        check(have["gpus"] == want["gpus"], f"{name}: {have['gpus']} GPUs, {want}")
        if want["share"]:
            check(have["share"] == {"total": want["share"], "allocated": want["shared"]}, f"{name}: {have['share']}, {want}")
        else:
            check((have["allocatable"], have["allocated"]) == (want["allocatable"], want["allocated"]), f"{name}: {have}, {want}")
    check(nodes["gpu-a"]["allocated"] == 3 and nodes["gpu-e"]["allocated"] == 0, f"nodes {nodes}")
    check((nodes["gpu-a"]["billing"], nodes["gpu-b"]["billing"], nodes["gpu-a"]["zone"]) == ("spot", "on-demand", "z1"), f"nodes {nodes}")
    job = [each for each in found["jobs"] if each["name"] == "bert" and each["version"] == "1"][0]
    check((job["pods"], job["allocated"], job["spot"], job["on_demand"]) == (2, 3, 1, 1), f"job {job}")
    check(found["total"]["waiting"] == 1, f"total {found['total']}")


def top_node(plane, folder):
    """What a real arena says of the nodes, by name."""
    place = suite_arena.home(plane, folder)
    env = {**os.environ, "HOME": place, "ARENA_CONFIG": f"{place}/config", "KUBECONFIG": plane.kubeconfig,
           "PATH": f"{place}/bin:{os.environ['PATH']}"}
    result = subprocess.run([suite_arena.built(), "top", "node", "-o", "json"], capture_output=True, text=True, timeout=60, env=env)
    check(result.returncode == 0, result.stderr)
    found = json.loads(result.stdout)
    return {node["name"]: node for kind in ("gpuExclusiveNodes", "gpuShareNodes") for node in found[kind]}


def arena_top_node_says_the_same(plane, folder):
    """But for two things: arena leaves init containers out, and shares that its own scheduler has not noted on the pod."""
    kubectl(plane, "delete", "pod", "first-more", "-n", NAMESPACE, "--force")
    ours, theirs = {node["name"]: node for node in view(plane, "--source", "none")["nodes"]}, top_node(plane, folder)
    check(set(ours) == set(theirs), f"nodes {sorted(ours)} and {sorted(theirs)}")
    for name, node in ours.items():
        check(node["gpus"] == theirs[name]["totalGPUs"], f"{name}: {node} and {theirs[name]}")
        check(node["gpus"] - node["allocatable"] == theirs[name]["unhealthyGPUs"], f"{name}: {node} and {theirs[name]}")
        if node["mode"] == "exclusive":
            check(node["allocated"] == theirs[name]["allocatedGPUs"], f"{name}: {node} and {theirs[name]}")


def what_does_not_answer_is_said_and_the_rest_is_shown(plane, _):
    started = time.monotonic()
    found = view(plane)
    check(time.monotonic() - started < 20, "a slow node held the others up")
    used = {node["name"]: node.get("used") for node in found["nodes"]}
    check(used["gpu-a"]["utilization"] == 15 and used["gpu-a"]["busy"] == 3, f"used {used}")
    check(not any(used[name] for name in ("gpu-b", "gpu-c", "gpu-e")), f"used {used}")
    notes = "\n".join(found["notes"])
    for words in ("gpu-b: node's own address: these are no metrics", f"gpu-c: node's own address: no answer within {DEADLINE} s", "gpu-e: no exporter"):
        check(words in notes, notes)


def the_proxy_refuses_loopback_and_that_is_said(plane, _):
    kubectl(plane, "apply", "-n", NAMESPACE, "-f", "-", text=json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "exporter", "labels": {"app": "nvidia-dcgm-exporter"}},
        "spec": {"nodeName": "gpu-e", "containers": [{"name": "c", "image": "none", "ports": [{"name": "metrics", "containerPort": 9400}]}]}}))
    kubectl(plane, "patch", "pod", "exporter", "-n", NAMESPACE, "--subresource=status", "--type=merge",
            "-p", json.dumps({"status": {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}}))
    notes = "\n".join(view(plane, "--source", "proxy")["notes"])
    check("API server's proxy" in notes and "gpu-e" in notes, notes)


def identity(plane, folder, name, rules):
    """A kubeconfig of a service account with these rights in the whole cluster."""
    kubectl(plane, "create", "serviceaccount", name, "-n", NAMESPACE)
    if rules:
        kubectl(plane, "create", "clusterrole", name, *rules)
        kubectl(plane, "create", "clusterrolebinding", name, f"--clusterrole={name}", f"--serviceaccount={NAMESPACE}:{name}")
    token = kubectl(plane, "create", "token", name, "-n", NAMESPACE).strip()
    config = json.loads(kubectl(plane, "config", "view", "--raw", "--flatten", "-o", "json"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = f"{folder}/{name}.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return path


def what_is_forbidden_is_said_and_the_rest_is_shown(plane, folder):
    some = identity(plane, folder, "looks-at-nodes", ["--verb=get,list", "--resource=nodes"])
    found = eventually("the role to hold", lambda: _view_or_none(plane, some))
    nodes = {node["name"]: node for node in found["nodes"]}
    check(nodes["gpu-a"]["gpus"] == 4 and nodes["gpu-a"]["used"]["utilization"] == 15, f"nodes {nodes}")
    check("allocated" not in nodes["gpu-a"], f"node {nodes['gpu-a']}")
    check("pods is forbidden" in found["notes"][0], f"notes {found['notes']}")
    none = identity(plane, folder, "sees-nothing", [])
    check("nodes is forbidden" in view(plane, kubeconfig=none, code=1), "nodes may be listed")


def _view_or_none(plane, kubeconfig):
    result = eirun("gpu", "cluster", "--kubeconfig", kubeconfig, "-o", "json", "--deadline", str(DEADLINE))
    return json.loads(result.stdout) if result.returncode == 0 else None


def a_cordoned_node_is_shown_as_such(plane, _):
    kubectl(plane, "cordon", "gpu-b")
    nodes = {node["name"]: node for node in view(plane, "--source", "none")["nodes"]}
    check("SchedulingDisabled" in nodes["gpu-b"]["state"], f"state {nodes['gpu-b']['state']}")
    kubectl(plane, "delete", "node", *NODES)
    kubectl(plane, "delete", "namespace", NAMESPACE, "--wait=false")


TESTS = [the_counts_are_kubectls, arena_top_node_says_the_same, what_does_not_answer_is_said_and_the_rest_is_shown, the_proxy_refuses_loopback_and_that_is_said,
         what_is_forbidden_is_said_and_the_rest_is_shown, a_cordoned_node_is_shown_as_such]
