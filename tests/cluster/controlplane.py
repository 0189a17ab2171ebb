# SPDX-License-Identifier: Apache-2.0
"""etcd, API server, controller manager and scheduler as processes of this machine: started, restarted, stopped."""
import base64
import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time

import build
import certs

ORDER = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
READY_SECONDS = 120
STOP_SECONDS = 20
OPEN_PATHS = "/healthz,/readyz,/livez,/metrics"

RUNNING = []  # the planes of this process


class Failed(Exception):
    """A program of the control plane did not come up."""


def reserve_ports(count):
    """Sockets bound to ports that are nobody else's while the sockets are open: the planes of one run start at the same time, and a
    program that finds its port taken ends, while the one that has it answers for both. Go's listeners share a port with a socket
    that does not listen (SO_REUSEADDR on both). Below the ports that the kernel gives to clients: a client that knocks at a server
    that is down could otherwise be given that very port, and keep it."""
    sockets = []
    while len(sockets) < count:
        one = socket.socket()
        try:
            one.bind(("127.0.0.1", random.randrange(20000, 32000)))
        except OSError:
            one.close()
            continue
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # after bind(), which would share with another's reservation
        sockets.append(one)
    return sockets


def fetch(port, path, tls):
    connection = (http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=ssl._create_unverified_context()) if tls
                  else http.client.HTTPConnection("127.0.0.1", port, timeout=5))
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def tail(path, lines=15):
    try:
        with open(path, errors="replace") as file:
            return "".join(file.readlines()[-lines:])
    except OSError:
        return ""


