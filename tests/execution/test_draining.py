"""Trials move away from a draining node, tested on two Ray nodes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import Listener, TrialRecord
from las_tune.execution.cluster import Resources
from las_tune.execution.observer import TuneInput
from las_tune.execution.trainable import SharedStudy
from las_tune.execution.tuner import run_trials
from las_tune.space.search_space import load_space
from tests.execution.fake_trial import fake_study, fake_trial

EPOCHS = 9
PREEMPTED = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without slots for trials, and two workers with one slot each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        made.add_node(num_cpus=1)
    ray.init(made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    ray.shutdown()
    made.shutdown()


def test_trial_moves_away_from_a_draining_node(cluster: Cluster, tmp_path: Path) -> None:
    nodes = tmp_path / "nodes"
    drained: list[str] = []

    def recorded_trial(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
        with nodes.open("a") as file:
            file.write(ray.get_runtime_context().get_node_id() + "\n")
        fake_trial(config, shared, checkpoint, pause=lambda: time.sleep(0.3))

    class Drainer(Listener):
        """Listener that drains the trial's node after its third epoch."""

        def epoch_ended(self, trial: TrialRecord) -> None:
            if len(trial.epochs) == 3:
                drained.append(nodes.read_text().split()[-1])
                deadline_ms = int((time.time() + 60) * 1000)
                accepted, _ = GcsClient(cluster.gcs_address).drain_node(drained[0], PREEMPTED, "spot", deadline_ms)
                assert accepted

    spec = StudySpec(
        category="part", study="drained", train=TrainSpec(epochs=EPOCHS), trials=1, data_root=tmp_path,
        textures=tmp_path, results=tmp_path, max_failures=0,
    )  # fmt: skip
    spec.folder.mkdir()
    study = TuneInput(spec, load_space("default"), fake_study(spec.train, 1), [Drainer()])
    (result,) = run_trials([study], Resources(1, 0, 1), recorded_trial)
    (trial,) = result.records
    assert (trial.status, len(trial.epochs), trial.repeated_seconds) == ("completed", EPOCHS, 0), trial.reason
    first, second = nodes.read_text().split()
    assert first == drained[0] != second, "the trial resumed once, on the other node, although no failure is allowed"
