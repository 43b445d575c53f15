"""A cluster with Ray's autoscaler grows with pending trials and shrinks without trials, even during a study."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray

from las_tune.config.progress import no_progress
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import Listener, TrialRecord
from las_tune.data.study_images import load_images
from las_tune.execution.cluster import ray_cluster, resources_of
from las_tune.execution.nodes import alive_nodes
from las_tune.execution.observer import TuneInput
from las_tune.execution.remote import prepare_remotely
from las_tune.execution.tuner import run_trials
from las_tune.las.backbone import load_backbone
from las_tune.space.search_space import load_space
from tests.benchmarks.scale import sleeping_trial
from tests.parts import make_part, make_textures, part_spec
from tests.servers import free_port
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
WORKERS = 2
IDLE_S = 6


def cluster_file(address: str) -> dict[str, Any]:
    """Return a cluster file with a head without slots, and workers that Ray starts on this machine as fake nodes."""
    return {
        "cluster_name": "grows",
        "max_workers": WORKERS,
        "upscaling_speed": 8.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "fake_multinode", "gcs_address": address, "head_node_id": "f" * 51 + "00000",
            "use_node_id_as_ip": True, "disable_node_updaters": True, "disable_launch_config_check": True,
            "launch_multiple": True,
        },
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": WORKERS},
        },
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "initialization_commands": [], "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [],
        "head_start_ray_commands": [], "worker_start_ray_commands": [], "rsync_exclude": [], "rsync_filter": [],
    }  # fmt: skip


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A head with an autoscaler, with its cluster file where `ray up` writes it."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    file = tmp_path / "ray_bootstrap_config.yaml"
    file.write_text(json.dumps(cluster_file(address)))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)  # Ray sets it in a process that used a token
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    environment = os.environ | {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    environment |= {"RAY_enable_autoscaler_v2": "0"}
    temporary = Path(f"/tmp/las-grows-{os.getpid()}")  # contains sockets, whose paths must be short
    command = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--node-ip-address=127.0.0.1",
        f"--port={port}", "--num-cpus=0", "--include-dashboard=false", f"--autoscaling-config={file}",
        "--object-store-memory=300000000", f"--temp-dir={temporary}", "--disable-usage-stats",
    ]  # fmt: skip
    with (tmp_path / "head.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    read_log = (tmp_path / "head.log").read_text
    wait_until(lambda: "Ray runtime started" in read_log(), read_log, 60, every_s=0.5, process=process)
    yield address
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)
    with suppress(ProcessLookupError):  # raylets that the autoscaler started and that are still running
        os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(temporary, ignore_errors=True)


class Watch(Listener):
    """Listener that records the number of workers at every epoch."""

    def __init__(self) -> None:
        self.workers: list[int] = []

    def epoch_ended(self, trial: TrialRecord) -> None:
        self.workers.append(len(alive_nodes()) - 1)


def test_pending_trials_add_workers_and_idle_workers_are_removed(address: str, tmp_path: Path) -> None:
    """Run in a separate process: Ray caches whether a process uses a token, and this cluster has none."""
    study = multiprocessing.get_context("spawn").Process(target=grow_and_shrink, args=(address, tmp_path))
    study.start()
    study.join(300)
    study.kill()
    assert study.exitcode == 0, "see its output above"


def grow_and_shrink(address: str, tmp_path: Path) -> None:
    make_part(tmp_path)
    make_textures(tmp_path / "textures")
    train = TrainSpec(image_size=32, epochs=3, backbone="resnet18", backbone_weights="random")
    spec = part_spec(tmp_path, train, address=address, trials=6, scheduler="none")
    spec.folder.mkdir(parents=True)
    watch = Watch()
    with ray_cluster(address):
        # On a busy machine the autoscaler may add a worker too early, and then removes it.
        wait_until(lambda: len(alive_nodes()) == 1, "no worker before there is work", 90, every_s=0.5)
        resources = resources_of(spec)
        assert (resources.cpus, resources.max_concurrent) == (1, WORKERS), "the size to which the cluster can grow"
        backbone, images = load_backbone("resnet18", "random"), load_images(spec).trials
        shared, _ = prepare_remotely(spec, backbone, images, resources, no_progress)
        study = TuneInput(spec, load_space("default"), shared, [watch])
        (result,) = run_trials([study], resources, partial(sleeping_trial, trial_s=4.0, num_epochs=3))
        assert WORKERS in watch.workers, "pending trials added the second worker"
        # The driver is still running, and holds the features.
        wait_until(lambda: len(alive_nodes()) == 1, "an idle worker was not removed", 60, every_s=0.5)
        assert ray.get(shared.data) is not None
    assert [record.status for record in result.records] == ["completed"] * 6
