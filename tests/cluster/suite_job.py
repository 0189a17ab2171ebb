# SPDX-License-Identifier: Apache-2.0
"""The main job on a real control plane: real scheduler, controllers, volume binder and autoscaler; the sandbox's cloud and kubelets."""
import os

from common import ROOT, check, eventually, get, kubectl, play

BERT = os.path.join(ROOT, "playbooks/bert.lua")


def job(plane, folder):
    return play(plane, f"{folder}/job", BERT, "load=no", "name=real", "host=real.example.com")


def the_main_job_passes(plane, folder):
    run = job(plane, folder)
    check(run.code == 0, f"exit code {run.code}: {run.error()}")
    # This step ends when the HPA says that it has read its metric.
    check(run.steps["the model answers"]["outcome"] == "done", f"steps {run.outcomes()}")
    deployment = get(plane, "deployment", "-n", "default", "-l", "serviceName=real")["items"][0]
    check(deployment["status"]["readyReplicas"] == 1, f"status {deployment['status']}")
    check(get(plane, "pvc", "model-pvc")["status"]["phase"] == "Bound", "the claim is not bound")
    check(get(plane, "ingress", "real")["status"]["loadBalancer"]["ingress"], "the ingress has no address")


def a_second_run_changes_nothing(plane, folder):
    before = kubectl(plane, "get", "deploy,svc,cm,hpa,ingress,pvc,pv,secret", "-o", "jsonpath={range .items[*]}{.metadata.uid} {.metadata.generation}\n{end}")
    run = job(plane, folder)
    check(run.code == 0, f"exit code {run.code}: {run.error()}")
    check("created" not in run.outcomes().values() and "updated" not in run.outcomes().values(), f"outcomes {run.outcomes()}")
    after = kubectl(plane, "get", "deploy,svc,cm,hpa,ingress,pvc,pv,secret", "-o", "jsonpath={range .items[*]}{.metadata.uid} {.metadata.generation}\n{end}")
    check(before == after, "objects were written")


def the_registration_goes_with_the_sandbox(plane, _):
    found = kubectl(plane, "get", "apiservice", "v1beta1.external.metrics.k8s.io", ok=False)
    check(found.returncode != 0 and "NotFound" in found.stderr, f"the aggregated API is still registered: {found.stdout}")


def what_it_made_can_be_deleted(plane, _):
    kubectl(plane, "delete", "hpa,deployment", "-n", "default", "--all")
    # No kubelet is left to confirm.
    kubectl(plane, "delete", "pods", "-n", "default", "--all", "--grace-period=0", "--force")
    eventually("the end of the pods", lambda: not get(plane, "pods", "-n", "default")["items"])


TESTS = [the_main_job_passes, a_second_run_changes_nothing, the_registration_goes_with_the_sandbox, what_it_made_can_be_deleted]
