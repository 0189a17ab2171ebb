# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end scripts share: running the program, reading its events, counting."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EIRUN = os.environ.get("EIRUN", os.path.join(ROOT, "build/release/eirun"))
BERT = os.path.join(ROOT, "playbooks/bert.lua")


class Run:
    """One run of the program with --output jsonl."""

    def __init__(self, process):
        self.code = process.returncode
        self.stderr = process.stderr
        self.lines = process.stdout.splitlines()
        self.events = []
        for line in self.lines:
            try:
                self.events.append(json.loads(line))
            except ValueError:
                pass
        self.steps = {e["name"]: e for e in self.events if e["event"] == "step"}
        self.end = self.events[-1] if self.events and self.events[-1]["event"] == "run" else None

    def outcomes(self):
        return {name: step["outcome"] for name, step in self.steps.items()}

    def error(self):
        for event in self.events:
            if event.get("error"):
                return event["error"]["message"] + " " + (event["error"].get("hint") or "")
        return self.stderr


def eirun(*args, env=None, timeout=120, cwd=None):
    return subprocess.run([EIRUN, *args], capture_output=True, text=True, timeout=timeout, cwd=cwd,
                          env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL)


def play(sandbox, playbook, *args, env=None, timeout=120, options=()):
    folder = os.path.dirname(sandbox)
    extra = [f"report={folder}/report.html"] if playbook == BERT and not any(a.startswith("report=") for a in args) else []
    return Run(eirun(f"--sandbox={sandbox}", *options, "--output", "jsonl", playbook, *args, *extra, env=env, timeout=timeout))


class Scratch:
    def __enter__(self):
        self.path = tempfile.mkdtemp(prefix="eirun-e2e-")
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def main(tests):
    """Runs the functions whose names contain the words of the command line; prints the closing line."""
    passed = failed = 0
    for test in tests:
        if sys.argv[1:] and not any(word in test.__name__ for word in sys.argv[1:]):
            continue
        try:
            test()
            passed += 1
        except Exception:
            failed += 1
            print(f"failed: {test.__name__}")
            traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed > 0)
