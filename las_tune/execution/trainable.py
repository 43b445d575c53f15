"""The function that Ray Tune runs: one trial is one training, nothing more."""

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

from las_tune.config.train_spec import TrainSpec
from las_tune.execution.checkpoint_storage import ROWS_NAME, rows_in
from las_tune.execution.nodes import is_draining
from las_tune.las.backbone import Backbone
from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
from las_tune.las.memory import keep_freed_memory
from las_tune.las.training import TrainData, pick_device, train
from las_tune.reporting.panel import PANEL_NAME, Panel
from las_tune.reporting.panel_arrays import make_panel, paint
from las_tune.search.trial_faults import HandedOverError

CHECKPOINT_SCORE = "checkpoint_score"
"""Ray keeps the checkpoint of the greatest score and the latest: the objective at a new best, else -1."""

LEAVES = "leaves"
"""Whether a trial ends its process after this report, because its machine is about to go."""


@dataclass(frozen=True)
class SharedStudy:
    """What a worker needs of a study: the spec that trials start from, and where the rest lies in the object store."""

    train: TrainSpec
    backbone: ObjectRef
    data: ObjectRef
    num_threads: int
    kinds: tuple[str, ...] = ("good",)
    """Names of the kinds of defects in validation images, good ones first."""
    system_metrics: bool = False
    """Whether trials measure their machine."""


def run_trial(config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None) -> None:
    """Train with the hyperparameters of config, from a checkpoint where there is one; report every epoch.

    Raises: TrainingDivergedError, which ends the trial as failed; HandedOverError.
    """
    torch.set_num_threads(shared.num_threads)
    keep_freed_memory()
    spec = shared.train.replace(**config)
    backbone, data = _load_once(shared.backbone, shared.data, str(pick_device(spec.device)))
    reports = Reports(spec, start)
    painted = paint(spec, data)
    take_system_metrics = _system_metrics() if shared.system_metrics else dict
    for result in train(spec, backbone, data, reports.state):
        panel = make_panel(result, data, painted, shared.kinds) if result.is_best else None
        reports.add(result.row() | take_system_metrics(), result.is_best, result.state, panel)


class Reports:
    """Tells Ray of every epoch, with a checkpoint that another process goes on from: a fault costs one epoch."""

    def __init__(self, spec: TrainSpec, start: tune.Checkpoint | None) -> None:
        """start: the checkpoint that the trial goes on from; None: it starts."""
        self._spec = spec
        self._rows: list[dict[str, float]] = []
        self.state: dict[str, Any] | None = None
        """Of the training, where it goes on."""
        if start is not None:
            with start.as_directory() as folder:
                _, self.state = load_checkpoint(Path(folder) / CHECKPOINT_NAME)
                self._rows = rows_in(Path(folder))

    def add(self, row: dict[str, float], is_best: bool, state: dict[str, Any], panel: Panel | None = None) -> None:
        """Report an epoch; raises HandedOverError once that is safe on a machine that is about to go."""
        self._rows.append(row)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            save_checkpoint(folder / CHECKPOINT_NAME, self._spec, state)
            (folder / ROWS_NAME).write_text(json.dumps(self._rows))
            if panel is not None:
                panel.save(folder / PANEL_NAME)
            leaves = row["epoch"] < self._spec.epochs and is_draining()
            notes = {CHECKPOINT_SCORE: row["objective"] if is_best else -1.0, LEAVES: leaves}
            tune.report(row | notes, checkpoint=tune.Checkpoint.from_directory(folder))
        if leaves:
            raise HandedOverError("its machine is about to go")


@lru_cache(maxsize=1)
def _system_metrics() -> Callable[[], dict[str, float]]:
    """Measures this machine from now on, once a process."""
    from las_tune.tracking.system_metrics import SystemMetrics  # brings MLflow into the worker: on demand only

    measuring = SystemMetrics()
    measuring.start()
    return measuring.take


@lru_cache(maxsize=1)
def _load_once(backbone: ObjectRef, data: ObjectRef, device: str) -> tuple[Backbone, TrainData]:
    """Network and data on the device. A worker process is reused from trial to trial, and so are these."""
    network = ray.get(backbone).to(device)
    return network, ray.get(data).to_device(network)
