# SPDX-License-Identifier: Apache-2.0
"""One wave of load on the emulated and on the real autoscaler, at once, with the same flags and delays: the same replicas."""
import concurrent.futures

import controlplane
from common import LAGS, PLAYBOOKS, Run, check, eirun, play

SYNC, WINDOW = 2, 15  # seconds: the flag and the lag; the adapter's least window
STEP = 0.5
shared = {}


def finish():
    if "plane" in shared:
        shared.pop("plane").stop()


def samples(run):
    check(run.code == 0 and run.end, f"exit code {run.code}: {run.error()}")
    return [(one["t"], one["replicas"]) for one in run.end["result"]["samples"]]


def emulated(folder):
    return samples(Run(eirun(f"--sandbox={folder}/hpa-emulated", "--clock", "real", "--lag", LAGS, "--output", "jsonl",
                             f"{PLAYBOOKS}/scale.lua", timeout=300)))


def real(folder):
    plane = shared["plane"] = controlplane.Plane(f"{folder}/hpa-plane").start()
    return samples(play(plane, f"{folder}/hpa-real", f"{PLAYBOOKS}/scale.lua", timeout=300))


def at(line, t):
    """The replicas at a time, as the last sample before it says."""
    value = line[0][1]
    for when, replicas in line:
        if when > t:
            break
        value = replicas
    return value


def distance(a, b, shift):
    end = min(a[-1][0], b[-1][0] - shift)
    times = [i * STEP for i in range(int(max(0, -shift) / STEP), int(end / STEP))]
    return max(abs(at(a, t) - at(b, t + shift)) for t in times)


def replicas_over_time_agree(_, folder):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        a, b = pool.submit(emulated, folder), pool.submit(real, folder)
        a, b = a.result(), b.result()
    check(max(n for _, n in a) >= 5 and a[-1][1] == b[-1][1] == 1, f"the wave did not scale up and down: {changes(a)} {changes(b)}")
    most = int((SYNC + WINDOW) / STEP)
    best = min((distance(a, b, i * STEP), abs(i * STEP)) for i in range(-most, most + 1))
    print(f"  emulated {changes(a)}, real {changes(b)}: at most {best[0]} apart when shifted by {best[1]} s")
    check(best[0] <= 1, f"replicas differ by {best[0]}: emulated {changes(a)}, real {changes(b)}")


def changes(line):
    return [(round(t, 1), n) for i, (t, n) in enumerate(line) if not i or line[i - 1][1] != n]


TESTS = [replicas_over_time_agree]
