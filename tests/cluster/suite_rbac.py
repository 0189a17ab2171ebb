# SPDX-License-Identifier: Apache-2.0
"""The main job under the rights that `eirun kube rbac` prints, and without one of them at a time."""
import copy
import json
import os
import subprocess

import controlplane
from common import EIRUN, LAGS, ROOT, Run, check, eirun, eventually, kubectl

BERT = os.path.join(ROOT, "playbooks/bert.lua")
SHIPPED = os.path.join(ROOT, "playbooks/bert.rbac.yaml")
ACCOUNT = "system:serviceaccount:default:eirun-bert"
# What is asked for only while something starts or has gone wrong: no use of it in a run that finds everything as it should be.
NOT_EACH_TIME = {("events", "list"), ("pods/log", "get"), ("pods/proxy", "get"), ("configmaps", "list"), ("persistentvolumes", "list")}
# The last first: what a run meets earlier is still there.
MADE_BY_THE_JOB = ["ingresses", "horizontalpodautoscalers", "poddisruptionbudgets", "deployments", "services", "configmaps",
                   "persistentvolumeclaims", "persistentvolumes", "secrets"]

shared = {}


def begin(folder):
    if shared:
        return
    plane = shared["plane"] = controlplane.Plane(f"{folder}/rbac-plane").start()
    shared["log"] = open(f"{folder}/rbac-sandbox.log", "w")
    shared["box"] = f"{folder}/rbac-box"
    sandbox = shared["sandbox"] = subprocess.Popen(
        [EIRUN, "sandbox", "serve", shared["box"], "--kubeconfig", plane.kubeconfig, "--lag", LAGS], stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=shared["log"], text=True)
    check(sandbox.stdout.readline() == "ready\n", "the sandbox did not start")
    kubectl(plane, "apply", "-f", SHIPPED)
    token = kubectl(plane, "create", "token", "eirun-bert", "--duration=1h").strip()
    shared["config"] = f"{folder}/rbac.kubeconfig"
    plane.write_kubeconfig(shared["config"], {"token": token})


def finish():
    if "sandbox" in shared:
        shared["sandbox"].terminate()
        shared["sandbox"].wait(20)
        shared["log"].close()
        shared["sandbox"].stdout.close()
    if "plane" in shared:
        shared["plane"].stop()
    shared.clear()


def job():
    return Run(eirun(f"--sandbox={shared['box']}", "--kubeconfig", shared["config"], "--output", "jsonl", BERT, "load=no"))


def the_shipped_roles_are_what_the_playbook_uses(_, __):
    printed = eirun("kube", "rbac", BERT, "load=no")
    with open(SHIPPED) as file:
        check(printed.returncode == 0 and file.read().endswith(printed.stdout), f"eirun kube rbac prints:\n{printed.stdout}{printed.stderr}")


def the_job_runs_under_them(_, folder):
    begin(folder)
    run = job()
    check(run.code == 0, f"exit code {run.code}: {run.error()}")


def roles():
    return [item for item in json.loads(kubectl(shared["plane"], "get", "role/eirun-bert", "clusterrole/eirun-bert", "-o", "json"))["items"]]


def without(role, index, verb):
    changed = copy.deepcopy(role)
    changed["rules"][index]["verbs"].remove(verb)
    if not changed["rules"][index]["verbs"]:
        del changed["rules"][index]
    for key in ("managedFields", "resourceVersion", "uid", "creationTimestamp"):
        changed["metadata"].pop(key, None)
    return changed


def may(verb, rule, namespace):
    """What the server says of the first object that the rule is about."""
    name, _, sub = rule["resources"][0].partition("/")
    kind = f"{name}.{rule['apiGroups'][0]}".rstrip(".")
    object_ = f"{kind}/{rule['resourceNames'][0]}" if rule.get("resourceNames") else kind
    words = ["auth", "can-i", verb, object_, *([f"--subresource={sub}"] if sub else []), "--as", ACCOUNT]
    return kubectl(shared["plane"], *words, *(["-n", namespace] if namespace else []), ok=False).stdout.strip() == "yes"


def replace(role, verb, rule, wanted):
    """Writes a role and waits until the server decides by it."""
    kubectl(shared["plane"], "replace", "-f", "-", text=json.dumps(role))
    eventually(f"the role with{'' if wanted else 'out'} {verb} on {rule['resources'][0]}",
               lambda: may(verb, rule, role["metadata"].get("namespace")) == wanted, pause=0.05)


def run_without(role, index, verb):
    rule = copy.deepcopy(role["rules"][index])
    replace(without(role, index, verb), verb, rule, False)
    run = job()
    clean = without(role, index, verb)
    clean["rules"] = copy.deepcopy(role["rules"])
    replace(clean, verb, rule, True)
    return run, rule["resources"][0], rule["apiGroups"][0]


def check_words(run, verb, resource, group, namespace):
    error = run.error()
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    for part in (f'cannot {verb} resource "{resource}" in API group "{group}" {where}', ACCOUNT, "eirun kube rbac"):
        check(part in error, f"without {verb} on {resource}: the error lacks '{part}': {error}")


def every_right(wanted):
    for role in roles():
        for index, rule in enumerate(role["rules"]):
            for verb in rule["verbs"]:
                if wanted(verb):
                    yield role, index, verb


def one_right_less_is_told_each_time(_, folder):
    begin(folder)
    quiet = set()
    for role, index, verb in every_right(lambda verb: verb != "create"):
        run, resource, group = run_without(role, index, verb)
        if run.code == 0:
            quiet.add((resource, verb))
        else:
            check_words(run, verb, resource, group, role["metadata"].get("namespace"))
    check(quiet <= NOT_EACH_TIME, f"the run went well without {sorted(quiet - NOT_EACH_TIME)}")


def one_right_to_create_less_is_told_each_time(_, folder):
    begin(folder)
    rights = {role["rules"][index]["resources"][0]: (role, index, verb) for role, index, verb in every_right(lambda verb: verb == "create")}
    check(set(rights) == set(MADE_BY_THE_JOB), f"the job may create {sorted(rights)}")
    for name in MADE_BY_THE_JOB:
        kubectl(shared["plane"], "delete", name, "-l", "app.kubernetes.io/managed-by=eirun", "--ignore-not-found")
        if name == "deployments":
            kubectl(shared["plane"], "delete", "pods", "--all", "--grace-period=0", "--force")
        role, index, verb = rights[name]
        run, resource, group = run_without(role, index, verb)
        check(run.code != 0, f"{name} were made without the right to")
        check_words(run, verb, resource, group, role["metadata"].get("namespace"))


TESTS = [the_shipped_roles_are_what_the_playbook_uses, the_job_runs_under_them, one_right_less_is_told_each_time,
         one_right_to_create_less_is_told_each_time]
