# SPDX-License-Identifier: Apache-2.0
"""A real arena beside eirun: each lists, shows, changes and deletes what the other has made."""
import json
import os
import re
import shutil
import subprocess

import build
from common import PLAYBOOKS, check, eirun, get, kubectl, namespace, play

NAMESPACE = "arena"
MODULE = os.path.join(build.HERE, "controlplane/arena")
FLAGS = ["--version=1", "--model-name=chnsenticorp", "--model-path=/models/serving", "--image=tensorflow/serving:2.14.1", "--data=models:/models",
         "--env=A=b", "--label=team=nlp", "--memory=1Gi", "--cpu=500m", "--replicas=1"]


def built():
    """The program, built once; the folder is named by its pinned modules."""
    folder = os.path.join(build.cache_root(), "arena-" + build.digest_of(MODULE))
    target = os.path.join(folder, "arena")
    if not os.path.exists(target):
        os.makedirs(folder, exist_ok=True)
        build.build_one("arena", "github.com/kubeflow/arena/cmd/arena", target + ".new")
        os.rename(target + ".new", target)
    return target


def home(plane, folder):
    """A home for arena: it renders the charts it finds there and calls kubectl by a name of its own."""
    path = os.path.join(folder, "arena-home")
    if not os.path.exists(path):
        # "download" also says where it is when it is there already; after a build long ago it may have been cleaned away.
        source = json.loads(subprocess.run(["go", "mod", "download", "-json", "github.com/kubeflow/arena"], cwd=MODULE, capture_output=True,
                                           text=True, check=True).stdout)["Dir"]
        shutil.copytree(os.path.join(source, "charts"), os.path.join(path, "charts"))
        os.makedirs(os.path.join(path, "bin"))
        os.symlink(f"{plane.programs}/kubectl", os.path.join(path, "bin/arena-kubectl"))
        with open(os.path.join(path, "config"), "w"):
            pass
    return path


def arena(plane, folder, *args):
    place = home(plane, folder)
    env = {**os.environ, "HOME": place, "ARENA_CONFIG": f"{place}/config", "KUBECONFIG": plane.kubeconfig,
           "PATH": f"{place}/bin:{os.environ['PATH']}"}
    result = subprocess.run([built(), "serve", *args, "-n", NAMESPACE], capture_output=True, text=True, timeout=120, env=env)
    check(result.returncode == 0 and "level=error" not in result.stderr, f"arena serve {' '.join(args)}: {result.stdout}{result.stderr}")
    return result.stdout


def serve(plane, *args):
    result = eirun("serve", *args, "--kubeconfig", plane.kubeconfig, "-n", NAMESPACE)
    check(result.returncode == 0, f"eirun serve {' '.join(args)}: {result.stderr}")
    return result.stdout


def served(plane, folder, *args):
    return play(plane, f"{folder}/arena", f"{PLAYBOOKS}/serving.lua", f"namespace={NAMESPACE}", *args)


def ageless(value):
    """Without what moves between two looks."""
    if isinstance(value, dict):
        return {key: ageless(entry) for key, entry in value.items() if key != "age"}
    return [ageless(entry) for entry in value] if isinstance(value, list) else value


def words(text):
    """The cells of a table, without the column that moves."""
    return [[cell for cell in line.split() if not re.fullmatch(r"(\d+[smhd])+", cell)] for line in text.splitlines() if line.strip()]


def arena_shows_our_jobs_as_we_do(plane, folder):
    namespace(plane, NAMESPACE)
    kubectl(plane, "delete", "nodes", "--all")  # those of a sandbox that has ended look well for a minute, and pods would go there
    run = served(plane, folder, "custom=yes")
    check(run.code == 0, f"exit code {run.code}: {run.error()}")
    check(sorted(words(arena(plane, folder, "list"))) == sorted(words(serve(plane, "list"))), "the lists differ:\n"
          + arena(plane, folder, "list") + serve(plane, "list"))
    for name in ("ours", "own"):
        theirs, mine = (json.loads(text) for text in (arena(plane, folder, "get", name, "-o", "json"), serve(plane, "get", name, "-o", "json")))
        check(ageless(theirs) == ageless(mine), f"arena: {theirs}\neirun: {mine}")
        check(words(arena(plane, folder, "get", name)) == words(serve(plane, "get", name)), f"the texts of {name} differ:\n"
              + arena(plane, folder, "get", name) + serve(plane, "get", name))


def renamed(value, old, new):
    return json.loads(json.dumps(value).replace(old, new))


# What eirun does otherwise, and why; the rest of arena's fields must be there with arena's values.
OTHERWISE = {
    "spec.template.spec.containers[0].args": "the model's version policy needs a configuration file",
    "spec.template.spec.volumes": "and its volume", "spec.template.spec.containers[0].volumeMounts": "and its mount",
    "spec.template.spec.terminationGracePeriodSeconds": "the drain is part of it",
}