class Plane:
    """A control plane whose files lie in one folder. `flags` adds or replaces flags: {program: {flag: value}}."""

    def __init__(self, folder, flags=None):
        self.folder = os.path.abspath(folder)
        self.pki = f"{self.folder}/pki"
        self.kubeconfig = f"{self.folder}/kubeconfig"
        self.flags = flags or {}
        self.state = {}
        self.programs = None
        self.reserved = []

    # Set up ---------------------------------------------------------------------------------------------------------

    def prepare(self):
        self.programs = build.programs()
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        if os.path.exists(f"{self.folder}/plane.json"):
            raise Failed(f"'{self.folder}' holds a control plane already: stop it first")
        certs.make_all(self.pki)
        names = ("etcd", "peer", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
        self.reserved = reserve_ports(len(names))
        ports = (one.getsockname()[1] for one in self.reserved)
        self.state = {"ports": dict(zip(names, ports)), "pids": {}, "token": secrets.token_hex(16), "programs": self.programs,
                      "flags": self.flags}
        RUNNING.append(self)
        self.write(f"{self.pki}/tokens.csv", f'{self.state["token"]},admin,1,"system:masters"\n')
        self.write_kubeconfig(self.kubeconfig, {"client-certificate-data": self.encoded("admin.crt"), "client-key-data": self.encoded("admin.key")})
        self.write(f"{self.folder}/env.sh", f"export KUBECONFIG='{self.kubeconfig}' PATH='{self.programs}':\"$PATH\"\n")
        self.save()

    @staticmethod
    def load(folder):
        plane = Plane(folder)
        with open(f"{plane.folder}/plane.json") as file:
            plane.state = json.load(file)
        plane.programs, plane.flags = plane.state["programs"], plane.state["flags"]
        return plane

    def save(self):
        self.write(f"{self.folder}/plane.json", json.dumps(self.state, indent=2) + "\n")

    @staticmethod
    def write(path, text):
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)

    def encoded(self, name):
        with open(f"{self.pki}/{name}", "rb") as file:
            return base64.b64encode(file.read()).decode()

    def server(self):
        return f"https://127.0.0.1:{self.port('kube-apiserver')}"

    def port(self, name):
        return self.state["ports"][name]

    def write_kubeconfig(self, path, user, namespace="default"):
        """A kubeconfig (JSON is YAML) of this API server for a user: {"token": ...} or certificate data."""
        self.write(path, json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.server(), "certificate-authority-data": self.encoded("ca.crt")}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        }, indent=2) + "\n")

    # Flags ----------------------------------------------------------------------------------------------------------

    def default_flags(self, name):
        pki = self.pki
        if name == "etcd":
            client, peer = f"http://127.0.0.1:{self.port('etcd')}", f"http://127.0.0.1:{self.port('peer')}"
            return {"data-dir": f"{self.folder}/etcd", "unsafe-no-fsync": None, "listen-client-urls": client, "advertise-client-urls": client,
                    "listen-peer-urls": peer, "initial-advertise-peer-urls": peer, "initial-cluster": "default=" + peer,
                    "auto-compaction-retention": "1", "quota-backend-bytes": "1073741824", "log-level": "warn"}
        if name == "kube-apiserver":
            return {
                "etcd-servers": f"http://127.0.0.1:{self.port('etcd')}", "bind-address": "127.0.0.1", "advertise-address": "127.0.0.1",
                "secure-port": self.port(name), "endpoint-reconciler-type": "none", "tls-cert-file": f"{pki}/apiserver.crt",
                "tls-private-key-file": f"{pki}/apiserver.key", "client-ca-file": f"{pki}/ca.crt", "cert-dir": f"{self.folder}/run",
                "service-cluster-ip-range": "10.0.0.0/16", "service-account-issuer": "https://kubernetes.default.svc",
                "service-account-key-file": f"{pki}/sa.pub", "service-account-signing-key-file": f"{pki}/sa.key", "authorization-mode": "RBAC",
                "allow-privileged": "true", "requestheader-client-ca-file": f"{pki}/front-ca.crt",
                "requestheader-allowed-names": "front-proxy-client", "requestheader-username-headers": "X-Remote-User",
                "requestheader-group-headers": "X-Remote-Group", "requestheader-extra-headers-prefix": "X-Remote-Extra-",
                "proxy-client-cert-file": f"{pki}/front-client.crt", "proxy-client-key-file": f"{pki}/front-client.key",
                "token-auth-file": f"{pki}/tokens.csv", "event-ttl": "1h", "shutdown-delay-duration": "0s", "profiling": "false", "v": "1"}
        common = {"kubeconfig": self.kubeconfig, "leader-elect": "false", "bind-address": "127.0.0.1", "secure-port": self.port(name),
                  "cert-dir": f"{self.folder}/run", "authorization-always-allow-paths": OPEN_PATHS, "kube-api-qps": "200", "kube-api-burst": "400"}
        if name == "kube-scheduler":
            return common
        return {**common, "use-service-account-credentials": "true", "service-account-private-key-file": f"{pki}/sa.key",
                "root-ca-file": f"{pki}/ca.crt", "cluster-signing-cert-file": f"{pki}/ca.crt", "cluster-signing-key-file": f"{pki}/ca.key",
                "node-monitor-grace-period": "60s", "allocate-node-cidrs": "false", "pvclaimbinder-sync-period": "500ms",
                "horizontal-pod-autoscaler-sync-period": "2s", "horizontal-pod-autoscaler-downscale-stabilization": "10s",
                "horizontal-pod-autoscaler-initial-readiness-delay": "1s", "horizontal-pod-autoscaler-cpu-initialization-period": "1s"}

    def command(self, name):
        flags = {**self.default_flags(name), **self.flags.get(name, {})}
        words = [f"--{flag}" if value is None else f"--{flag}={value}" for flag, value in flags.items() if value is not False]
        return [f"{self.programs}/{name}", *words]

    # Processes ------------------------------------------------------------------------------------------------------

    def start_program(self, name):
        with open(f"{self.folder}/{name}.log", "ab") as log:
            process = subprocess.Popen(self.command(name), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                                       start_new_session=True)
        self.state["pids"][name] = process.pid
        self.save()
        return process

    def ready(self, name):
        if name == "etcd":
            return fetch(self.port("etcd"), "/health", False) == 200
        return fetch(self.port(name), "/readyz" if name == "kube-apiserver" else "/healthz", True) == 200

    def wait_ready(self, name, process=None):
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready(name):
            if process and process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"{name} did not become ready:\n{tail(f'{self.folder}/{name}.log')}")
            time.sleep(0.1)

    def start_one(self, name):
        self.wait_ready(name, self.start_program(name))

    def start(self, controllers=True):
        self.prepare()
        try:
            for name in ORDER[:2]:
                self.start_one(name)
            if controllers:
                self.start_controllers()
        except BaseException:
            self.stop()
            raise
        return self

    def start_controllers(self):
        started = [(name, self.start_program(name)) for name in ORDER[2:]]
        for name, process in started:
            self.wait_ready(name, process)

    def alive(self, name):
        """Whether the process we started under this name still runs; a number used again by another is not ours."""
        pid = self.state["pids"].get(name)
        if not pid:
            return False
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                return file.read().split(b"\0")[0].decode().endswith("/" + name)
        except OSError:
            return False

    def signal_one(self, name, number):
        if self.alive(name):
            os.kill(self.state["pids"][name], number)

    def stop_one(self, name, number=signal.SIGTERM):
        self.signal_one(name, number)
        deadline = time.monotonic() + STOP_SECONDS
        while self.alive(name):
            if time.monotonic() > deadline:
                self.signal_one(name, signal.SIGKILL)
                deadline = time.monotonic() + STOP_SECONDS
            time.sleep(0.05)
        self.state["pids"].pop(name, None)
        self.wait_free(self.port(name))

    @staticmethod
    def wait_free(port):
        """A killed program is gone from the process table a moment before its sockets are."""
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as one:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    one.bind(("127.0.0.1", port))
                    return
                except OSError:
                    time.sleep(0.05)

    def restart_one(self, name, number=signal.SIGTERM, flags=None):
        """Stops (or kills) and starts one program, with other flags if given."""
        self.stop_one(name, number)
        if flags is not None:
            self.flags = {**self.flags, name: flags}
            self.state["flags"] = self.flags
        self.start_one(name)

    def etcd(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port("etcd"), timeout=10)
        connection.request("POST", path, json.dumps(body))
        reply = json.loads(connection.getresponse().read())
        connection.close()
        return reply

    def compact(self):
        """Forgets all versions but the present one; the API server must be down to have no cache of its own."""
        key = base64.b64encode(b"/registry").decode()
        revision = self.etcd("/v3/kv/range", {"key": key})["header"]["revision"]
        self.etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def deaths(self):
        """What ended without being told to: a line for each program, with its last words."""
        return [f"{name} of {self.folder} is not running:\n{tail(f'{self.folder}/{name}.log')}"
                for name in ORDER if name in self.state.get("pids", {}) and not self.alive(name)]

    def stop(self, keep=False):
        for name in reversed(ORDER):
            self.stop_one(name)
        while self.reserved:
            self.reserved.pop().close()
        if self in RUNNING:
            RUNNING.remove(self)
        if not keep:
            for part in ("etcd", "run", "pki"):
                shutil.rmtree(f"{self.folder}/{part}", ignore_errors=True)
            for part in ("plane.json", "kubeconfig", "env.sh"):
                if os.path.exists(f"{self.folder}/{part}"):
                    os.remove(f"{self.folder}/{part}")
