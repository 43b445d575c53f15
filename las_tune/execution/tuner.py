"""Runs the trials and finalists of one or several studies with Ray Tune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.config import StudySpec, TrialRecord
from las_tune.execution.checkpoint_storage import CheckpointStorage
from las_tune.execution.cluster import Resources
from las_tune.execution.history import History
from las_tune.execution.observer import Observer, TuneInput, TuneResult
from las_tune.execution.trainable import CHECKPOINT_SCORE, SharedStudy, run_trial
from las_tune.las import CHECKPOINT_NAME, load_checkpoint
from las_tune.search import (
    METRIC,
    FairScheduler,
    FairSearcher,
    StopOnFailureScheduler,
    TimeBudget,
    make_scheduler,
    make_searcher,
    report_permanent_failure,
)
from las_tune.selection import Retraining, TrainedHead

SEARCH, FINALISTS = "ray", "ray_finalists"
"""Names of the two Ray experiments of a run, which are folders in its checkpoint storage."""

TrialFunction = Callable[[dict[str, Any], SharedStudy, "tune.Checkpoint | None"], None]
"""Trains with the given hyperparameters, from a checkpoint if there is one; see run_trial."""


def run_trials(
    studies: Sequence[TuneInput], resources: Resources, trial_function: TrialFunction = run_trial
) -> list[TuneResult]:
    """Run the searches of several studies, which share the cluster. Trials of earlier drivers are resumed.

    Args:
        studies: the studies of one run. The settings of the run itself are taken from the first one.
        resources: resources of a trial.
        trial_function: trains one trial.
    """
    spec, storage = studies[0].spec, CheckpointStorage.of(studies[0].spec)
    histories = [History(study.spec.folder) for study in studies]
    searchers = [
        make_searcher(study.spec, study.space, study.points, len(history.discarded))
        for study, history in zip(studies, histories, strict=True)
    ]
    searcher = FairSearcher(searchers)
    schedulers = [make_scheduler(study.spec, own) for study, own in zip(studies, searchers, strict=True)]
    scheduler = FairScheduler(searcher, schedulers)

    def identify(trial: Any) -> tuple[int, TrialRecord]:
        record = TrialRecord(searcher.number_of(trial.trial_id), dict(trial.config["params"]))
        return searcher.study_of(trial.trial_id), record

    observer = Observer(studies, histories, storage, SEARCH, identify)
    num_missing = _resume_searches(studies, histories, observer, searcher, scheduler)
    if num_missing:
        train_trial = _search_trainable(trial_function, storage)
        trainable = tune.with_parameters(train_trial, shared=[study.shared for study in studies])
        budget = TimeBudget(spec.time_budget_s) if spec.time_budget_s is not None else None
        experiment = _Experiment(SEARCH, "trial", spec, resources, storage, observer)
        experiment.run(trainable, {}, scheduler, budget, num_samples=num_missing, search_alg=searcher)
        _end_unfinished(observer, searcher)
    for history, own in zip(histories, searchers, strict=True):
        if own.is_failing:
            history.mark_failing()
        else:
            history.mark_searched()
    results = zip(observer.results(), searchers, strict=True)
    return [replace(result, is_failing=own.is_failing) for result, own in results]


def _search_trainable(trial_function: TrialFunction, storage: CheckpointStorage) -> Callable[..., None]:
    """Return the function that Ray runs for a trial, given what the searcher suggests."""

    def train_trial(config: dict[str, Any], shared: list[SharedStudy]) -> None:
        with report_permanent_failure(METRIC):
            checkpoint = _checkpoint_to_resume(storage, config["checkpoint"])
            trial_function(config["params"], shared[config["study"]], checkpoint)

    return train_trial


def _resume_searches(
    studies: Sequence[TuneInput],
    histories: Sequence[History],
    observer: Observer,
    searcher: FairSearcher,
    scheduler: FairScheduler,
) -> int:
    """Restore the trials of earlier drivers and return the number of trials that are missing in all studies."""
    num_missing = 0
    for index, (study, history) in enumerate(zip(studies, histories, strict=True)):
        records = [record for record in (*history.ended, *history.unfinished) if not record.finalist]
        checkpoints = {record.number: observer.replay(index, record) for record in records}
        for number in scheduler.restore_trials(index, records):
            observer.end_trial(index, number, "pruned")
        for number, status in searcher.restore_trials(index, records, checkpoints).items():
            observer.end_trial(index, number, status)
        num_ended = sum(record.status != "running" and record.number not in history.discarded for record in records)
        num_missing += 0 if history.is_searched else study.spec.trials - num_ended
    return num_missing


def _end_unfinished(observer: Observer, searcher: FairSearcher) -> None:
    """End the trials that Ray stopped without an event, in the records and in Optuna."""
    for trial_id, record in observer.end_unfinished().items():
        row = {METRIC: record.best_objective, "epoch": len(record.epochs)} if record.epochs else None
        searcher.on_trial_complete(trial_id, row, error=row is None)


def run_finalists(
    studies: Sequence[TuneInput],
    jobs: Sequence[Sequence[Retraining]],
    resources: Resources,
    trial_function: TrialFunction = run_trial,
) -> list[TuneResult]:
    """Retrain the finalists of several studies with new seeds. Jobs of earlier drivers are resumed.

    Args:
        studies: the studies of one run. The settings of the run itself are taken from the first one.
        jobs: the training runs of each study. The studies take turns.
        resources: resources of a training run.
        trial_function: trains one job.
    """
    spec, storage = studies[0].spec, CheckpointStorage.of(studies[0].spec)
    histories = [History(study.spec.folder) for study in studies]
    jobs = [history.store_jobs(jobs_of_study) for history, jobs_of_study in zip(histories, jobs, strict=True)]

    def train_job(config: dict[str, Any], shared: list[SharedStudy]) -> None:
        study, job, checkpoint = missing[config["job"]]
        with report_permanent_failure(METRIC):
            params = job.params | {"seed": job.seed}
            trial_function(params, shared[study], _checkpoint_to_resume(storage, checkpoint))

    def identify(trial: Any) -> tuple[int, TrialRecord]:
        study, job, _ = missing[trial.config["job"]]
        return study, job.record()

    observer = Observer(studies, histories, storage, FINALISTS, identify)
    missing = _missing_jobs(jobs, histories, observer)
    if missing:
        experiment = _Experiment(FINALISTS, "finalist", spec, resources, storage, observer)
        trainable = tune.with_parameters(train_job, shared=[study.shared for study in studies])
        experiment.run(trainable, {"job": tune.grid_search(list(range(len(missing))))}, StopOnFailureScheduler())
        observer.end_unfinished()
    return observer.results()


def _missing_jobs(
    jobs: Sequence[Sequence[Retraining]], histories: Sequence[History], observer: Observer
) -> list[tuple[int, Retraining, str]]:
    """Return (study index, job, checkpoint to resume from) of every job that has not ended; the studies take turns."""
    earlier: list[dict[int, tuple[TrialRecord, str]]] = []
    for study, (jobs_of_study, history) in enumerate(zip(jobs, histories, strict=True)):
        numbers = {job.number for job in jobs_of_study}
        records = {number: record for number, record in history.records.items() if number in numbers}
        earlier.append({number: (record, observer.replay(study, record)) for number, record in records.items()})
    missing = []
    turns = sorted((turn, study) for study, jobs_of_study in enumerate(jobs) for turn in range(len(jobs_of_study)))
    for turn, study in turns:
        job = jobs[study][turn]
        known, checkpoint = earlier[study].get(job.number, (None, ""))
        if known is None or known.status == "running":
            missing.append((study, job, checkpoint))
    return missing


def _checkpoint_to_resume(storage: CheckpointStorage, checkpoint: str) -> tune.Checkpoint | None:
    """Return Ray's checkpoint after a fault, else that of an earlier driver, else None."""
    return tune.get_checkpoint() or (storage.checkpoint(checkpoint) if checkpoint else None)


