# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments of an upload and of a sync, then again: whole, nothing left open, nothing sent twice that had arrived.
Used by tests/e2e/oss_kill and tests/long/oss_kill."""
import hashlib
import json
import os
import random
import signal
import subprocess
import time

from killing import Serving
from support import EIRUN, Scratch, check

BUCKET = "oss://eirun-sandbox-models"
PART = 8 << 20


class Place:
    """A sandbox that another process serves, files, and a state home of their own."""

    def __enter__(self):
        self.scratch = Scratch()
        self.path = self.scratch.__enter__()
        self.work = f"{self.path}/work"
        os.mkdir(self.work)
        self.serving = Serving(f"{self.path}/sandbox", clock="real")
        self.serving.__enter__()
        self.env = {**os.environ, "XDG_STATE_HOME": f"{self.path}/state"}
        return self

    def __exit__(self, *_):
        self.serving.__exit__()
        self.scratch.__exit__()

    def command(self, *words):
        return [EIRUN, "oss", *words, f"--sandbox={self.path}/sandbox", "--json"]

    def run(self, *words):
        process = subprocess.run(self.command(*words), capture_output=True, text=True, cwd=self.work, env=self.env, timeout=300,
                                 stdin=subprocess.DEVNULL)
        check(process.returncode == 0, f"{' '.join(words)}: exit code {process.returncode}: {process.stderr[-500:]}")
        return json.loads(process.stdout)

    def killed(self, after, *words):
        """Did the kill come before the end?"""
        process = subprocess.Popen(self.command(*words), cwd=self.work, env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return process.returncode == -signal.SIGKILL

    def settled(self, ask):
        """An answer that stays the same: what was on the wire when the kill came may still arrive."""
        before, now = None, ask()
        while before != now:
            time.sleep(0.1)
            before, now = now, ask()
        return now

    def uploads(self):
        found = self.run("multipart", "ls", BUCKET)["uploads"]
        return [{k: u[k] for k in ("key", "id", "parts", "bytes")} for u in found]

    def objects(self, prefix):
        return {o["key"]: (o["size"], o["etag"]) for o in self.run("ls", f"{BUCKET}/{prefix}")["objects"]}


def write(path, size, seed):
    """Bytes that differ everywhere; answers the MD5 of each part."""
    sums = []
    stream = random.Random(seed)
    with open(path, "wb") as file:
        for at in range(0, size, PART):
            data = stream.randbytes(min(PART, size - at))
            file.write(data)
            sums.append(hashlib.md5(data).hexdigest().upper())
    return sums


def check_no_strays(place, names):
    check(sorted(os.listdir(place.work)) == sorted(names), f"in the working directory: {os.listdir(place.work)}")
    state = f"{place.path}/state/eirun/oss"
    check(not os.path.isdir(state) or os.listdir(state) == [], "state is left after the end")


def upload_rounds(size, rounds, seed):
    moments = random.Random(seed)
    with Place() as place:
        sums = write(f"{place.work}/big.bin", size, seed)
        etag = f"{hashlib.md5(''.join(sums).encode()).hexdigest().upper()}-{len(sums)}"
        started = time.monotonic()
        place.run("cp", "big.bin", f"{BUCKET}/first")
        crc = place.run("stat", f"{BUCKET}/first")["crc64"]
        span, kills = time.monotonic() - started, 0
        for n in range(rounds):
            key = f"big-{n}"
            after = moments.uniform(0.02, span)
            kills += place.killed(after, "cp", "big.bin", f"{BUCKET}/{key}")
            there = place.settled(place.uploads)
            check(len(there) <= 1, f"round {n}: {len(there)} uploads are open")
            report = place.run("cp", "big.bin", f"{BUCKET}/{key}")
            found = place.run("stat", f"{BUCKET}/{key}")
            where = f"round {n}, killed after {after:.2f} s"
            check((found["size"], found["etag"], found["crc64"]) == (size, etag, crc), f"{where}: the object is {found}")
            check(place.uploads() == [], f"{where}: an upload is left open")
            had = there[0]["bytes"] if there else 0 if report["sent"] else report["skipped"]
            check(report["files"] == 0 or report["skipped"] == had, f"{where}: {had} bytes had arrived, {report['skipped']} were not sent again")
            check_no_strays(place, ["big.bin"])
            place.run("rm", f"{BUCKET}/{key}")
            if os.environ.get("VERBOSE"):
                print(f"{where}: {had} of {size} bytes had arrived, {report['sent']} sent", flush=True)
        return kills


def sync_rounds(files, rounds, seed):
    moments = random.Random(seed)
    with Place() as place:
        expected = {}
        for i in range(files):
            relative = f"tree/{i % 20:02}/{i:05}.bin"
            os.makedirs(os.path.dirname(f"{place.work}/{relative}"), exist_ok=True)
            size = moments.randrange(0, 20000)
            expected[relative] = (size, write(f"{place.work}/{relative}", size, i)[0] if size else hashlib.md5(b"").hexdigest().upper())
        started = time.monotonic()
        place.run("sync", "tree", f"{BUCKET}/first/")
        span, kills = time.monotonic() - started, 0
        for n in range(rounds):
            prefix = f"tree-{n}/"
            wanted = {prefix + name[len("tree/"):]: facts for name, facts in expected.items()}
            after = moments.uniform(0.02, span)
            kills += place.killed(after, "sync", "tree", f"{BUCKET}/{prefix}")
            there = place.settled(lambda: place.objects(prefix))
            where = f"round {n}, killed after {after:.2f} s"
            wrong = {key: facts for key, facts in there.items() if wanted.get(key) != facts}
            check(not wrong, f"{where}: half an object is visible: {wrong}")
            report = place.run("sync", "tree", f"{BUCKET}/{prefix}")
            check(place.objects(prefix) == wanted, f"{where}: the trees differ")
            check(report["files"] == files - len(there), f"{where}: {len(there)} objects were there, {report['files']} were sent")
            check(place.uploads() == [], f"{where}: an upload is left open")
            check_no_strays(place, ["tree"])
            place.run("rm", "-r", "-f", f"{BUCKET}/{prefix}")
            if os.environ.get("VERBOSE"):
                print(f"{where}: {len(there)} of {files} objects were there, {report['files']} sent", flush=True)
        return kills
