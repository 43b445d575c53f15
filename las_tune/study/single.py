"""A single training run without Ray: one configuration, trained and tested with the code that a trial runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import psutil
from torch import Tensor

from las_tune.config import EPOCH_FIELDS, Listener, Progress, StudySpec, TrialRecord, make_folder, paths, write_json
from las_tune.data import StudyImages, load_images, resolve_objective, share, store_limit_bytes
from las_tune.las import (
    CHECKPOINT_NAME,
    Backbone,
    TrainData,
    TrainingDivergedError,
    keep_freed_memory,
    load_backbone,
    pick_device,
    save_checkpoint,
    train,
)
from las_tune.reporting import TrainingLog
from las_tune.selection import MEMORY_BANK, Evaluation, TrainedHead, count_opening, evaluate
from las_tune.study.outputs import DeliveredDetector, require_new_folder, write_detector


@dataclass(frozen=True)
class SingleResult:
    """A finished training run."""

    trial: TrialRecord
    evaluation: Evaluation
    """Evaluation of the head of the best epoch on the sealed test."""
    memory_bank: Evaluation
    """Evaluation of the memory bank on the sealed test."""
    test_openings: int
    """How often images of the sealed test were scored so far."""
    files: list[Path]
    test_name: str
    skipped: tuple[str, ...]
    """One line per broken file that was left out."""
    masks_missing: int
    """Number of defective images without a mask."""


def run_single(spec: StudySpec, listeners: Sequence[Listener], progress: Progress) -> SingleResult:
    """Train once, evaluate on the sealed test, and write splits, log, curves and detector into the study's folder.

    Args:
        spec: settings; those of the search are not used.
        listeners: follow the training run as a trial.
        progress: reports the steps.

    Raises: UserError for invalid settings.
    """
    require_new_folder(spec.folder)
    images = load_images(spec, progress)
    spec = replace(spec, train=resolve_objective(spec.train, images))
    backbone = load_backbone(spec.train.backbone, spec.train.backbone_weights).to(pick_device(spec.train.device))
    make_folder(spec.folder)
    write_json(spec.folder / paths.SPLITS, images.split.as_dict())
    log = TrainingLog(spec.folder, spec.category, datetime.now())
    data = _compute_features(spec, images, backbone, log, progress)

    trial, state = _train(spec, backbone, data, [*listeners, log])
    head = TrainedHead(state, spec.train.hidden_width, spec.train.use_adaptor)
    sealed_keys = images.split.as_dict()["sealed_test"]
    openings = count_opening(spec.results, spec.data_root / spec.category, sealed_keys, spec.study, 1)
    evaluations = evaluate(backbone, data, {"champion": head}, images.sealed_test, spec.train.fpr)
    detectors = {"champion": DeliveredDetector(trial, head, evaluations["champion"])}
    files = write_detector(
        spec.folder, spec.category, spec.train, backbone, detectors, images.sealed_test.labels, images.test_name
    )
    return SingleResult(
        trial=trial,
        evaluation=evaluations["champion"],
        memory_bank=evaluations[MEMORY_BANK],
        test_openings=openings,
        files=[*files, log.path],
        test_name=images.test_name,
        skipped=images.skipped,
        masks_missing=images.masks_missing,
    )


def _compute_features(
    spec: StudySpec, images: StudyImages, backbone: Backbone, log: TrainingLog, progress: Progress
) -> TrainData:
    """Run the frozen network over all images that are not synthesized."""
    keep_freed_memory()
    limit_bytes = store_limit_bytes(spec.store_limit_gb, psutil.virtual_memory().available)
    shared, stored = share(backbone, images.trials, spec.train.store_dtype, limit_bytes, progress)
    progress(stored, 1, 1)
    log.write(stored)
    return shared.to_device(backbone)


def _train(
    spec: StudySpec, backbone: Backbone, data: TrainData, listeners: Sequence[Listener]
) -> tuple[TrialRecord, dict[str, Tensor]]:
    """Train one trial. Return its record and the state of its head at the best epoch, which is also checkpointed."""
    trial = TrialRecord(0, spec.train.hyperparameters())
    best: dict[str, Tensor] = {}
    for listener in listeners:
        listener.trial_started(trial)
    try:
        for result in train(spec.train, backbone, data):
            row = result.row()
            trial.add_epoch({name: row[name] for name in EPOCH_FIELDS if name in row})
            if result.is_best:
                best = {name: value.clone() for name, value in result.state["head"].items()}
                save_checkpoint(spec.folder / CHECKPOINT_NAME, spec.train, result.state)
            for listener in listeners:
                listener.epoch_ended(trial)
        trial.status = "completed"
    except TrainingDivergedError as error:
        trial.status, trial.reason = "failed", str(error)
        raise
    finally:
        for listener in listeners:
            listener.trial_ended(trial)
    return trial, best
