"""The function that Ray Tune runs: one trial is one training, nothing more."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ray
import torch
from ray import ObjectRef, tune

from las_tune.las.backbone import Backbone
from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint, save_checkpoint
from las_tune.las.memory import keep_freed_memory
from las_tune.las.train import TrainData, pick_device, train
from las_tune.spec import TrainSpec
from las_tune.tracking.panel import PANEL_NAME
from las_tune.tuning.panels import make_panel, paint

CHECKPOINT_EVERY_S = 5.0
"""Between two better epochs a checkpoint is written this often: what a lost worker can cost."""
CHECKPOINT_SCORE = "checkpoint_score"
"""Ray keeps the checkpoint of the greatest score and the latest: the objective at a new best, else -1."""


@dataclass(frozen=True)
class SharedStudy:
    """What a worker needs of a study: the spec that trials start from, and where the rest lies in the object store."""

    train: TrainSpec
    backbone: ObjectRef
    data: ObjectRef
    num_threads: int
    kinds: tuple[str, ...] = ("good",)
    """Names of the kinds of defects in validation pictures, good ones first."""
    system_metrics: bool = False
    """Whether trials measure their machine."""


def run_trial(config: dict[str, Any], shared: SharedStudy) -> None:
    """Train with the hyperparameters of config; report every epoch.

    Raises: TrainingDivergedError, which ends the trial as failed.
    """
    torch.set_num_threads(shared.num_threads)
    keep_freed_memory()
    spec = shared.train.replace(**config)
    backbone, data = _load_once(shared.backbone, shared.data, str(pick_device(spec.device)))
    checkpoint = tune.get_checkpoint()
    resume = None
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            _, resume = load_checkpoint(Path(folder) / CHECKPOINT_NAME)
    painted = paint(spec, data)
    saved = time.monotonic()
    take_system_metrics = _system_metrics() if shared.system_metrics else dict
    for result in train(spec, backbone, data, resume):
        row = result.row() | {CHECKPOINT_SCORE: result.objective if result.is_best else -1.0}
        row |= take_system_metrics()
        if result.is_best or time.monotonic() - saved > CHECKPOINT_EVERY_S:
            with tempfile.TemporaryDirectory() as folder:
                save_checkpoint(Path(folder) / CHECKPOINT_NAME, spec, result.state)
                if result.is_best:
                    make_panel(result, data, painted, shared.kinds).save(Path(folder) / PANEL_NAME)
                tune.report(row, checkpoint=tune.Checkpoint.from_directory(folder))
            saved = time.monotonic()
        else:
            tune.report(row)


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
