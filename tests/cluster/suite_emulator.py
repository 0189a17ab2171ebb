# SPDX-License-Identifier: Apache-2.0
"""The emulator's own tests on a real control plane, and the emulator against answers that a real API server gives now."""
import json
import os
import re
import sys

import controlplane
from common import ROOT, check, eirun
import record_answers

DATA = os.path.join(ROOT, "tests/data/kube")
# Nobody renews leases of the nodes that these tests make.
FLAGS = {"kube-controller-manager": {"node-monitor-grace-period": "24h"}}
# How many tests of each file a real server can be asked; the rest needs the emulator's inside or hours.
EXPECTED = {"api": 24, "apply": 16, "controllers": 22, "batch": 8}

shared = {}


def own_plane(folder):
    """A control plane of this suite's own, which runs beside the others'; the first test starts it without controllers."""
    if "plane" not in shared:
        shared["plane"] = controlplane.Plane(f"{folder}/emulator-plane", FLAGS).start(controllers=False)
    return shared["plane"]


def finish():
    if "plane" in shared:
        shared.pop("plane").stop()


def lines(path):
    with open(path) as file:
        return file.read().splitlines()


def the_recorded_answers_are_still_those_of_a_real_server(_, folder):
    plane = own_plane(folder)
    requests = lines(f"{DATA}/requests.jsonl")
    answers = list(record_answers.record(plane.server(), plane.state["token"], requests))
    with open(f"{folder}/answers.jsonl", "w") as file:
        file.write("\n".join(answers) + "\n")
    changed = [f"{i + 1} {json.loads(request)['method']} {json.loads(request)['path']}"
               for i, (request, old, new) in enumerate(zip(requests, lines(f"{DATA}/answers.jsonl"), answers))
               if settled(old) != settled(new)]
    check(len(answers) == len(requests) and not changed, f"{len(changed)} of {len(requests)} answers differ: {changed[:10]}")


# What even a real server answers differently each time: names it makes up, versions inside of texts.
RANDOM = [(r'"name":"g-[a-z0-9]{5}"', '"name":"g-"'), (r"kube-api-access-[a-z0-9]{5}", "kube-api-access-"),
          (r'(\\+"resourceVersion\\+":\\+")\d+', r"\1N")]


def without_objects(value):
    """Go prints whole objects into some messages, managed fields in any order included."""
    if isinstance(value, dict):
        return {key: without_objects(v) for key, v in value.items()}
    if isinstance(value, list):
        return [without_objects(v) for v in value]
    return value.split("managedFields")[0] if isinstance(value, str) else value


def settled(answer):
    for pattern, instead in RANDOM:
        answer = re.sub(pattern, instead, answer)
    if '"causes"' in answer:  # conflicts and what Go keeps in maps come in any order
        return "".join(sorted(answer))
    return json.dumps(without_objects(record_answers.normal(json.loads(answer))), sort_keys=True)


def the_emulator_answers_as_the_real_server_does_now(_, folder):
    run = eirun("test", f"{ROOT}/tests/lua/test_kube_recorded.lua", env={"EIRUN_TEST_ANSWERS": f"{folder}/answers.jsonl"})
    check(run.returncode == 0, run.stdout + run.stderr)


def live(name):
    def test(_, folder):
        plane = own_plane(folder)
        if not plane.alive("kube-scheduler"):
            plane.start_controllers()
        with open(f"{plane.pki}/ca.crt") as file:
            facts = {"server": plane.server(), "token": plane.state["token"], "ca": file.read()}
        plane.write(f"{folder}/live.json", json.dumps(facts))
        run = eirun("test", f"{ROOT}/tests/lua/test_kube_{name}.lua", env={"EIRUN_TEST_PLANE": f"{folder}/live.json"}, timeout=400)
        passed, failed = (int(n) for n in re.match(r"(\d+) passed, (\d+) failed", run.stdout.splitlines()[-1]).groups())
        check(run.returncode == 0 and failed == 0, run.stdout + run.stderr)
        check(passed >= EXPECTED[name], f"only {passed} tests of {name} ran on the real server, {EXPECTED[name]} did once:\n{run.stdout}")
        print(f"  {run.stdout.splitlines()[-1]}", file=sys.stdout)
    test.__name__ = f"the_emulators_tests_hold_on_a_real_server_{name}"
    return test


TESTS = [the_recorded_answers_are_still_those_of_a_real_server, the_emulator_answers_as_the_real_server_does_now]
# Run when named, `tests/cluster/run emulator`: a real control plane takes its own time over rights and volumes, and these tests were
# written for one that does not.
WHEN_NAMED = [live(name) for name in EXPECTED]
