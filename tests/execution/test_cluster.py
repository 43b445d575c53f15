"""What a cluster can become, and where its checkpoints may lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.execution import cluster
from las_tune.execution.cluster import (
    HEAD,
    KUBERAY,
    Machines,
    check_storage,
    machines_of_cluster,
    ray_cluster,
    resources_of,
)

HEAD_NODE = {"Resources": {"CPU": 8.0, HEAD: 1.0}, "NodeID": "h", "NodeManagerHostname": "head", "Alive": True}
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
    here = Path("/nowhere")
    usual: dict[str, Any] = {"category": "part", "study": "s", "data_root": here, "textures": here, "results": here}
    return StudySpec(train=TrainSpec(), **(usual | {"address": "auto"} | changes))


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The machines that Ray says are there; a test may add some."""
    there: list[dict[str, Any]] = [HEAD_NODE]
    monkeypatch.setattr(cluster, "alive_nodes", lambda: there)
    return there


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cluster file on the head."""
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(yaml.safe_dump(FILE))
    monkeypatch.setenv("HOME", str(tmp_path))
    return file


@pytest.mark.parametrize("there", [0, 1])
def test_a_cluster_is_what_its_file_lets_it_become(nodes: list[dict[str, Any]], bootstrap: Path, there: int) -> None:
    nodes += [GPU_NODE] * there
    assert machines_of_cluster("auto", bootstrap) == [
        Machines(HEAD_NODE["Resources"], 1),
        Machines({"CPU": 8, "GPU": 2}, 6),
        Machines({"CPU": 4, "GPU": 1}, 2),  # 8 workers in all, those with more GPUs first
    ]


def test_this_machine_alone_does_not_grow(nodes: list[dict[str, Any]], bootstrap: Path) -> None:
    assert machines_of_cluster(None, bootstrap) == [Machines(HEAD_NODE["Resources"], 1)]


def test_without_a_file_or_resources_in_it_a_cluster_stays_as_it_is(
    nodes: list[dict[str, Any]], tmp_path: Path
) -> None:
    nodes.append(GPU_NODE)
    as_is = [Machines(node["Resources"], 1) for node in nodes]
    assert machines_of_cluster("auto", tmp_path / "none.yaml") == as_is
    kinds = {"head": {"resources": {}}, "worker": {"resources": {}, "max_workers": 2}}
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(FILE | {"available_node_types": kinds}))
    assert machines_of_cluster("auto", tmp_path / "local.yaml") == as_is


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, (2, 1.0, 14)),  # one GPU each: 6 x 2 + 2
        ({"gpus_per_trial": 0.5, "cpus_per_trial": 1}, (1, 0.5, 28)),
        ({"gpus_per_trial": 2, "cpus_per_trial": 1}, (1, 2, 6)),
        ({"gpus_per_trial": 0, "cpus_per_trial": 2}, (2, 0, 4 + 6 * 4 + 2 * 2)),
        ({"max_concurrent": 3}, (2, 1.0, 3)),
    ],
)
def test_trials_at_once_follow_from_what_the_cluster_can_become(
    nodes: list[dict[str, Any]], bootstrap: Path, asked: dict[str, Any], expected: tuple[float, float, int]
) -> None:
    resources = resources_of(make_spec(**asked))
    assert (resources.cpus, resources.gpus, resources.max_concurrent) == expected


def test_a_trial_that_fits_on_no_machine_is_refused(nodes: list[dict[str, Any]], bootstrap: Path) -> None:
    with pytest.raises(UserError, match=r"must fit on one machine.*got 1 CPUs and 3 GPUs.*2 GPUs"):
        resources_of(make_spec(gpus_per_trial=3, cpus_per_trial=1))


@pytest.mark.parametrize("content", ["max_workers: [", "max_workers: 3", "- 1", "available_node_types: 3"])
def test_a_cluster_file_that_is_broken_is_one_line(nodes: list[dict[str, Any]], tmp_path: Path, content: str) -> None:
    (tmp_path / "broken.yaml").write_text(content)
    with pytest.raises(UserError, match="The cluster file on the head must be as `ray up` left it, got ") as refused:
        machines_of_cluster("auto", tmp_path / "broken.yaml")
    assert "\n" not in str(refused.value)


def test_on_kubernetes_workers_may_come_that_nobody_knows_of(
    nodes: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(KUBERAY, "ray start ...")
    with pytest.raises(UserError, match=r"must fit on one machine.*yet to come, give --max-concurrent"):
        resources_of(make_spec(gpus_per_trial=1))
    assert resources_of(make_spec(gpus_per_trial=1, max_concurrent=8)).max_concurrent == 8
    with pytest.raises(UserError, match="must fit on one machine"):
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


def test_a_folder_that_another_machine_does_not_see_is_refused(
    nodes: list[dict[str, Any]], this_node: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes.append(GPU_NODE)
    asked: list[tuple[str, str]] = []

    def blind(node_id: str, _: Any, marker: str) -> bool:
        asked.append((node_id, Path(marker).name[:5]))
        return False

    monkeypatch.setattr(cluster, "ask_node", blind)
    spec = local_spec(tmp_path)
    with pytest.raises(UserError, match=r"--storage must be seen by every machine.*which worker cannot see"):
        check_storage(spec)
    assert asked == [("w", ".seen")]
    assert not list((tmp_path / "storage").iterdir())
    monkeypatch.setattr(cluster, "ask_node", lambda node_id, _, marker: Path(marker).exists())
    check_storage(spec)


def test_a_disk_of_the_head_is_refused_where_the_cluster_can_grow(
    nodes: list[dict[str, Any]], this_node: None, bootstrap: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="a disk of this machine, and the cluster can grow"):
        check_storage(local_spec(tmp_path))


@pytest.mark.parametrize("changes", [{"address": None}, {"storage": "s3://bucket/las?region=us-west-2"}])
def test_one_machine_or_an_object_store_is_not_asked(
    nodes: list[dict[str, Any]], bootstrap: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    nodes += [GPU_NODE] if "storage" in changes else []
    check_storage(make_spec(results=tmp_path, **changes))


@pytest.mark.parametrize("uri", ["ftp://host/x", "s3:///no-bucket", "s4://bucket/x"])
def test_storage_of_another_kind_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match=r"--storage must be a folder, s3://... or gs://..."):
        check_storage(make_spec(storage=uri))


# --- Ray's start ---


@pytest.mark.parametrize(
    "error", [Exception("The node timed out\nduring startup."), RuntimeError("Failed to start GCS.")]
)
def test_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(UserError) as refused:
        start_ray(monkeypatch, error)
    line = f"Ray must start on this machine, got {' '.join(str(error).split())} try again when"
    assert str(refused.value).startswith(line), refused.value


def test_our_own_mistakes_are_no_fault_of_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match="ours"):
        start_ray(monkeypatch, TypeError("ours"))


def start_ray(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def start(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(cluster.ray, "init", start)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    with ray_cluster(None):
        pass
