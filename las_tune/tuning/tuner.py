"""Ray: where trials run. Starts or joins Ray, runs a study's trials, hands every event to the listeners."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune

from las_tune.errors import UserError
from las_tune.las.backbone import Backbone
from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint
from las_tune.las.memory import keep_freed_memory
from las_tune.las.train import pick_device
from las_tune.spec import StudySpec
from las_tune.tracking.record import ROW, Listener, TrialRecord
from las_tune.tuning.evaluate import Evaluation, Trained, evaluate
from las_tune.tuning.prepare import Array, Labelled, SharedData, StudyPictures, share, store_limit_bytes
from las_tune.tuning.scheduler import make_scheduler
from las_tune.tuning.search import METRIC, StudySearch
from las_tune.tuning.space import Space
from las_tune.tuning.trainable import CHECKPOINT_SCORE, SharedStudy, run_trial


@dataclass(frozen=True)
class Resources:
    """What one trial gets, and how many trials run at once."""

    cpus: float
    gpus: float
    max_concurrent: int

    @property
    def num_threads(self) -> int:
        """Threads of torch in a trial, so that parallel trials do not fight for cores."""
        return max(1, int(self.cpus))


@contextmanager
def ray_cluster(address: str | None) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at address; leave it at the end."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # listeners record what is to be recorded
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # verbose=0 is silent in the old output only
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, SystemExit) as error:  # Ray itself exits where nobody answers
        if address is None:
            raise
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            "--address must be that of a running Ray cluster", f"{address} ({reason})", "start it"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def resources_of(spec: StudySpec) -> Resources:
    """What the flags say, else one GPU where the cluster has any, a quarter of a machine's cores, and all that fit."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_cpus, most_gpus = (max(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    gpus = spec.gpus_per_trial if spec.gpus_per_trial is not None else min(1.0, most_gpus)
    cpus = spec.cpus_per_trial or max(1, int(most_cpus) // 4)

    def fitting(node: dict[str, float]) -> int:
        by_cpus = int(node.get("CPU", 0.0) / cpus + 1e-9)
        return min(by_cpus, int(node.get("GPU", 0.0) / gpus + 1e-9)) if gpus else by_cpus

    fit = sum(map(fitting, nodes))
    if not fit:
        raise UserError(
            "--cpus-per-trial and --gpus-per-trial must fit on one machine of the cluster",
            f"{cpus:g} CPUs and {gpus:g} GPUs",
            f"the largest has {most_cpus:g} CPUs and {most_gpus:g} GPUs",
        )
    return Resources(cpus, gpus, spec.max_concurrent or fit)


def prepare_remotely(
    spec: StudySpec, backbone: Backbone, pictures: StudyPictures, resources: Resources
) -> tuple[SharedStudy, str]:
    """Compute the shared data where trials run.

    Returns: what workers need of the study, and a sentence on the stored features.
    """
    memory = min(node["Resources"].get("object_store_memory", 0.0) for node in ray.nodes() if node["Alive"])
    limit = store_limit_bytes(spec.store_limit_gb, memory)
    backbone_ref = ray.put(backbone)
    task = ray.remote(_share).options(num_cpus=resources.cpus, num_gpus=resources.gpus, num_returns=2)
    # Fit, validation and textures: the sealed test does not leave the driver before promotion.
    data_ref, stored = task.remote(
        backbone_ref, pictures.fit, pictures.validation, pictures.textures, spec.train.store_dtype, limit
    )
    sentence: str = ray.get(stored)
    return SharedStudy(spec.train, backbone_ref, data_ref, resources.num_threads), sentence


def _share(
    backbone: Backbone, fit: Array, validation: Labelled, textures: Array, store_dtype: str, limit: float
) -> tuple[SharedData, str]:
    keep_freed_memory()
    return share(backbone.to(pick_device("auto")), fit, validation, textures, store_dtype, limit)


def evaluate_remotely(
    backbone_ref: Any, trained: dict[str, Trained], test: Labelled, calibration: Array, resources: Resources
) -> dict[str, Evaluation]:
    """Open the sealed test where trials ran."""
    task = ray.remote(_evaluate).options(num_cpus=resources.cpus, num_gpus=resources.gpus)
    evaluations: dict[str, Evaluation] = ray.get(task.remote(backbone_ref, trained, test, calibration))
    return evaluations


def _evaluate(
    backbone: Backbone, trained: dict[str, Trained], test: Labelled, calibration: Array
) -> dict[str, Evaluation]:
    return evaluate(backbone.to(pick_device("auto")), trained, test, calibration)


class Observer(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Turns Ray's events into TrialRecords and passes them on, on the driver."""

    def __init__(self, search: StudySearch, num_epochs: int, listeners: Sequence[Listener]) -> None:
        self._search = search
        self._num_epochs = num_epochs
        self._listeners = listeners
        self.trials: dict[str, TrialRecord] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks into its snapshot; what this one holds belongs to the living driver."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, or starts again after a fault."""
        self._record_of(trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """An epoch ended. One that was repeated after a fault gave the same numbers and is not counted twice."""
        record = self._record_of(trial)
        if result["epoch"] > len(record.epochs):
            record.add_epoch({name: result[name] for name in ROW if name in result})
            for listener in self._listeners:
                listener.epoch_ended(record)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its last epoch, or was stopped before."""
        record = self._record_of(trial)
        if len(record.epochs) == self._num_epochs:
            self._end(record, "completed", "")
        else:
            self._end(record, "pruned", f"stopped after epoch {len(record.epochs)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self._end(self._record_of(trial), "failed", _last_line(Path(trial.error_file)))

    def end_rest(self) -> None:
        """End the trials that Ray let go of without a word, as it does where the time budget ends."""
        for trial_id, record in self.trials.items():
            if record.status == "running":
                row = {METRIC: record.best_objective, "epoch": len(record.epochs)} if record.epochs else None
                self._search.on_trial_complete(trial_id, row, error=row is None)
                self._end(
                    record, "pruned" if row else "failed", f"the study ended after its epoch {len(record.epochs)}"
                )

    def _record_of(self, trial: Any) -> TrialRecord:
        """The record of a trial, made when it is first heard of: one whose worker cannot start only ever fails."""
        if trial.trial_id not in self.trials:
            record = TrialRecord(self._search.number_of(trial.trial_id), dict(trial.config))
            self.trials[trial.trial_id] = record
            for listener in self._listeners:
                listener.trial_started(record)
        return self.trials[trial.trial_id]

    def _end(self, record: TrialRecord, status: Any, reason: str) -> None:
        record.status, record.reason = status, reason
        for listener in self._listeners:
            listener.trial_ended(record)


def _last_line(error_file: Path) -> str:
    """What a traceback ends with: the kind of error and its text."""
    lines = error_file.read_text(encoding="utf-8").split("\n") if error_file.is_file() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "unknown")


def run_trials(
    spec: StudySpec,
    space: Space,
    shared: SharedStudy,
    resources: Resources,
    listeners: Sequence[Listener],
    trial_function: Callable[..., None] = run_trial,
) -> tuple[list[TrialRecord], dict[int, tune.Checkpoint]]:
    """Run all trials of a study.

    Returns: the records by number, and for each trial that has one the checkpoint of its best epoch.
    """
    search = StudySearch(
        space,
        study=spec.study,
        num_epochs=spec.train.epochs,
        sampler=spec.sampler,
        seed=spec.train.seed,
        storage=spec.folder / "optuna.journal",
    )
    observer = Observer(search, spec.train.epochs, listeners)
    trainable = tune.with_resources(
        tune.with_parameters(trial_function, shared=shared), {"cpu": resources.cpus, "gpu": resources.gpus}
    )
    results = tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            num_samples=spec.trials,
            search_alg=search,
            scheduler=make_scheduler(spec, search),
            max_concurrent_trials=resources.max_concurrent,  # workers start together, proposals are never ahead
            time_budget_s=spec.time_budget_s,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=spec.storage or str(spec.folder),
            callbacks=[observer],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=CHECKPOINT_SCORE, checkpoint_score_order="max"
            ),
        ),
    ).fit()
    observer.end_rest()
    checkpoints = {}
    for result in results:
        trial_id = result.metrics["trial_id"] if result.metrics else None
        if trial_id in observer.trials and result.best_checkpoints:
            best = max(result.best_checkpoints, key=lambda pair: pair[1][CHECKPOINT_SCORE])[0]
            checkpoints[observer.trials[trial_id].number] = best
    return sorted(observer.trials.values(), key=lambda record: record.number), checkpoints


def load_trained(checkpoint: tune.Checkpoint) -> Trained:
    """The head in a trial's checkpoint, wherever it is stored."""
    with checkpoint.as_directory() as folder:
        spec, state = load_checkpoint(Path(folder) / CHECKPOINT_NAME)
    return Trained(state["head"], spec.hidden_width)
