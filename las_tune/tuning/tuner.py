"""Ray Tune: runs the trials and finalists of one or several studies, and hands every event to the listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint
from las_tune.study_spec import StudySpec
from las_tune.tracking.record import ROW, Listener, TrialRecord
from las_tune.tuning.cluster import Resources
from las_tune.tuning.evaluate import Trained
from las_tune.tuning.fair import FairScheduler, FairSearch
from las_tune.tuning.finalists import Job
from las_tune.tuning.scheduler import make_scheduler
from las_tune.tuning.search import METRIC, make_search
from las_tune.tuning.space import Space
from las_tune.tuning.trainable import CHECKPOINT_SCORE, SharedStudy, run_trial


@dataclass(frozen=True)
class TunedStudy:
    """One study, as the tuner sees it."""

    spec: StudySpec
    space: Space
    shared: SharedStudy
    listeners: Sequence[Listener]
    points: tuple[dict[str, Any], ...] = ()
    """Hyperparameters to try right after the baseline."""


@dataclass(frozen=True)
class Ran:
    """What ran of one study: records by number, and of each trial that has one the checkpoint of its best epoch."""

    records: list[TrialRecord]
    checkpoints: dict[int, tune.Checkpoint]


class Observer(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Turns Ray's events into TrialRecords and passes them on, on the driver."""

    def __init__(self, studies: Sequence[TunedStudy], identify: Callable[[Any], tuple[int, TrialRecord]]) -> None:
        """identify: one of Ray's trials, as the index of its study and a new record."""
        self._studies = studies
        self._identify = identify
        self._study_of: dict[str, int] = {}
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
            for listener in self._listeners_of(trial.trial_id):
                listener.epoch_ended(record)
        else:
            record.repeated_seconds += result["seconds"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its last epoch, or was stopped before."""
        record = self._record_of(trial)
        if len(record.epochs) == self._studies[self._study_of[trial.trial_id]].spec.train.epochs:
            self._end(trial.trial_id, "completed", "")
        else:
            self._end(trial.trial_id, "pruned", f"stopped after epoch {len(record.epochs)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self._record_of(trial)
        self._end(trial.trial_id, "failed", _last_line(Path(trial.error_file)))

    def end_rest(self) -> dict[str, TrialRecord]:
        """End the trials that Ray let go of without a word, as it does where the time budget ends; returns them."""
        rest = {trial_id: record for trial_id, record in self.trials.items() if record.status == "running"}
        for trial_id, record in rest.items():
            reason = f"the trials ended after its epoch {len(record.epochs)}"
            self._end(trial_id, "pruned" if record.epochs else "failed", reason)
        return rest

    def ran(self, results: Any) -> list[Ran]:
        """What ran, study by study."""
        ran = [Ran([], {}) for _ in self._studies]
        for trial_id, record in sorted(self.trials.items(), key=lambda item: item[1].number):
            ran[self._study_of[trial_id]].records.append(record)
        for result in results:
            name = result.metrics["trial_id"] if result.metrics else None
            if name in self.trials and result.best_checkpoints:
                best = max(result.best_checkpoints, key=lambda pair: pair[1][CHECKPOINT_SCORE])[0]
                ran[self._study_of[name]].checkpoints[self.trials[name].number] = best
        return ran

    def _record_of(self, trial: Any) -> TrialRecord:
        """The record of a trial, made when it is first heard of: one whose worker cannot start only ever fails."""
        if trial.trial_id not in self.trials:
            self._study_of[trial.trial_id], record = self._identify(trial)
            self.trials[trial.trial_id] = record
            for listener in self._listeners_of(trial.trial_id):
                listener.trial_started(record)
        return self.trials[trial.trial_id]

    def _listeners_of(self, trial_id: str) -> Sequence[Listener]:
        return self._studies[self._study_of[trial_id]].listeners

    def _end(self, trial_id: str, status: Any, reason: str) -> None:
        record = self.trials[trial_id]
        record.status, record.reason = status, reason
        for listener in self._listeners_of(trial_id):
            listener.trial_ended(record)


def _last_line(error_file: Path) -> str:
    """What a traceback ends with: the kind of error and its text."""
    lines = error_file.read_text(encoding="utf-8").split("\n") if error_file.is_file() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "unknown")


def run_trials(
    studies: Sequence[TunedStudy], resources: Resources, trial_function: Callable[..., None] = run_trial
) -> list[Ran]:
    """Run all trials of some studies, which share the cluster; the flags that concern the run are the first one's."""
    spec = studies[0].spec
    search = FairSearch([make_search(study.spec, study.space, study.points) for study in studies])
    schedulers = [make_scheduler(s.spec, one) for s, one in zip(studies, search.searches, strict=True)]

    def identify(trial: Any) -> tuple[int, TrialRecord]:
        record = TrialRecord(search.number_of(trial.trial_id), dict(trial.config["params"]))
        return search.study_of(trial.trial_id), record

    def train_trial(config: dict[str, Any], shared: list[SharedStudy]) -> None:
        trial_function(config["params"], shared[config["study"]])

    observer = Observer(studies, identify)
    config = tune.TuneConfig(
        metric=METRIC,
        mode="max",
        num_samples=sum(study.spec.trials for study in studies),
        search_alg=search,
        scheduler=FairScheduler(search, schedulers),
        max_concurrent_trials=resources.max_concurrent,  # workers start together, proposals are never ahead
        time_budget_s=spec.time_budget_s,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
    )
    trainable = tune.with_parameters(train_trial, shared=[study.shared for study in studies])
    results = _fit(spec, "ray", trainable, {}, config, resources, observer)
    for trial_id, record in observer.end_rest().items():
        row = {METRIC: record.best_objective, "epoch": len(record.epochs)} if record.epochs else None
        search.on_trial_complete(trial_id, row, error=row is None)
    return observer.ran(results)


def run_finalists(
    studies: Sequence[TunedStudy],
    jobs: Sequence[Sequence[Job]],
    resources: Resources,
    trial_function: Callable[..., None] = run_trial,
) -> list[Ran]:
    """Train the jobs of each study, one of each in turn."""
    spec = studies[0].spec
    in_turn = sorted((place, study) for study, its_jobs in enumerate(jobs) for place in range(len(its_jobs)))
    flat = [(study, jobs[study][place]) for place, study in in_turn]
    if not flat:
        return [Ran([], {}) for _ in studies]

    def train_job(config: dict[str, Any], shared: list[SharedStudy]) -> None:
        study, job = flat[config["job"]]
        trial_function(job.params | {"seed": job.seed}, shared[study])

    def identify(trial: Any) -> tuple[int, TrialRecord]:
        study, job = flat[trial.config["job"]]
        return study, job.record()

    observer = Observer(studies, identify)
    config = tune.TuneConfig(
        metric=METRIC,
        mode="max",
        max_concurrent_trials=resources.max_concurrent,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: f"finalist_{trial.trial_id}",
    )
    trainable = tune.with_parameters(train_job, shared=[study.shared for study in studies])
    space = {"job": tune.grid_search(list(range(len(flat))))}
    results = _fit(spec, "ray_finalists", trainable, space, config, resources, observer)
    observer.end_rest()
    return observer.ran(results)


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
            storage_path=spec.storage or str(spec.run_folder),
            callbacks=[observer],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=CHECKPOINT_SCORE, checkpoint_score_order="max"
            ),
        ),
    ).fit()


def load_trained(checkpoint: tune.Checkpoint) -> Trained:
    """The head in a trial's checkpoint, wherever it is stored."""
    with checkpoint.as_directory() as folder:
        spec, state = load_checkpoint(Path(folder) / CHECKPOINT_NAME)
    return Trained(state["head"], spec.hidden_width, spec.use_adaptor)
