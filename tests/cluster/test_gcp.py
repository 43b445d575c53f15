"""Validate cluster/gcp.yaml with Ray's schema, and Ray's requests with the schema of Compute Engine's API, offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from googleapiclient.discovery import build_from_document
from googleapiclient.http import HttpMock
from ray.autoscaler._private.commands import prepare_config
from ray.autoscaler._private.gcp import config as ray_gcp
from ray.autoscaler._private.gcp.node import GCPCompute
from ray.autoscaler._private.util import validate_config

FILE = Path(__file__).parents[2] / "cluster/gcp.yaml"
WORKERS = ["gpu_l4", "gpu_t4"]
SUBNET = "projects/las-tune-EDIT/regions/us-west1/subnetworks/default"
API = json.loads(files("googleapiclient.discovery_cache").joinpath("documents/compute.v1.json").read_text("utf-8"))
"""Google's description of the Compute Engine API, as included in its Python client."""


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Convert a type of Google's description to a JSON schema that rejects unknown and read-only fields."""
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    kept = {key: schema[key] for key in ("type", "enum", "pattern") if key in schema}
    if kept.get("type") == "any":
        return {}
    if "items" in schema:
        kept["items"] = strict(schema["items"])
    if schema.get("type") == "object":
        known = schema.get("properties", {})
        kept["properties"] = {name: strict(each) for name, each in known.items() if not each.get("readOnly")}
        kept["additionalProperties"] = (
            strict(schema["additionalProperties"]) if "additionalProperties" in schema else False
        )
    if schema.get("format") in ("int64", "uint64") and schema.get("type") == "string":
        kept["pattern"] = "^-?[0-9]+$"  # 64-bit integers are sent as strings
    return kept


INSTANCE = jsonschema.Draft202012Validator(
    strict({"$ref": "Instance"}) | {"$defs": {name: strict(each) for name, each in API["schemas"].items()}}
)


class Recorder(HttpMock):
    """A fake connection that records the request."""

    def request(self, uri: str, method: str = "GET", body: Any = None, *rest: Any, **named: Any) -> Any:
        self.uri, self.body = uri, body
        return super().request(uri, method, body, *rest, **named)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The cluster file with Ray's defaults."""
    given = prepare_config(yaml.safe_load(FILE.read_text(encoding="utf-8")))
    validate_config(given)
    return dict(given)


@pytest.fixture(scope="module")
def requests(config: dict[str, Any]) -> Iterator[dict[str, dict[str, Any]]]:
    """The request for a machine of each node type."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_gcp, "_list_subnets", lambda config, compute: [{"selfLink": SUBNET}])
        yield _record_requests(ray_gcp._configure_subnet(config, None), patch)


def _record_requests(config: dict[str, Any], patch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    wire = Recorder(headers={"status": "200"})
    wire.data = b'{"name": "operation"}'
    patch.setattr(GCPCompute, "get_new_authorized_http", lambda self, http: wire)
    provider = config["provider"]
    client = build_from_document(API, http=wire)
    compute = GCPCompute(client, provider["project_id"], provider["availability_zone"], config["cluster_name"])
    bodies = {}
    for name, node_type in config["available_node_types"].items():
        labels = {"ray-node-type": "head" if name == "head" else "worker", "ray-node-name": name.replace("_", "-")}
        compute.create_instance(node_type["node_config"], labels, wait_for_operation=False)
        assert "/projects/las-tune-EDIT/zones/us-west1-a/instances" in wire.uri
        bodies[name] = json.loads(wire.body)
    return bodies


def test_every_field_is_in_the_compute_engine_schema(requests: dict[str, dict[str, Any]]) -> None:
    assert list(requests) == ["head", *WORKERS]
    for body in requests.values():
        INSTANCE.validate(body)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("scheduling", [{"preemptible": True}]),  # a list, as in Ray's example
        ("scheduling", {"provisioningModel": "CHEAP"}),
        ("disks", [{"boot": True, "initializeParams": {"diskSizeGb": 150}}]),  # a number instead of a string
        ("gpus", 1),
        ("status", "RUNNING"),
    ],
)
def test_schema_rejects_unknown_fields_and_values(requests: dict[str, dict[str, Any]], path: str, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        INSTANCE.validate(requests["gpu_l4"] | {path: value})


def test_the_head_is_on_demand_and_workers_are_spot(requests: dict[str, dict[str, Any]]) -> None:
    assert "scheduling" not in requests["head"]
    for name in WORKERS:
        assert requests[name]["scheduling"] == {
            "provisioningModel": "SPOT", "instanceTerminationAction": "DELETE", "onHostMaintenance": "TERMINATE",
            "automaticRestart": False,
        }  # fmt: skip
        assert [each["scopes"] for each in requests[name]["serviceAccounts"]] == [
            ["https://www.googleapis.com/auth/devstorage.read_write"]
        ]


def test_machines_have_their_types_gpus_and_disks(config: dict[str, Any], requests: dict[str, dict[str, Any]]) -> None:
    machines = {name: body["machineType"].rpartition("/")[2] for name, body in requests.items()}
    assert machines == {"head": "n2-standard-8", "gpu_l4": "g2-standard-4", "gpu_t4": "n1-standard-4"}
    (gpu,) = requests["gpu_t4"]["guestAccelerators"]
    assert gpu["acceleratorType"].endswith("/acceleratorTypes/nvidia-tesla-t4") and gpu["acceleratorCount"] == 1
    for name, body in requests.items():
        assert [disk["initializeParams"]["diskSizeGb"] for disk in body["disks"] if disk.get("boot")] == ["150"]
        assert [disk["deviceName"] for disk in body["disks"] if not disk["autoDelete"]] == (
            ["las-tune-kept"] if name == "head" else []
        )
        assert body["labels"]["project"] == "las_tune" and body["labels"]["ray-cluster-name"] == "las-tune"
    for name in WORKERS:
        node_type = config["available_node_types"][name]
        assert node_type["resources"] == {"CPU": 4, "GPU": 1}
        assert (node_type["min_workers"], node_type["max_workers"]) == (0, config["max_workers"])
    assert config["available_node_types"]["head"]["max_workers"] == 0


def test_persistent_disk_is_mounted_into_the_container(config: dict[str, Any]) -> None:
    mount, folders = config["initialization_commands"]
    assert "/dev/disk/by-id/google-las-tune-kept" in mount
    sources = [option.removeprefix("-v ").partition(":")[0] for option in config["docker"]["head_run_options"]]
    assert sources and all(source in folders for source in sources)
