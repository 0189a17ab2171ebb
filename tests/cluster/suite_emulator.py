# SPDX-License-Identifier: Apache-2.0
"""The emulator's own tests on a real control plane, and the emulator against answers that a real API server gives now."""
import contextlib
import http.server
import json
import os
import re
import signal
import threading

import controlplane
from common import ROOT, check, eirun
import record_answers

DATA = os.path.join(ROOT, "tests/data/kube")
# Nobody renews leases of the nodes that these tests make.
FLAGS = {"kube-controller-manager": {"node-monitor-grace-period": "86400s"}}
# How many tests of each file a real server is asked; what is left out injects faults or looks inside the emulator.
# The tests of the API last: they kill the server, and its controllers take their time to come back to it.
EXPECTED = {"owned": 8, "apply": 16, "batch": 11, "quota": 7, "api": 30, "controllers": 29}
# suite_controllers.py has one of its own, since it mostly waits.
PLANES = {"controllers": "controllers"}
# What one test may take; the longest waits a minute for the garbage collector of pods.
SECONDS = 170

shared = {}


def own_plane(folder, name="emulator"):
    """A control plane of this suite's own, which runs beside the others'; the recording wants it without controllers."""
    if name not in shared:
        shared[name] = controlplane.Plane(f"{folder}/{name}-plane", FLAGS).start(controllers=False)
    return shared[name]


def finish():
    while shared:
        shared.popitem()[1].stop()


class Control(http.server.BaseHTTPRequestHandler):
    """What the Lua tests cannot do to their plane themselves."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            getattr(self, self.path.removeprefix("/"))(self.server.plane, body)
            status, text = 200, ""
        except Exception as why:  # told to the test that asked
            status, text = 500, str(why)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

    @staticmethod
    def restart(plane, _):
        plane.restart_one("kube-apiserver", signal.SIGKILL)  # one that is asked to end waits for those who watch

    @staticmethod
    def compact(plane, _):
        plane.stop_one("kube-apiserver", signal.SIGKILL)
        plane.compact()
        plane.start_one("kube-apiserver")

    @staticmethod
    def flags(plane, wanted):
        """Restarts the programs that run with other flags than FLAGS and these."""
        for name in ("kube-apiserver", "kube-controller-manager"):
            flags = {**FLAGS.get(name, {}), **wanted.get(name, {})}
            if flags != plane.flags.get(name, {}):
                plane.restart_one(name, signal.SIGKILL, flags)


@contextlib.contextmanager
def controlled(plane):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Control)
    server.plane = plane
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


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
        plane = own_plane(folder, PLANES.get(name, "emulator"))
        if not plane.alive("kube-scheduler"):
            plane.start_controllers()
        with open(f"{plane.pki}/ca.crt") as file:
            facts = {"server": plane.server(), "token": plane.state["token"], "ca": file.read()}
        with controlled(plane) as facts["control"]:
            plane.write(f"{plane.folder}/live.json", json.dumps(facts))
            run = eirun("test", f"{ROOT}/tests/lua/test_kube_{name}.lua", timeout=600,
                        env={"EIRUN_TEST_PLANE": f"{plane.folder}/live.json", "EIRUN_TEST_SECONDS": str(SECONDS)})
        passed, failed = (int(n) for n in re.match(r"(\d+) passed, (\d+) failed", run.stdout.splitlines()[-1]).groups())
        check(run.returncode == 0 and failed == 0, run.stdout + run.stderr)
        check(passed >= EXPECTED[name], f"only {passed} tests of {name} ran on the real server, {EXPECTED[name]} did once:\n{run.stdout}")
        for line in run.stdout.splitlines():
            if line.startswith("slow:"):
                print(f"  {line}", flush=True)
        print(f"  {run.stdout.splitlines()[-1]}", flush=True)
    test.__name__ = f"the_emulators_tests_hold_on_a_real_server_{name}"
    return test


TESTS = [the_recorded_answers_are_still_those_of_a_real_server, the_emulator_answers_as_the_real_server_does_now]
TESTS += [live(name) for name in EXPECTED if name not in PLANES]
