# SPDX-License-Identifier: Apache-2.0
"""kill -9 at the n-th event of the main job, then again: converged, nothing doubled. Used by tests/e2e/kill and tests/long/run."""
import hashlib
import os
import re
import signal
import subprocess
import time

from support import BERT, EIRUN, ROOT, Scratch, check, play

INVENTORY = os.path.join(ROOT, "tests/e2e/playbooks/inventory.lua")
MODEL = os.path.join(ROOT, "playbooks/models/chnsenticorp")
RESOURCE_STEPS = ["elastic node pool", "model to OSS", "volume for the model", "inference job", "scale on requests", "public ingress"]
SETUP = ["load=no"]
LOAD = ["peak=2", "thresholds=errors<100%"]  # a load test of some 1,700 requests: a twentieth of the events


def killed_at(sandbox, n, arguments):
    """Runs the main job with a kill at its n-th event: what was going on there, or None when it ended before."""
    run = play(sandbox, BERT, *arguments, "report=", env={"EIRUN_KILL_AT": str(n)})
    if run.code == -signal.SIGKILL:
        return re.search(r"killed at: (.*)", run.stderr).group(1)
    check(run.code == 0, f"event {n}: exit code {run.code}: {run.error()}")
    return None


def count_events(arguments, sandbox_of, precision=0.03):
    """How many events a run has, found by halving."""
    low, high = 1, 128
    while sandbox_of(lambda sandbox: killed_at(sandbox, high, arguments)) is not None:
        low, high = high, high * 2
    while high - low > max(2, low * precision):
        middle = (low + high) // 2
        if sandbox_of(lambda sandbox: killed_at(sandbox, middle, arguments)) is None:
            high = middle
        else:
            low = middle
    return low


def spread(first, last, count):
    return sorted({round(first + (last - first) * i / max(1, count - 1)) for i in range(count)})


def in_process(body):
    """A sandbox in the run's own process: a kill takes both."""
    with Scratch() as folder:
        return body(f"{folder}/sandbox")


class Serving:
    """`eirun sandbox serve` in a folder of its own."""

    def __init__(self, directory, clock="80x"):
        self.process = subprocess.Popen([EIRUN, "sandbox", "serve", directory, "--clock", clock], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        check(line == "ready\n", f"the sandbox says {line!r} {self.process.stderr.read() if not line else ''}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def beside_a_server(body):
    """A sandbox that another process serves: a kill takes eirun alone."""
    with Scratch() as folder, Serving(f"{folder}/sandbox"):
        return body(f"{folder}/sandbox")


def expected_objects():
    found = []
    for folder, _, files in os.walk(MODEL):
        for name in files:
            path = os.path.join(folder, name)
            key = os.path.relpath(path, MODEL)
            if os.path.dirname(key):  # version folders only
                data = open(path, "rb").read()
                found.append({"key": "tensorflow/" + key, "size": len(data), "etag": hashlib.md5(data).hexdigest().upper()})
    return sorted(found, key=lambda o: o["key"])


def inventory(sandbox):
    run = play(sandbox, INVENTORY)
    check(run.code == 0, run.error())
    return run.end["result"]


def one(names, pattern):
    """The only one of these names that is not the cluster's own and that the pattern fits."""
    own = [n for n in names if not n.startswith("kube-") and n not in ("default/kubernetes", "default/kube-root-ca.crt")]
    check(len(own) == 1 and re.fullmatch(pattern, own[0]), f"one {pattern} is wanted, there is {own}")
    return own[0]


def check_world(found):
    check(found["pools"] == ["default", "inference-gpu"], found["pools"])
    kube = found["kube"]
    deployment = one(kube["Deployment"], r"default/bert-tfserving-\d{12}-tensorflow-serving")
    job = deployment[:-len("-tensorflow-serving")]
    one(kube["Service"], re.escape(deployment))
    one(kube["HorizontalPodAutoscaler"], "default/bert-tfserving-hpa")
    one(kube["Ingress"], "default/bert-tfserving")
    one(kube["PersistentVolume"], "/model-csi-pv")
    one(kube["PersistentVolumeClaim"], "default/model-pvc")
    one(kube["Secret"], "default/model-csi-pv-oss")
    one(kube["ReplicaSet"], re.escape(deployment) + "-[0-9a-z]+")
    own = [n for n in kube["ConfigMap"] if not n.endswith("kube-root-ca.crt")]
    check(own == [f"{deployment}-cm", f"{job}-tf-serving"], own)
    name = deployment.split("/")[1]
    lines = [f"configmap/{name}-cm", f"service/{name}", f"deployment.apps/{name}", f"poddisruptionbudget.policy/{name}",
             "horizontalpodautoscaler.autoscaling/bert-tfserving-hpa",
             "ingress.networking.k8s.io/bert-tfserving"]
    check(found["books"] == {f"{job.split('/')[1]}-tf-serving": "\n".join(lines)}, found["books"])
    check(found["objects"] == expected_objects(), found["objects"])
    check(found["uploads"] == 0, f"{found['uploads']} open uploads")
    check(found["instances"] == found["nodes"], f"instances {found['instances']}, nodes {found['nodes']}")
    check(len(kube["Node"]) == len(found["nodes"]), f"{kube['Node']} and {found['nodes']}")
    check(len(kube["Pod"]) <= len(kube["Node"]), kube["Pod"])


def converges(sandbox, where):
    """Run again, look, and once more: repaired, nothing doubled, unchanged."""
    again = play(sandbox, BERT, "load=no")
    check(again.code == 0, f"{where}, run again: exit code {again.code}: {again.error()}")
    outcomes = {s: again.steps[s]["outcome"] for s in RESOURCE_STEPS}
    check(set(outcomes.values()) <= {"created", "updated", "unchanged"}, f"{where}: {outcomes}")
    found = inventory(sandbox)
    try:
        check_world(found)
    except AssertionError as problem:
        raise AssertionError(f"{where}: {problem}") from None
    third = play(sandbox, BERT, "load=no")
    check(third.code == 0, f"{where}, third run: exit code {third.code}: {third.error()}")
    changed = {s: third.steps[s] for s in RESOURCE_STEPS if third.steps[s]["outcome"] != "unchanged"}
    check(not changed, f"{where}, third run: {changed}")


def kill_and_repair(n, arguments, sandbox_of, kind):
    def body(sandbox):
        what = killed_at(sandbox, n, arguments)
        converges(sandbox, f"{kind}, killed at event {n} ({what or 'after its end'})")
    started = time.monotonic()
    sandbox_of(body)
    return time.monotonic() - started


def points(setup, load):
    """Event numbers of a job without load and of one with: (n, arguments) for `setup` and `load` many."""
    def of(sandbox_of):
        first = count_events(SETUP, sandbox_of)
        chosen = [(n, SETUP) for n in spread(1, first, setup)]
        if load:
            chosen += [(n, LOAD) for n in spread(first + 10, count_events(LOAD, sandbox_of, 0.2), load)]
        return chosen
    return of


def run_points(sandbox_of, kind, setup, load):
    failures = []
    for n, arguments in points(setup, load)(sandbox_of):
        try:
            seconds = kill_and_repair(n, arguments, sandbox_of, kind)
            if os.environ.get("VERBOSE"):
                print(f"{kind}: event {n} of {arguments[0]}: repaired ({seconds:.1f} s)", flush=True)
        except AssertionError as problem:
            failures.append(str(problem))
            print(f"failed: {problem}", flush=True)
    check(not failures, f"{len(failures)} kill points failed")
