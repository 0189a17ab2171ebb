# SPDX-License-Identifier: Apache-2.0
"""The Python client's usual day: create, list, watch, patch, scale, the dynamic client, delete."""
import sys

from kubernetes import client, config, dynamic, watch

config.load_kube_config(sys.argv[1])
core, apps = client.CoreV1Api(), client.AppsV1Api()

assert len(core.list_node().items) == 2
core.create_namespaced_config_map("default", {"metadata": {"name": "py", "labels": {"by": "py"}}, "data": {"a": "1"}})
assert core.patch_namespaced_config_map("py", "default", {"data": {"b": "2"}}).data == {"a": "1", "b": "2"}

seen = []
for event in watch.Watch().stream(core.list_namespaced_config_map, "default", label_selector="by=py", timeout_seconds=20):
    seen.append(event["type"])
    if len(seen) == 1:
        core.delete_namespaced_config_map("py", "default")
    else:
        break
assert seen == ["ADDED", "DELETED"], seen

container = client.V1Container(name="c", image="nginx:1.27")
template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": "py"}), spec=client.V1PodSpec(containers=[container]))
spec = client.V1DeploymentSpec(replicas=1, selector=client.V1LabelSelector(match_labels={"app": "py"}), template=template)
apps.create_namespaced_deployment("default", client.V1Deployment(metadata=client.V1ObjectMeta(name="py"), spec=spec))
apps.patch_namespaced_deployment_scale("py", "default", {"spec": {"replicas": 2}})
assert apps.read_namespaced_deployment_scale("py", "default").spec.replicas == 2

deployments = dynamic.DynamicClient(client.ApiClient()).resources.get(api_version="apps/v1", kind="Deployment")
assert deployments.get(name="py", namespace="default").spec.replicas == 2
manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "py", "namespace": "default", "labels": {"x": "y"}}}
assert deployments.server_side_apply(body=manifest, field_manager="py-client").metadata.labels["x"] == "y"
apps.delete_namespaced_deployment("py", "default", propagation_policy="Foreground")
try:
    core.read_namespaced_config_map("py", "default")
    raise SystemExit("the config map is still there")
except client.ApiException as error:
    assert error.status == 404, error
print("done")
