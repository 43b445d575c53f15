"""Validate cluster/kuberay.yaml: Kubernetes resources with the official schema, KubeRay's with a list of fields.

No package contains the schema of KubeRay's resources. SCHEMAS was written by hand, from the operator's types
(raycluster_types.go, rayjob_types.go) and, for authOptions, the API reference of KubeRay 1.6: a misspelt or misplaced
field fails here, a change on KubeRay's side does not.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

FILE = Path(__file__).parents[2] / "cluster/kuberay.yaml"
TEXT: dict[str, Any] = {"type": "string"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
FLAG: dict[str, Any] = {"type": "boolean"}
TEXTS: dict[str, Any] = {"type": "object", "additionalProperties": TEXT}
POD: dict[str, Any] = {"type": "object", "required": ["spec"]}
"""A pod template; test_pod_templates_match_the_kubernetes_schema validates its content."""


def fields(required: str = "", **known: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has only these fields."""
    return {"type": "object", "properties": known, "required": required.split(), "additionalProperties": False}


AUTOSCALER = fields(
    resources=fields(requests=TEXTS, limits=TEXTS), image=TEXT, idleTimeoutSeconds=COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}, env={"type": "array"}, envFrom={"type": "array"},
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]}, volumeMounts={"type": "array"},
    securityContext={"type": "object"},
)  # fmt: skip
HEAD = fields(
    "template", template=POD, rayStartParams=TEXTS, enableIngress=FLAG, headService={"type": "object"},
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
)  # fmt: skip
WORKERS = fields(
    "groupName template maxReplicas minReplicas", groupName=TEXT, template=POD, rayStartParams=TEXTS, replicas=COUNT,
    minReplicas=COUNT, maxReplicas=COUNT, numOfHosts=COUNT,
)  # fmt: skip
SCHEMAS = {
    "RayCluster": fields(
        "headGroupSpec", rayVersion=TEXT, enableInTreeAutoscaling=FLAG, autoscalerOptions=AUTOSCALER,
        headGroupSpec=HEAD,
        workerGroupSpecs={"type": "array", "items": WORKERS}, suspend=FLAG, headServiceAnnotations=TEXTS,
        authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=TEXT, enableK8sTokenAuth=FLAG),
    ),
    "RayJob": fields(
        entrypoint=TEXT, clusterSelector=TEXTS, shutdownAfterJobFinishes=FLAG, submitterPodTemplate=POD, jobId=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]}, runtimeEnvYAML=TEXT,
        ttlSecondsAfterFinished=COUNT, activeDeadlineSeconds=COUNT, backoffLimit=COUNT, suspend=FLAG, metadata=TEXTS,
        submitterConfig=fields(backoffLimit=COUNT), entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"}, entrypointResources=TEXT,
    ),
}  # fmt: skip


@pytest.fixture
def resources() -> dict[str, dict[str, Any]]:
    """The resources of the file, by kind and name."""
    documents = list(yaml.safe_load_all(FILE.read_text(encoding="utf-8")))
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in documents}