@dataclass(frozen=True)
class _Experiment:
    """One experiment of Ray Tune in the run's storage."""

    name: str
    prefix: str
    """Prefix of the names of its trial folders."""
    spec: StudySpec
    resources: Resources
    storage: CheckpointStorage
    observer: Observer

    def run(
        self, trainable: Any, space: dict[str, Any], scheduler: Any, stopper: TimeBudget | None = None, **search: Any
    ) -> None:
        """Run all trials.

        Args:
            trainable: the function that trains a trial.
            space: Ray's parameter space.
            scheduler: stops trials early.
            stopper: stops the experiment.
            search: search_alg and num_samples, for a search.
        """
        prefix, resources = self.prefix, {"cpu": self.resources.cpus, "gpu": self.resources.gpus}
        tune_config = tune.TuneConfig(
            metric=METRIC,
            mode="max",
            scheduler=scheduler,
            max_concurrent_trials=self.resources.max_concurrent,  # a proposal is made only when a slot is free
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"{prefix}_{trial.trial_id}",
            **search,
        )
        run_config = tune.RunConfig(
            name=self.name,
            storage_path=self.storage.root,
            storage_filesystem=self.storage.filesystem,
            callbacks=[self.observer],
            stop=stopper,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=self.spec.max_failures),
            checkpoint_config=tune.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=CHECKPOINT_SCORE, checkpoint_score_order="max"
            ),
        )
        tune.Tuner(
            tune.with_resources(trainable, resources), param_space=space, tune_config=tune_config, run_config=run_config
        ).fit()


def load_trained(checkpoint: tune.Checkpoint) -> TrainedHead:
    """Load the head from a trial's checkpoint, from any kind of storage."""
    with checkpoint.as_directory() as folder:
        spec, state = load_checkpoint(Path(folder) / CHECKPOINT_NAME)
    return TrainedHead(state["head"], spec.hidden_width, spec.use_adaptor)
