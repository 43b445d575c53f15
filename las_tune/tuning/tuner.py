"""Ray Tune: runs a study's trials and its finalists, and hands every event to the listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint
from las_tune.spec import StudySpec
from las_tune.tracking.record import ROW, Listener, TrialRecord
from las_tune.tuning.cluster import Resources
from las_tune.tuning.evaluate import Trained
from las_tune.tuning.finalists import Job
from las_tune.tuning.scheduler import make_scheduler
from las_tune.tuning.search import METRIC, make_search
from las_tune.tuning.space import Space
from las_tune.tuning.trainable import CHECKPOINT_SCORE, SharedStudy, run_trial


class Observer(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Turns Ray's events into TrialRecords and passes them on, on the driver."""

    def __init__(
        self, make_record: Callable[[Any], TrialRecord], num_epochs: int, listeners: Sequence[Listener]
    ) -> None:
        """make_record: from one of Ray's trials."""
        self._make_record = make_record
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

    def end_rest(self) -> dict[str, TrialRecord]:
        """End the trials that Ray let go of without a word, as it does where the time budget ends; returns them."""
        rest = {trial_id: record for trial_id, record in self.trials.items() if record.status == "running"}
        for record in rest.values():
            reason = f"the trials ended after its epoch {len(record.epochs)}"
            self._end(record, "pruned" if record.epochs else "failed", reason)
        return rest

    def _record_of(self, trial: Any) -> TrialRecord:
        """The record of a trial, made when it is first heard of: one whose worker cannot start only ever fails."""
        if trial.trial_id not in self.trials:
            record = self._make_record(trial)
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
    search = make_search(spec, space)
    observer = Observer(
        lambda trial: TrialRecord(search.number_of(trial.trial_id), dict(trial.config)), spec.train.epochs, listeners
    )
    config = tune.TuneConfig(
        metric=METRIC,
        mode="max",
        num_samples=spec.trials,
        search_alg=search,
        scheduler=make_scheduler(spec, search),
        max_concurrent_trials=resources.max_concurrent,  # workers start together, proposals are never ahead
        time_budget_s=spec.time_budget_s,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
    )
    trainable = tune.with_parameters(trial_function, shared=shared)
    results = _fit(spec, "ray", trainable, {}, config, resources, observer)
    for trial_id, record in observer.end_rest().items():
        row = {METRIC: record.best_objective, "epoch": len(record.epochs)} if record.epochs else None
        search.on_trial_complete(trial_id, row, error=row is None)
    return sorted(observer.trials.values(), key=lambda record: record.number), _best_checkpoints(results, observer)


def run_finalists(
    spec: StudySpec,
    jobs: Sequence[Job],
    first_number: int,
    shared: SharedStudy,
    resources: Resources,
    listeners: Sequence[Listener],
    trial_function: Callable[..., None] = run_trial,
) -> tuple[list[TrialRecord], dict[int, tune.Checkpoint]]:
    """Train the finalists' jobs, as trials with numbers from first_number on; returns what run_trials returns."""

    def train_job(config: dict[str, Any], shared: SharedStudy) -> None:
        job = jobs[config["job"]]
        trial_function(job.params | {"seed": job.seed}, shared)

    observer = Observer(
        lambda trial: jobs[trial.config["job"]].record(first_number + trial.config["job"]), spec.train.epochs, listeners
    )
    config = tune.TuneConfig(
        metric=METRIC,
        mode="max",
        max_concurrent_trials=resources.max_concurrent,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: f"finalist_{trial.trial_id}",
    )
    trainable = tune.with_parameters(train_job, shared=shared)
    space = {"job": tune.grid_search(list(range(len(jobs))))}
    results = _fit(spec, "ray_finalists", trainable, space, config, resources, observer)
    observer.end_rest()
    return sorted(observer.trials.values(), key=lambda record: record.number), _best_checkpoints(results, observer)


def _fit(
    spec: StudySpec,
    name: str,
    trainable: Any,
    space: dict[str, Any],
    config: tune.TuneConfig,
    resources: Resources,
    observer: Observer,
) -> Any:
    """One experiment of Ray Tune in the study's folder."""
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
        param_space=space,
        tune_config=config,
        run_config=tune.RunConfig(
            name=name,
            storage_path=spec.storage or str(spec.folder),
            callbacks=[observer],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=CHECKPOINT_SCORE, checkpoint_score_order="max"
            ),
        ),
    ).fit()


def _best_checkpoints(results: Any, observer: Observer) -> dict[int, tune.Checkpoint]:
    """For each trial that has one, by its number, the checkpoint of its best epoch."""
    checkpoints = {}
    for result in results:
        trial_id = result.metrics["trial_id"] if result.metrics else None
        if trial_id in observer.trials and result.best_checkpoints:
            best = max(result.best_checkpoints, key=lambda pair: pair[1][CHECKPOINT_SCORE])[0]
            checkpoints[observer.trials[trial_id].number] = best
    return checkpoints


def load_trained(checkpoint: tune.Checkpoint) -> Trained:
    """The head in a trial's checkpoint, wherever it is stored."""
    with checkpoint.as_directory() as folder:
        spec, state = load_checkpoint(Path(folder) / CHECKPOINT_NAME)
    return Trained(state["head"], spec.hidden_width, spec.use_adaptor)
