"""The function that Ray Tune runs for a trial: one training run."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
import torch
from ray import ObjectRef, tune

from las_tune.config import TrainSpec
from las_tune.execution.checkpoint_storage import ROWS_NAME, read_rows
from las_tune.execution.nodes import is_draining
from las_tune.las import (
    CHECKPOINT_NAME,
    Backbone,
    TrainData,
    keep_freed_memory,
    load_checkpoint,
    pick_device,
    save_checkpoint,
    train,
)
from las_tune.reporting import PANEL_NAME, Panel, make_panel, synthesize_examples
from las_tune.search import NodeDrainingError

CHECKPOINT_SCORE = "checkpoint_score"
"""Result key by which Ray keeps checkpoints: the objective of a new best epoch, else -1. The latest is kept as well."""

MIGRATES = "migrates"
"""Result key: whether the trial ends its process after this report because its node is being drained."""


@dataclass(frozen=True)
class SharedStudy:
    """The spec of a study's training runs, and references to its data in Ray's object store, for workers."""

    train: TrainSpec
    backbone: ObjectRef
    data: ObjectRef
    num_threads: int
    defect_types: tuple[str, ...] = ("good",)
    """Names of the defect types in the validation images, "good" first."""
    system_metrics: bool = False
    """Whether workers report CPU, GPU and memory usage."""


def run_trial(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
    """Train with the hyperparameters of `config` and report every epoch to Ray Tune.

    Args:
        config: hyperparameters; they override those of the shared spec.
        shared: the study's spec and data.
        checkpoint: the checkpoint to resume from; None starts a new training.

    Raises:
        TrainingDivergedError: if the loss is not finite.
        NodeDrainingError: if the node is being drained; the trial resumes on another node.
    """
    torch.set_num_threads(shared.num_threads)
    keep_freed_memory()
    spec = shared.train.replace(**config)
    backbone, data = _load_once(shared.backbone, shared.data, str(pick_device(spec.device)))
    reporter = EpochReporter(spec, checkpoint)
    examples = synthesize_examples(spec, data)
    take_system_metrics = _system_metrics() if shared.system_metrics else dict
    for result in train(spec, backbone, data, reporter.state):
        panel = make_panel(result, data, examples, shared.defect_types) if result.is_best else None
        reporter.report(result.row() | take_system_metrics(), result.is_best, result.state, panel)


class EpochReporter:
    """Reports every epoch to Ray Tune with a checkpoint to resume from, so that a fault costs at most one epoch."""

    def __init__(self, spec: TrainSpec, checkpoint: tune.Checkpoint | None) -> None:
        """Load the state of a checkpoint.

        Args:
            spec: the trial's spec, stored in its checkpoints.
            checkpoint: the checkpoint to resume from; None starts a new training.
        """
        self._spec = spec
        self._rows: list[dict[str, float]] = []
        self.state: dict[str, Any] | None = None
        """Training state to resume from; None at the start of a training run."""
        if checkpoint is not None:
            with checkpoint.as_directory() as folder:
                _, self.state = load_checkpoint(Path(folder) / CHECKPOINT_NAME)
                self._rows = read_rows(Path(folder))

    def report(self, row: dict[str, float], is_best: bool, state: dict[str, Any], panel: Panel | None = None) -> None:
        """Report an epoch; raise NodeDrainingError after it has been stored if the node is being drained."""
        self._rows.append(row)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_checkpoint(folder / CHECKPOINT_NAME, self._spec, state)
            (folder / ROWS_NAME).write_text(json.dumps(self._rows))
            if panel is not None:
                panel.save(folder / PANEL_NAME)
            migrates = row["epoch"] < self._spec.epochs and is_draining()
            extra = {CHECKPOINT_SCORE: row["objective"] if is_best else -1.0, MIGRATES: migrates}
            tune.report(row | extra, checkpoint=tune.Checkpoint.from_directory(folder))
        if migrates:
            raise NodeDrainingError("the node is being drained")


@lru_cache(maxsize=1)
def _system_metrics() -> Callable[[], dict[str, float]]:
    """Start monitoring this machine, once per process, and return the function that reads the metrics."""
    from las_tune.tracking import SystemMetrics  # loads MLflow into the worker, so only on demand

    monitor = SystemMetrics()
    monitor.start()
    return monitor.take


@lru_cache(maxsize=1)
def _load_once(backbone: ObjectRef, data: ObjectRef, device: str) -> tuple[Backbone, TrainData]:
    """Load network and data onto the device, once per process: a worker process runs many trials."""
    network = ray.get(backbone).to(device)
    return network, ray.get(data).to_device(network)
