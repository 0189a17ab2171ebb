# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with real API servers: each time it comes right by itself, or is told clearly."""
import base64
import json
import os
import re
import signal
import subprocess
import threading
import time

from common import EIRUN, PLAYBOOKS, ROOT, check, eirun, eventually, get, kubectl, namespace, play

BERT = os.path.join(ROOT, "playbooks/bert.lua")


def maps(path, count, value="1", name="map"):
    with open(path, "w") as file:
        for i in range(count):
            file.write(json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-{i:03}"}, "data": {"key": value}}) + "\n---\n")
    return path


def kube(plane, *words, kubeconfig=None, timeout=120):
    return eirun("kube", "--kubeconfig", kubeconfig or plane.kubeconfig, *words, timeout=timeout)


def in_background(plane, *words, kubeconfig=None):
    return subprocess.Popen([EIRUN, "kube", "--kubeconfig", kubeconfig or plane.kubeconfig, *words], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def an_api_server_that_is_killed_meanwhile_costs_nothing(plane, folder):
    path = maps(f"{folder}/killed.yaml", 600)
    ns = namespace(plane, "killed")
    run = in_background(plane, "apply", "-n", ns, "-f", path)
    eventually("the first object", lambda: kubectl(plane, "get", "cm", "-n", ns, "-l", "!x", "-o", "name").count("map-") > 0, pause=0)
    plane.restart_one("kube-apiserver", signal.SIGKILL)
    out, err = run.communicate(timeout=120)
    check(run.returncode == 0, f"exit code {run.returncode}: {err[-500:]}")
    check(out.count("serverside-applied") == 600 and len(get(plane, "cm", "-n", ns, "--field-selector", "metadata.name!=kube-root-ca.crt")["items"]) == 600,
          "not all were made")


def a_tls_session_is_resumed_until_the_api_server_forgets_it(plane, folder):
    kept = f"{folder}/session-cache/eirun/sessions"

    def written():
        """When a handshake in full was last made: each leaves a new file."""
        done = eirun("kube", "--kubeconfig", plane.kubeconfig, "get", "namespace", "default", "-o", "name",
                     env={"XDG_CACHE_HOME": f"{folder}/session-cache"})
        check(done.returncode == 0 and done.stdout == "namespace/default\n", done.stderr)
        files = os.listdir(kept)
        check(len(files) == 1, f"{files}")
        return os.stat(f"{kept}/{files[0]}").st_mtime_ns

    first = written()
    check([written(), written()] == [first, first], "the next runs resume")
    plane.restart_one("kube-apiserver", signal.SIGKILL)
    second = written()
    check(second != first and written() == second, "verified anew, and resumed again")


def the_main_job_outlives_an_api_server(plane, folder):
    def disturb():
        time.sleep(4)
        plane.restart_one("kube-apiserver", signal.SIGKILL)
    disturber = threading.Thread(target=disturb)
    disturber.start()
    run = play(plane, f"{folder}/job", BERT, "load=no", "name=outlives", "host=outlives.example.com")
    disturber.join()
    check(run.code == 0, f"exit code {run.code}: {run.error()}")
    again = play(plane, f"{folder}/job", BERT, "load=no", "name=outlives", "host=outlives.example.com")
    check(again.code == 0 and "created" not in again.outcomes().values(), f"{again.code} {again.outcomes()}")


def a_watch_behind_a_compaction_lists_again(plane, folder):
    ns = namespace(plane, "compacted")
    kubectl(plane, "create", "cm", "before", "-n", ns)
    run = subprocess.Popen([EIRUN, f"--sandbox={folder}/watch", "--kubeconfig", plane.kubeconfig, "--output", "jsonl",
                            f"{PLAYBOOKS}/watch.lua", f"namespace={ns}", "last=after"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    seen = []

    def hear(name):
        for line in run.stdout:
            event = json.loads(line)
            if event["event"] == "note":
                seen.append(event["text"])
            if event["event"] == "run" or seen and seen[-1].endswith(name):
                return
    try:
        hear("before")
        for i in range(20):  # versions that this watch does not hear of
            kubectl(plane, "create", "cm", f"elsewhere-{i}", "-n", "default")
        plane.stop_one("kube-apiserver", signal.SIGKILL)
        plane.compact()
        plane.start_one("kube-apiserver")
        eventually("the server", lambda: kubectl(plane, "create", "cm", "after", "-n", ns, ok=False).returncode == 0)
        hear("after")
        check(run.wait(30) == 0, "the playbook failed")
        told = [text for text in seen if "kube-root-ca" not in text]
        check(told == ["added before", "added after"], f"told {told}")
    finally:
        run.kill()
        run.communicate()


def signed(plane, claims):
    """A token of a service account as the server itself would sign it: ES256, the signature as two plain numbers."""
    def encode(raw):
        return base64.urlsafe_b64encode(raw).rstrip(b"=")
    public = subprocess.run(["openssl", "pkey", "-pubin", "-in", f"{plane.pki}/sa.pub", "-outform", "DER"], capture_output=True, check=True).stdout
    kid = encode(__import__("hashlib").sha256(public).digest()).decode()
    text = encode(json.dumps({"alg": "ES256", "kid": kid}).encode()) + b"." + encode(json.dumps(claims).encode())
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", f"{plane.pki}/sa.key"], input=text, capture_output=True, check=True).stdout
    numbers, at = b"", 2
    for _ in range(2):
        size = der[at + 1]
        numbers += der[at + 2:at + 2 + size].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + size
    return (text + b"." + encode(numbers)).decode()


def account_token(plane, ns, expires):
    account = get(plane, "serviceaccount", "default", "-n", ns)["metadata"]
    issuer, now = "https://kubernetes.default.svc", int(time.time())
    return signed(plane, {"iss": issuer, "aud": [issuer], "sub": f"system:serviceaccount:{ns}:default", "iat": now - 7200, "nbf": now - 7200,
                          "exp": expires, "kubernetes.io": {"namespace": ns, "serviceaccount": {"name": "default", "uid": account["uid"]}}})


def editable(plane, name):
    """A namespace whose default account may edit, also in the eyes of the server's authorizer: it hears of a binding a moment later."""
    ns = namespace(plane, name)
    kubectl(plane, "create", "rolebinding", "edit", "-n", ns, "--clusterrole=edit", f"--serviceaccount={ns}:default")
    eventually("the right to edit", lambda: kubectl(plane, "auth", "can-i", "create", "configmaps", "-n", ns, "--as",
                                                    f"system:serviceaccount:{ns}:default", ok=False).returncode == 0)
    return ns


def an_expired_token_is_told_and_its_file_read_again(plane, folder):
    ns = editable(plane, "expired")
    config, token = f"{folder}/expired.kubeconfig", f"{folder}/expired.token"
    plane.write_kubeconfig(config, {"tokenFile": token}, ns)
    plane.write(token, account_token(plane, ns, int(time.time()) + 3600))
    good = kube(plane, "get", "cm", "-o", "name", kubeconfig=config)
    check(good.returncode == 0, f"a token that is signed like this is good: {good.stderr}")
    plane.write(token, account_token(plane, ns, int(time.time()) - 60))
    bad = kube(plane, "get", "cm", kubeconfig=config)
    check(bad.returncode == 1 and "Unauthorized" in bad.stderr, f"{bad.returncode}: {bad.stderr}")


# Seconds: for so long a real server takes a token after its end, and for so long it remembers one that it took.
LEEWAY, REMEMBERED = 60, 10


def a_token_file_is_read_again_while_a_process_runs(plane, folder):
    ns = editable(plane, "renewed")
    kubectl(plane, "create", "configmap", "seen", "-n", ns)
    token, log, job = (f"{folder}/renewed.{name}" for name in ("token", "log", "json"))
    plane.write_kubeconfig(f"{folder}/renewed.kubeconfig", {"tokenFile": token}, ns)
    plane.write(job, json.dumps({"kubeconfig": f"{folder}/renewed.kubeconfig", "namespace": ns, "map": "seen", "log": log}))
    plane.write(log, "")

    def told(count):
        def probe():
            with open(log) as file:
                lines = file.read().splitlines()
            return lines if len(lines) >= count else None
        return eventually(f"line {count} of {log}", probe, seconds=60)

    def lasting(seconds):
        return account_token(plane, ns, int(time.time()) + seconds - LEEWAY)
    first_ends = time.time() + 8
    plane.write(token, lasting(8))
    run = subprocess.Popen([EIRUN, "test", f"{PLAYBOOKS}/token_file.lua"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, env={**os.environ, "EIRUN_TOKEN_JOB": job, "EIRUN_TEST_SECONDS": "170"})
    try:
        told(1)
        plane.write(token, lasting(25))  # before the first ends: nothing is refused
        refused = told(2)  # the second has ended, and no third is there
        check(time.time() > first_ends + REMEMBERED + 5, f"the second token was never used: {refused}")
        plane.write(token, lasting(3600))
        lines = told(3)
        check(lines[0] == lines[2] == "read" and lines[1].startswith("denied: ") and "Unauthorized" in lines[1], f"told {lines}")
        check("eyJ" not in lines[1], "the token is shown")
    finally:
        plane.write(f"{log}.end", "")
        said = run.communicate(timeout=30)[0]
    check(run.returncode == 0, said)


FLOW = "flowcontrol.apiserver.k8s.io/v1"


def throttle(plane, user):
    for manifest in (
            {"apiVersion": FLOW, "kind": "PriorityLevelConfiguration", "metadata": {"name": "closed"}, "spec": {"type": "Limited", "limited": {
                "nominalConcurrencyShares": 1, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}},
            {"apiVersion": FLOW, "kind": "FlowSchema", "metadata": {"name": "closed"}, "spec": {
                "matchingPrecedence": 5, "priorityLevelConfiguration": {"name": "closed"}, "rules": [{
                    "subjects": [{"kind": "User", "user": {"name": user}}], "resourceRules": [{
                        "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}]}]}}):
        kubectl(plane, "apply", "-f", "-", text=json.dumps(manifest))


def served_by_closed(plane):
    metrics = kubectl(plane, "get", "--raw", "/metrics")
    return re.search(r'^apiserver_flowcontrol_dispatched_requests_total\{.*priority_level="closed".*\} [1-9]', metrics, re.M)


def rejected(plane):
    """How many requests of the closed level the server has refused with 429 and Retry-After."""
    metrics = kubectl(plane, "get", "--raw", "/metrics")
    found = re.findall(r'^apiserver_flowcontrol_rejected_requests_total\{.*priority_level="closed".*\} (\d+)', metrics, re.M)
    return sum(int(n) for n in found)


def too_many_requests_are_waited_out(plane, folder):
    ns = editable(plane, "throttled")
    config = f"{folder}/throttled.kubeconfig"
    plane.write_kubeconfig(config, {"token": kubectl(plane, "create", "token", "default", "-n", ns).strip()}, ns)
    throttle(plane, f"system:serviceaccount:{ns}:default")
    eventually("the level to hold", lambda: kube(plane, "get", "cm", kubeconfig=config).returncode == 0 and served_by_closed(plane))
    run = kube(plane, "apply", "-f", maps(f"{folder}/throttled.yaml", 200), kubeconfig=config)
    refused = rejected(plane)
    kubectl(plane, "delete", "flowschema,prioritylevelconfiguration", "closed")
    check(refused > 0, "the server refused nothing")
    check(run.returncode == 0 and run.stdout.count("serverside-applied") == 200, f"{run.returncode}, {refused} refused: {run.stderr[-500:]}")


def a_conflict_names_the_field_and_its_owner(plane, folder):
    ns = namespace(plane, "conflict")
    path = maps(f"{folder}/conflict.yaml", 1, "theirs")
    kubectl(plane, "apply", "--server-side", "--field-manager=somebody", "-n", ns, "-f", path)
    run = kube(plane, "apply", "-n", ns, "-f", maps(path, 1, "ours"))
    for part in ('conflict with "somebody"', ".data.key", "--force-conflicts"):
        check(run.returncode == 1 and part in run.stderr, f"{run.returncode}, lacks '{part}': {run.stderr}")
    check(kube(plane, "apply", "-n", ns, "--force-conflicts", "-f", path).returncode == 0, "force does not take it")
    check(get(plane, "cm", "map-000", "-n", ns)["data"]["key"] == "ours", "the value stayed")


def what_admission_denies_is_told_in_its_words(plane, folder):
    ns = namespace(plane, "denied")
    kubectl(plane, "apply", "-f", "-", text=json.dumps({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "no-maps"},
        "spec": {"matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"],
                                                         "resources": ["configmaps"]}],
                                      "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}},
                 "validations": [{"expression": "false", "message": "maps are made by the platform team"}]}}))
    kubectl(plane, "apply", "-f", "-", text=json.dumps({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "no-maps"},
        "spec": {"policyName": "no-maps", "validationActions": ["Deny"]}}))
    run = eventually("a denial", lambda: denied(plane, ns, folder))
    for part in ("maps are made by the platform team", "no-maps"):
        check(part in run.stderr, f"lacks '{part}': {run.stderr}")
    kubectl(plane, "delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", "no-maps")


def denied(plane, ns, folder):
    run = kube(plane, "apply", "-n", ns, "-f", maps(f"{folder}/denied.yaml", 1))
    if run.returncode == 0:
        kubectl(plane, "delete", "cm", "map-000", "-n", ns)
    return run if run.returncode else None


def a_namespace_stuck_in_deletion_is_told_with_what_holds_it(plane, folder):
    ns = namespace(plane, "stuck")
    kubectl(plane, "create", "-f", "-", "-n", ns, text=json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}))
    kubectl(plane, "delete", "namespace", ns, "--wait=false")
    run = kube(plane, "apply", "-n", ns, "-f", maps(f"{folder}/stuck.yaml", 1))
    check(run.returncode == 1 and "being terminated" in run.stderr, f"{run.returncode}: {run.stderr}")
    eventually("what holds it", lambda: "example.com/hold" in kubectl(plane, "get", "namespace", ns, "-o", "jsonpath={.status.conditions}"))
    job = play(plane, f"{folder}/job", BERT, "load=no", "name=stuck", f"namespace={ns}")
    check(job.code == 1, f"exit code {job.code}")
    for part in (ns, "example.com/hold"):
        check(part in job.error(), f"lacks '{part}': {job.error()}")
    kubectl(plane, "patch", "cm", "held", "-n", ns, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


TESTS = [a_conflict_names_the_field_and_its_owner, what_admission_denies_is_told_in_its_words, too_many_requests_are_waited_out,
         an_expired_token_is_told_and_its_file_read_again, a_token_file_is_read_again_while_a_process_runs,
         a_namespace_stuck_in_deletion_is_told_with_what_holds_it,
         a_tls_session_is_resumed_until_the_api_server_forgets_it, an_api_server_that_is_killed_meanwhile_costs_nothing,
         the_main_job_outlives_an_api_server, a_watch_behind_a_compaction_lists_again]
