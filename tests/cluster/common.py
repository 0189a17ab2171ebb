# SPDX-License-Identifier: Apache-2.0
"""What the tests on a real control plane share: the plane, the program, kubectl."""
import json
import os
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.append(os.path.join(ROOT, "tests/e2e"))
from support import EIRUN, Run, check  # noqa: E402,F401

PLAYBOOKS = os.path.join(ROOT, "tests/cluster/playbooks")
# The sandbox's own delays at a twentieth; the metric's and the autoscaler's are those of the control plane's flags.
LAGS = "0.05,node_lease=40,metric_delay=2,metric_window=4,hpa_sync=2,hpa_downscale_window=10,log_collect=0.5"


def eirun(*args, env=None, timeout=150, cwd=None):
    try:
        return subprocess.run([EIRUN, *args], capture_output=True, text=True, timeout=timeout, cwd=cwd, stdin=subprocess.DEVNULL,
                              env={**os.environ, **(env or {})})
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode("utf-8", "replace")[-2000:]
        raise AssertionError(f"eirun {' '.join(args)} did not end within {timeout} s; it said: {said}") from None


def play(plane, sandbox, playbook, *args, kubeconfig=None, timeout=150, options=()):
    """A playbook on the real plane, the sandbox's cloud around it."""
    return Run(eirun(f"--sandbox={sandbox}", "--kubeconfig", kubeconfig or plane.kubeconfig, "--lag", LAGS, "--output", "jsonl", *options,
                     playbook, *args, timeout=timeout))


def kubectl(plane, *args, text=None, ok=True, timeout=60):
    result = subprocess.run([f"{plane.programs}/kubectl", "--kubeconfig", plane.kubeconfig, *args], input=text, capture_output=True,
                            text=True, timeout=timeout)
    if ok and result.returncode:
        raise AssertionError(f"kubectl {' '.join(args)}: {result.stderr}")
    return result.stdout if ok else result


def get(plane, *args):
    return json.loads(kubectl(plane, "get", *args, "-o", "json"))


def eventually(what, probe, seconds=30, pause=0.2):
    """Waits until probe() answers something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        check(time.monotonic() < deadline, f"{what} did not happen within {seconds} s")
        time.sleep(pause)


def namespace(plane, name):
    """A namespace in which pods can be made: its service account is there."""
    kubectl(plane, "create", "namespace", name)
    eventually("the default service account", lambda: kubectl(plane, "get", "serviceaccount", "default", "-n", name, ok=False).returncode == 0)
    return name