def pods(resources: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the pod templates by role."""
    cluster, job = resources["RayCluster/las-tune"]["spec"], resources["RayJob/las-tune-metal-plate"]["spec"]
    (workers,) = cluster["workerGroupSpecs"]
    return {
        "head": cluster["headGroupSpec"]["template"], "worker": workers["template"],
        "submitter": job["submitterPodTemplate"],
    }  # fmt: skip


def test_resources_match_their_schemas(resources: dict[str, dict[str, Any]]) -> None:
    assert [name.partition("/")[0] for name in resources] == [
        "PersistentVolumeClaim", "PersistentVolumeClaim", "NetworkPolicy", "RayCluster", "RayJob",
    ]  # fmt: skip
    for each in resources.values():
        assert set(each) == {"apiVersion", "kind", "metadata", "spec"}
        if each["kind"] in SCHEMAS:
            assert each["apiVersion"] == "ray.io/v1"
            jsonschema.validate(each["spec"], SCHEMAS[each["kind"]])
        else:
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_pod_templates_match_the_kubernetes_schema(resources: dict[str, dict[str, Any]]) -> None:
    for name, template in pods(resources).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name} | template["metadata"]}
        kubernetes_validate.validate(
            pod | {"spec": template["spec"]}, kubernetes_validate.latest_version(), strict=True
        )
        assert set(template) == {"metadata", "spec"}


@pytest.mark.parametrize("misspelt", ["authOption", "workerGroupSpec", "enableInTreeAutoscaler"])
def test_misspelt_field_is_rejected(resources: dict[str, dict[str, Any]], misspelt: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(resources["RayCluster/las-tune"]["spec"] | {misspelt: {}}, SCHEMAS["RayCluster"])


def test_misspelt_field_of_a_pod_is_rejected(resources: dict[str, dict[str, Any]]) -> None:
    spec = pods(resources)["head"]["spec"] | {"toleration": []}
    with pytest.raises(kubernetes_validate.ValidationError):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "head"}, "spec": spec}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


def test_all_resources_use_the_same_token(resources: dict[str, dict[str, Any]]) -> None:
    cluster = resources["RayCluster/las-tune"]["spec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "las-tune-token"}
    (submitter,) = pods(resources)["submitter"]["spec"]["containers"]
    environment = {each["name"]: each.get("value", each.get("valueFrom")) for each in submitter["env"]}
    assert environment["RAY_AUTH_MODE"] == "token"
    assert environment["RAY_AUTH_TOKEN"] == {"secretKeyRef": {"name": "las-tune-token", "key": "auth_token"}}
    text = FILE.read_text(encoding="utf-8")
    assert "kubectl create secret generic las-tune-token --from-literal=auth_token=" in text
    assert "kind: Secret" not in text  # everyone who has the file would have the token


def test_workers_have_a_gpu_and_scale_from_zero(resources: dict[str, dict[str, Any]]) -> None:
    cluster = resources["RayCluster/las-tune"]["spec"]
    (group,) = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"] and (group["replicas"], group["minReplicas"]) == (0, 0) < (
        group["maxReplicas"],
    )
    (worker,) = group["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    hook = shlex.split(worker["lifecycle"]["preStop"]["exec"]["command"][-1].partition(";")[0])
    assert hook[:3] == ["python", "~/las_tune/cluster/spot_watch.py", "now"]
    wait_s = int(re.findall(r"sleep (\d+)", worker["lifecycle"]["preStop"]["exec"]["command"][-1])[0])
    assert wait_s < group["template"]["spec"]["terminationGracePeriodSeconds"]


def test_mlflow_runs_in_the_head_pod_on_localhost_only(resources: dict[str, dict[str, Any]]) -> None:
    head = pods(resources)["head"]["spec"]
    (mlflow,) = head["initContainers"]
    assert mlflow["restartPolicy"] == "Always" and "--host=127.0.0.1" in mlflow["args"]
    other_specs = {name: template["spec"] for name, template in pods(resources).items() if name != "head"}
    assert not any("mlflow" in yaml.safe_dump(spec["containers"]) for spec in other_specs.values())
    assert "--tracking-uri http://127.0.0.1:5000" in resources["RayJob/las-tune-metal-plate"]["spec"]["entrypoint"]


def test_pods_use_one_image_and_do_not_run_as_root(resources: dict[str, dict[str, Any]]) -> None:
    for template in pods(resources).values():
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["image"] == "YOUR_IMAGE"
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_names_are_consistent(resources: dict[str, dict[str, Any]]) -> None:
    job = resources["RayJob/las-tune-metal-plate"]["spec"]
    assert job["clusterSelector"] == {"ray.io/cluster": resources["RayCluster/las-tune"]["metadata"]["name"]}
    assert job["shutdownAfterJobFinishes"] is False
    policy = resources["NetworkPolicy/las-tune"]["spec"]["podSelector"]["matchLabels"]
    for template in pods(resources).values():
        assert policy.items() <= template["metadata"]["labels"].items()
        spec = template["spec"]
        volumes = {each["name"]: each["persistentVolumeClaim"]["claimName"] for each in spec.get("volumes", [])}
        assert all(f"PersistentVolumeClaim/{claim}" in resources for claim in volumes.values())
        used = [mount["name"] for each in spec["containers"] for mount in each.get("volumeMounts", [])]
        used += [mount["name"] for each in spec.get("initContainers", []) for mount in each["volumeMounts"]]
        assert set(used) == set(volumes)
