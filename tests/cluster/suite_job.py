# SPDX-License-Identifier: Apache-2.0
"""The main job on a real control plane: real scheduler, controllers, volume binder and autoscaler; the sandbox's cloud and kubelets."""
import os

from common import ROOT, check, eventually, get, kubectl, play

BERT = os.path.join(ROOT, "playbooks/bert.lua")


def job(plane, folder, *args, load=False):
    # qps: so low that the first replica bears the whole load until others come.
    return play(plane, f"{folder}/job", BERT, f"load={'yes' if load else 'no'}", "name=real", "host=real.example.com", "qps=3", *args,
                timeout=300)


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


def scalings(plane):
    """What the real autoscaler says that it did, in its own events' words."""
    found = get(plane, "events", "-n", "default", "--field-selector", "reason=SuccessfulRescale,involvedObject.name=real-hpa")["items"]
    return [event["message"] for event in found]


def the_load_scales_the_job_by_the_real_autoscaler(plane, folder):
    before = scalings(plane)
    # A minute and a half from one replica on: latency is judged in the playbook's own 15 minutes, errors here.
    run = job(plane, folder, "load_minutes=1.5", "peak=14", "thresholds=errors<0.1%", f"report={folder}/report.html", load=True)
    load = run.end["result"]["load"]
    check(run.code == 0 and load["requests"] > 1000, f"exit code {run.code}: {load['requests']} requests, {load['errors']}, {load['latency']}")
    told = [text for text in scalings(plane) if text not in before and "sls_ingress_qps" in text and "above target" in text]
    most = max(sample["ready"] for sample in load["timeline"])
    check(told and most >= 4, f"the autoscaler said {told}; {most} replicas were ready at most")
    print(f"  {load['requests']} requests, up to {most} replicas: {[text.split(';')[0] for text in told]}, "
          f"p95 at the end {load['window']['latency']['p95']:.3f} s")
    again = job(plane, folder)
    check(again.code == 0 and not {"created", "updated"} & set(again.outcomes().values()), f"{again.code} {again.outcomes()}")


def what_it_made_can_be_deleted(plane, _):
    kubectl(plane, "delete", "hpa,deployment", "-n", "default", "--all")

    def gone():
        """No kubelet is left to confirm; and until its own end is known to it, a ReplicaSet makes new ones."""
        kubectl(plane, "delete", "pods", "-n", "default", "--all", "--grace-period=0", "--force")
        return not get(plane, "pods,replicasets", "-n", "default")["items"]
    eventually("the end of the pods", gone)


TESTS = [the_main_job_passes, a_second_run_changes_nothing, the_load_scales_the_job_by_the_real_autoscaler, the_registration_goes_with_the_sandbox, what_it_made_can_be_deleted]
