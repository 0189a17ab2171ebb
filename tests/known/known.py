# SPDX-License-Identifier: Apache-2.0
"""The server of server.c, built and run for a test; and the truth that its time stamps tell."""
import math
import os
import signal
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def build(folder):
    binary = os.path.join(folder, "known-server")
    subprocess.run(["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-o", binary, os.path.join(HERE, "server.c"), "-lm"], check=True)
    return binary


class Known:
    """with Known(binary, folder, "constant", 0.005) as server: ... server.url; afterwards server.stamps [(read, sent)]."""

    def __init__(self, binary, folder, mode, *numbers):
        self.log, port = os.path.join(folder, "stamps"), os.path.join(folder, "port")
        for path in (self.log, port):
            if os.path.exists(path):
                os.remove(path)
        self.process = subprocess.Popen([binary, port, self.log, mode, *map(str, numbers)])
        for _ in range(200):
            if os.path.exists(port):
                break
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{open(port).read().strip()}/"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        with open(self.log) as file:
            self.stamps = [tuple(map(int, line.split())) for line in file]


def percentile(values, percent):
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered) - 1e-9) - 1)]


def from_plan(stamps, started_at, planned):
    """Seconds from the planned time of each request to its answer. Requests arrive in the order of their plan."""
    return [sent / 1e9 - started_at - at for (_, sent), at in zip(stamps, planned) if sent]


def within(measured, truth):
    """1 % of the truth, or 100 microseconds."""
    return abs(measured - truth) <= max(0.01 * truth, 100e-6)
