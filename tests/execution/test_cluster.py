"""Resources of a cluster, checks of its checkpoint storage, and the start of Ray."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._raylet import AuthenticationMode, get_authentication_mode

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.execution import cluster
from las_tune.execution.cluster import (
    HEAD_RESOURCE,
    KUBERAY_VARIABLE,
    MachineGroup,
    check_storage,
    machines_of_cluster,
    ray_cluster,
    resources_of,
)

HEAD_NODE = {"Resources": {"CPU": 8.0, HEAD_RESOURCE: 1.0}, "NodeID": "h", "NodeManagerHostname": "head", "Alive": True}
GPU_NODE = {"Resources": {"CPU": 4.0, "GPU": 1.0}, "NodeID": "w", "NodeManagerHostname": "worker", "Alive": True}
FILE = {
    "max_workers": 8,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 8}},
        "gpu_a": {"resources": {"CPU": 4, "GPU": 1}, "max_workers": 6},
        "gpu_b": {"resources": {"CPU": 8, "GPU": 2}, "max_workers": 6},
        "cpu": {"resources": {"CPU": 16}, "max_workers": 8},
    },
}


def make_spec(**changes: Any) -> StudySpec:
    folder = Path("/nowhere")
    defaults: dict[str, Any] = {
        "category": "part",
        "study": "s",
        "data_root": folder,
        "textures": folder,
        "results": folder,
    }
    return StudySpec(train=TrainSpec(), **(defaults | {"address": "auto"} | changes))


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The nodes that Ray reports as alive; a test may add some."""
    alive: list[dict[str, Any]] = [HEAD_NODE]
    monkeypatch.setattr(cluster, "alive_nodes", lambda: alive)
    return alive


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cluster file of the head."""
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(yaml.safe_dump(FILE))
    monkeypatch.setenv("HOME", str(tmp_path))
    return file


@pytest.mark.parametrize("num_workers", [0, 1])
def test_cluster_grows_to_the_limits_of_its_file(
    nodes: list[dict[str, Any]], bootstrap: Path, num_workers: int
) -> None:
    nodes += [GPU_NODE] * num_workers
    assert machines_of_cluster("auto", bootstrap) == [
        MachineGroup(HEAD_NODE["Resources"], 1),
        MachineGroup({"CPU": 8, "GPU": 2}, 6),
        MachineGroup({"CPU": 4, "GPU": 1}, 2),  # 8 workers in total, those with more GPUs first
    ]


def test_single_machine_does_not_grow(nodes: list[dict[str, Any]], bootstrap: Path) -> None:
    assert machines_of_cluster(None, bootstrap) == [MachineGroup(HEAD_NODE["Resources"], 1)]


def test_cluster_without_file_or_resources_does_not_grow(nodes: list[dict[str, Any]], tmp_path: Path) -> None:
    nodes.append(GPU_NODE)
    unchanged = [MachineGroup(node["Resources"], 1) for node in nodes]
    assert machines_of_cluster("auto", tmp_path / "none.yaml") == unchanged
    node_types = {"head": {"resources": {}}, "worker": {"resources": {}, "max_workers": 2}}
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(FILE | {"available_node_types": node_types}))
    assert machines_of_cluster("auto", tmp_path / "local.yaml") == unchanged


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (2, 1.0, 14)),  # one GPU each: 6 x 2 + 2
        ({"gpus_per_trial": 0.5, "cpus_per_trial": 1}, (1, 0.5, 28)),
        ({"gpus_per_trial": 2, "cpus_per_trial": 1}, (1, 2, 6)),
        ({"gpus_per_trial": 0, "cpus_per_trial": 2}, (2, 0, 4 + 6 * 4 + 2 * 2)),
        ({"max_concurrent": 3}, (2, 1.0, 3)),
    ],
)
def test_parallel_trials_fill_the_grown_cluster(
    nodes: list[dict[str, Any]], bootstrap: Path, flags: dict[str, Any], expected: tuple[float, float, int]
) -> None:
    resources = resources_of(make_spec(**flags))
    assert (resources.cpus, resources.gpus, resources.max_concurrent) == expected


def test_trial_larger_than_every_machine_is_rejected(nodes: list[dict[str, Any]], bootstrap: Path) -> None:
    with pytest.raises(UserError, match=r"1 CPUs and 3 GPUs fits on no machine.*the largest has 8 CPUs and 2 GPUs"):
        resources_of(make_spec(gpus_per_trial=3, cpus_per_trial=1))


@pytest.mark.parametrize("content", ["max_workers: [", "max_workers: 3", "- 1", "available_node_types: 3"])
def test_broken_cluster_file_is_a_one_line_error(nodes: list[dict[str, Any]], tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.yaml").write_text(content)
    with pytest.raises(UserError, match="The cluster file on the head cannot be read: ") as raised:
        machines_of_cluster("auto", tmp_path / "broken.yaml")
    assert "\n" not in str(raised.value)


def test_kubernetes_accepts_max_concurrent_for_unknown_workers(
    nodes: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(KUBERAY_VARIABLE, "ray start ...")
    with pytest.raises(UserError, match=r"fits on no machine.*give --max-concurrent"):
        resources_of(make_spec(gpus_per_trial=1))
    assert resources_of(make_spec(gpus_per_trial=1, max_concurrent=8)).max_concurrent == 8
    with pytest.raises(UserError, match="fits on no machine"):
        resources_of(make_spec(gpus_per_trial=1, max_concurrent=8, address=None))


# --- storage ---


def local_spec(folder: Path, **changes: Any) -> StudySpec:
    (folder / "storage").mkdir()
    return make_spec(results=folder, storage=str(folder / "storage"), **changes)


@pytest.fixture
def this_node(monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_node_id(self) -> str:
            return "h"

    monkeypatch.setattr("ray.get_runtime_context", Context)


def test_storage_invisible_to_a_node_is_rejected(
    nodes: list[dict[str, Any]], this_node: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.append(GPU_NODE)
    calls: list[tuple[str, str]] = []

    def not_visible(node_id: str, _: Any, marker: str) -> bool:
        calls.append((node_id, Path(marker).name[:5]))
        return False

    monkeypatch.setattr(cluster, "run_on_node", not_visible)
    spec = local_spec(tmp_path)
    with pytest.raises(UserError, match=r"checkpoint folder .*/storage.* cannot be seen from worker"):
        check_storage(spec)
    assert calls == [("w", ".seen")]
    assert not list((tmp_path / "storage").iterdir())
    monkeypatch.setattr(cluster, "run_on_node", lambda node_id, _, marker: Path(marker).exists())
    check_storage(spec)


def test_local_disk_is_rejected_if_the_cluster_can_grow(
    nodes: list[dict[str, Any]], this_node: None, bootstrap: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="on a local disk, and the cluster can grow"):
        check_storage(local_spec(tmp_path))


@pytest.mark.parametrize("changes", [{"address": None}, {"storage": "s3://bucket/las?region=us-west-2"}])
def test_single_machine_and_object_store_are_accepted(
    nodes: list[dict[str, Any]], bootstrap: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    nodes += [GPU_NODE] if "storage" in changes else []
    check_storage(make_spec(results=tmp_path, **changes))


@pytest.mark.parametrize("uri", ["ftp://host/x", "s3:///no-bucket", "s4://bucket/x"])
def test_unsupported_storage_uri_is_rejected(uri: str) -> None:
    with pytest.raises(UserError, match=r"--storage must be a folder, s3://... or gs://..."):
        check_storage(make_spec(storage=uri))


# --- Ray's start ---


@pytest.mark.parametrize(
    "error", [Exception("The node timed out\nduring startup."), RuntimeError("Failed to start GCS.")]
)
def test_failed_start_of_ray_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(UserError) as raised:
        start_ray(monkeypatch, error)
    line = f"Ray failed to start on this machine ({' '.join(str(error).split()).rstrip('.')}). Try again when"
    assert str(raised.value).startswith(line), raised.value


def test_programming_errors_are_not_reported_as_failed_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="ours"):
        start_ray(monkeypatch, TypeError("ours"))


def start_ray(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    with ray_cluster(None):
        pass


def test_ray_reads_its_authentication_mode_again_after_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the process would reject the calls of a cluster that it joins later and that runs without tokens."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with ray_cluster(None):
        assert os.environ["RAY_AUTH_MODE"] == "token" and get_authentication_mode() == AuthenticationMode.TOKEN
    assert "RAY_AUTH_MODE" not in os.environ and get_authentication_mode() == AuthenticationMode.DISABLED
