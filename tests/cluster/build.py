# SPDX-License-Identifier: Apache-2.0
"""Builds etcd, the API server, the controller manager, the scheduler and kubectl once, into a cache outside the checkout."""
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
GO_WANTED = (1, 26)
VERSION = "v1.36.3"
# Hundreds of modules are fetched, and Go asks for each but once. What came is kept: another attempt fetches the rest.
PAUSES = (5, 20)
# The slow one first; the later ones find most of their packages in Go's build cache then.
PROGRAMS = [
    ("etcd", "go.etcd.io/etcd/server/v3", "etcd"),
    ("k8s", "k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    ("k8s", "k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
    ("k8s", "k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
    ("k8s", "k8s.io/kubernetes/cmd/kubectl", "kubectl"),
]


class Absent(Exception):
    """What the suite needs is not on this machine."""


def cache_root():
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "eirun-tests")


def go_version():
    try:
        words = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, cwd=HERE, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        raise Absent("Go is not installed") from None
    numbers = words.removeprefix("go").split("-")[0].split(".")
    if tuple(int(n) for n in numbers[:2]) < GO_WANTED:
        raise Absent(f"{words} is too old: Go {GO_WANTED[0]}.{GO_WANTED[1]} is needed")
    return words


def digest_of(*folders):
    """Of what decides the result: the pinned modules and the compiler."""
    digest = hashlib.sha256(go_version().encode())
    for folder in folders:
        for name in ("go.mod", "go.sum"):
            with open(os.path.join(folder, name), "rb") as file:
                digest.update(file.read())
    return digest.hexdigest()[:16]


def cache_folder():
    modules = [os.path.join(HERE, "controlplane", module) for module in ("etcd", "k8s")]
    return os.path.join(cache_root(), "controlplane-" + digest_of(*modules))


def stamps():
    """Without a version a strict client cannot read /version."""
    major, minor, _ = VERSION.removeprefix("v").split(".")
    values = {"gitVersion": VERSION, "gitMajor": major, "gitMinor": minor, "gitCommit": "0" * 40, "gitTreeState": "clean",
              "buildDate": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())


def build_one(module, package, target):
    started = time.monotonic()
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-p", str(min(os.cpu_count() or 1, 2)),
               "-ldflags", "-s -w " + (stamps() if module == "k8s" else ""), "-o", target, package]
    folder = os.path.join(HERE, "controlplane", module)
    env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
    for pause in PAUSES:
        if subprocess.run(command, cwd=folder, env=env).returncode == 0:
            break
        print(f"{os.path.basename(target)} was not built: once more in {pause} s", file=sys.stderr, flush=True)
        time.sleep(pause)
    else:
        subprocess.run(command, cwd=folder, env=env, check=True)
    print(f"built {os.path.basename(target)} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def build_missing(folder):
    for module, package, name in PROGRAMS:
        target = os.path.join(folder, name)
        if os.path.exists(target):
            continue
        scratch = tempfile.mkdtemp(dir=folder)
        try:
            build_one(module, package, os.path.join(scratch, name))
            os.rename(os.path.join(scratch, name), target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def programs():
    """The folder of the five programs, built if need be; two callers build once."""
    folder = cache_folder()
    os.makedirs(folder, exist_ok=True)
    if all(os.path.exists(os.path.join(folder, name)) for _, _, name in PROGRAMS):
        return folder
    print("building a Kubernetes control plane, once: about 10 minutes on two cores", file=sys.stderr, flush=True)
    with open(os.path.join(folder, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_missing(folder)
    return folder
