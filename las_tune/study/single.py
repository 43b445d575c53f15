"""One training without Ray: the seed program's job, by the code that a trial runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from torch import Tensor

from las_tune.config import paths
from las_tune.config.files import make_folder, write_json
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import ROW, Listener, TrialRecord
from las_tune.data.study_images import Progress, load_images, resolve_objective
from las_tune.data.trial_data import share, store_limit_bytes
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.checkpoint import CHECKPOINT_NAME, save_checkpoint
from las_tune.las.memory import keep_freed_memory
from las_tune.las.training import TrainData, TrainingDivergedError, pick_device, train
from las_tune.reporting.training_log import TrainingLog
from las_tune.selection.evaluation import MEMORY_BANK, Evaluation, Trained, evaluate
from las_tune.selection.openings import count_opening
from las_tune.study.outputs import require_new, write_outputs


@dataclass(frozen=True)
class SingleResult:
    """What a training gave."""

    trial: TrialRecord
    evaluation: Evaluation
    memory_bank: Evaluation
    test_openings: int
    files: list[Path]
    test_name: str
    skipped: tuple[str, ...]
    masks_missing: int


def run_single(spec: StudySpec, listeners: Sequence[Listener], progress: Progress) -> SingleResult:
    """Train once, open the sealed test, write the four outputs and splits.json into the study's folder."""
    require_new(spec.folder)
    images = load_images(spec, progress)
    train_spec = resolve_objective(spec.train, images)
    device = pick_device(train_spec.device)
    backbone = load_backbone(train_spec.backbone, train_spec.backbone_weights).to(device)
    make_folder(spec.folder)
    write_json(spec.folder / paths.SPLITS, images.split.as_dict())
    log = TrainingLog(spec.folder, spec.category, datetime.now())
    listeners = [*listeners, log]
    keep_freed_memory()
    shared, stored = share(
        backbone, images.trials, train_spec.store_dtype,
        store_limit_bytes(spec.store_limit_gb, psutil.virtual_memory().available), progress,
    )  # fmt: skip
    progress(stored, 1, 1)
    log.write(stored)
    data = shared.to_device(backbone)

    trial, best = _train(spec, train_spec, backbone, data, listeners)
    trained = {"champion": Trained(best, train_spec.hidden_width, train_spec.use_adaptor)}
    sealed_keys = images.split.as_dict()["sealed_test"]
    openings = count_opening(spec.results, spec.data_root / spec.category, sealed_keys, spec.study, 1)
    evaluations = evaluate(backbone, data, trained, images.sealed_test, train_spec.fpr)
    champion = {"champion": evaluations["champion"]}
    files = write_outputs(
        spec.folder, spec.category, train_spec, backbone, {"champion": trial}, trained, champion,
        images.sealed_test.labels, images.test_name,
    )  # fmt: skip
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


def _train(
    spec: StudySpec, train_spec: TrainSpec, backbone: Backbone, data: TrainData, listeners: Sequence[Listener]
) -> tuple[TrialRecord, dict[str, Tensor]]:
    """The training as a trial, with its head at the best epoch, which is also a checkpoint in the study's folder."""
    trial = TrialRecord(0, train_spec.hyperparameters())
    best: dict[str, Tensor] = {}
    for listener in listeners:
        listener.trial_started(trial)
    try:
        for result in train(train_spec, backbone, data):
            row = result.row()
            trial.add_epoch({name: row[name] for name in ROW if name in row})
            if result.is_best:
                best = {name: value.clone() for name, value in result.state["head"].items()}
                save_checkpoint(spec.folder / CHECKPOINT_NAME, train_spec, result.state)
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