def missing(theirs, mine, path=""):
    """The fields of arena's object that ours lacks, or has otherwise."""
    if path in OTHERWISE:
        return []
    if isinstance(theirs, dict) and isinstance(mine, dict):
        return [line for key, value in theirs.items() for line in missing(value, mine.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(theirs, list) and isinstance(mine, list) and len(theirs) == len(mine):
        return [line for i, value in enumerate(theirs) for line in missing(value, mine[i], f"{path}[{i}]")]
    return [] if theirs == mine else [f"{path}: arena {theirs}, eirun {mine}"]


def essence(found):
    for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        found["metadata"].pop(key, None)
    annotations = found["metadata"].setdefault("annotations", {})
    for key in ("kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision", "helm.sh/created"):
        annotations.pop(key, None)
    found.pop("status", None)
    for key in ("clusterIP", "clusterIPs"):
        found["spec"].pop(key, None)
    return found


def our_objects_hold_all_that_arenas_do(plane, folder):
    arena(plane, folder, "tensorflow", "--name=theirs", *FLAGS)
    for kind in ("deployment", "service"):
        theirs = renamed(essence(get(plane, kind, "theirs-1-tensorflow-serving", "-n", NAMESPACE)), "theirs", "ours")
        lines = missing(theirs, essence(get(plane, kind, "ours-1-tensorflow-serving", "-n", NAMESPACE)))
        check(not lines, f"{kind}: " + "\n".join(lines))


def what_arena_changes_is_seen_and_not_overwritten(plane, folder):
    arena(plane, folder, "update", "tensorflow", "--name=ours", "--image=tensorflow/serving:2.15.1", "--replicas=1")
    check("tensorflow/serving:2.15.1" in serve(plane, "list", "-o", "wide"), "the new image is not shown")
    run = served(plane, folder)
    check(run.code == 1 and "arena" in run.error(), f"a conflict names arena: exit code {run.code}, {run.error()}")


def eirun_scales_and_deletes_arenas_job(plane, _):
    serve(plane, "scale", "theirs", "--replicas", "2")
    check(get(plane, "deployment", "theirs-1-tensorflow-serving", "-n", NAMESPACE)["spec"]["replicas"] == 2, "not scaled")
    serve(plane, "delete", "theirs")
    left = kubectl(plane, "get", "deploy,svc,cm", "-n", NAMESPACE, "-o", "name")
    check("theirs" not in left, f"left behind: {left}")


def arena_deletes_all_of_our_job(plane, folder):
    for name in ("ours", "own"):
        arena(plane, folder, "delete", name)
        left = kubectl(plane, "get", "deploy,svc,cm,pdb", "-n", NAMESPACE, "-o", "name").split()
        check(not [line for line in left if f"/{name}" in line], f"left behind: {left}")


ISTIO = "networking.istio.io"
ISTIO_KINDS = {"VirtualService": "virtualservices", "DestinationRule": "destinationrules", "Gateway": "gateways"}


def istio_kind(kind, plural):
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1alpha3", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"{plural}.{ISTIO}"},
            "spec": {"group": ISTIO, "scope": "Namespaced", "versions": [version],
                     "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": kind + "List"}}}


def istio_objects(plane, name):
    return {kind: get(plane, f"{plural}.{ISTIO}", name + ("-gateway" if kind == "Gateway" else ""), "-n", NAMESPACE)["spec"]
            for kind, plural in ISTIO_KINDS.items()}


def behind_istio_the_routes_are_arenas(plane, folder):
    for kind, plural in ISTIO_KINDS.items():
        kubectl(plane, "apply", "-f", "-", text=json.dumps(istio_kind(kind, plural)))
    kubectl(plane, "wait", "--for=condition=Established", *[f"crd/{plural}.{ISTIO}" for plural in ISTIO_KINDS.values()])
    arena(plane, folder, "tensorflow", "--name=theirs", "--enable-istio", "--expose-service", *FLAGS)
    run = served(plane, folder, "istio=yes")
    check(run.code == 0, f"exit code {run.code}: {run.error()}")
    check(renamed(istio_objects(plane, "theirs"), "theirs", "ours") == istio_objects(plane, "ours"), "the routes differ")
    theirs, mine = (get(plane, "service", name, "-n", NAMESPACE)["spec"]["selector"] for name in ("theirs", "ours"))
    check(renamed(theirs, "theirs", "ours") == mine, f"selectors {theirs} {mine}")
    for name in ("theirs", "ours"):
        serve(plane, "delete", name)
    left = kubectl(plane, "get", "deploy,svc,virtualservices,destinationrules,gateways", "-n", NAMESPACE, "-o", "name")
    check("ours" not in left and "theirs" not in left, f"left behind: {left}")


TESTS = [arena_shows_our_jobs_as_we_do, our_objects_hold_all_that_arenas_do, what_arena_changes_is_seen_and_not_overwritten,
         eirun_scales_and_deletes_arenas_job, arena_deletes_all_of_our_job, behind_istio_the_routes_are_arenas]
