"""Ray Tune: runs the trials and finalists of one or several studies, and hands every event to the listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.config.study_spec import StudySpec
from las_tune.config.trial_record import TrialRecord
from las_tune.execution.checkpoint_storage import Storage
from las_tune.execution.cluster import Resources
from las_tune.execution.history import History
from las_tune.execution.observer import Observer, Ran, TunedStudy
from las_tune.execution.trainable import CHECKPOINT_SCORE, SharedStudy, run_trial
from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint
from las_tune.search.multi_study import FairScheduler, FairSearch
from las_tune.search.schedulers import TimeBudget, make_scheduler
from las_tune.search.searcher import METRIC, make_search
from las_tune.search.trial_faults import EndsFailed, failing_for_good
from las_tune.selection.evaluation import Trained
from las_tune.selection.finalists import Job

TrialFunction = Callable[[dict[str, Any], SharedStudy, "tune.Checkpoint | None"], None]
"""Trains with some hyperparameters, from a checkpoint where there is one; see run_trial."""


def run_trials(
    studies: Sequence[TunedStudy], resources: Resources, trial_function: TrialFunction = run_trial
) -> list[Ran]:
    """Run the trials of some studies, which share the cluster; those that earlier drivers left go on where they were.

    The flags that concern the run are the first study's.
    """
    spec, histories, storage = studies[0].spec, [History(s.spec.folder) for s in studies], Storage.of(studies[0].spec)
    search = FairSearch(
        [
            make_search(study.spec, study.space, study.points, len(history.given_up))
            for study, history in zip(studies, histories, strict=True)
        ]
    )
    schedulers = [make_scheduler(s.spec, one) for s, one in zip(studies, search.searches, strict=True)]

    def identify(trial: Any) -> tuple[int, TrialRecord]:
        record = TrialRecord(search.number_of(trial.trial_id), dict(trial.config["params"]))
        return search.study_of(trial.trial_id), record

    def train_trial(config: dict[str, Any], shared: list[SharedStudy]) -> None:
        with failing_for_good(METRIC):
            trial_function(config["params"], shared[config["study"]], _start(storage, config["checkpoint"]))

    observer = Observer(studies, histories, storage, "ray", identify)
    scheduler = FairScheduler(search, schedulers)
    missing = 0
    for index, (study, history) in enumerate(zip(studies, histories, strict=True)):
        num_over = _take_back(index, history, observer, search, scheduler)
        missing += 0 if history.is_searched else study.spec.trials - num_over
    config = tune.TuneConfig(
        metric=METRIC,
        mode="max",
        num_samples=missing,
        search_alg=search,
        scheduler=scheduler,
        max_concurrent_trials=resources.max_concurrent,  # workers start together, proposals are never ahead
        reuse_actors=True,
        trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
    )
    if missing:
        trainable = tune.with_parameters(train_trial, shared=[study.shared for study in studies])
        budget = TimeBudget(spec.time_budget_s) if spec.time_budget_s is not None else None
        _fit(spec, "ray", trainable, {}, config, resources, observer, storage, budget)
        for trial_id, record in observer.end_rest().items():
            row = {METRIC: record.best_objective, "epoch": len(record.epochs)} if record.epochs else None
            search.on_trial_complete(trial_id, row, error=row is None)
    for history, one in zip(histories, search.searches, strict=True):
        if one.is_failing:
            history.search_is_failing()
        else:
            history.search_is_over()
    return [replace(ran, is_failing=one.is_failing) for ran, one in zip(observer.ran(), search.searches, strict=True)]


def _take_back(study: int, history: History, observer: Observer, search: FairSearch, scheduler: FairScheduler) -> int:
    """Let everyone know the trials of earlier drivers, and end those that were about to; returns how many are over."""
    records = [record for record in (*history.ended, *history.unfinished) if not record.finalist]
    checkpoints = {record.number: observer.take_back(study, record) for record in records}
    for number in scheduler.take_back(study, records):
        observer.end_as(study, number, "pruned")
    for number, status in search.take_back(study, records, checkpoints).items():
        observer.end_as(study, number, status)
    return sum(record.status != "running" and record.number not in history.given_up for record in records)


def run_finalists(
    studies: Sequence[TunedStudy],
    jobs: Sequence[Sequence[Job]],
    resources: Resources,
    trial_function: TrialFunction = run_trial,
) -> list[Ran]:
    """Train the jobs of each study, one of each in turn; those that earlier drivers left go on where they were."""
    spec, histories, storage = studies[0].spec, [History(s.spec.folder) for s in studies], Storage.of(studies[0].spec)
    jobs = [history.keep_jobs(of_study) for history, of_study in zip(histories, jobs, strict=True)]

    def train_job(config: dict[str, Any], shared: list[SharedStudy]) -> None:
        study, job, checkpoint = flat[config["job"]]
        with failing_for_good(METRIC):
            trial_function(job.params | {"seed": job.seed}, shared[study], _start(storage, checkpoint))

    def identify(trial: Any) -> tuple[int, TrialRecord]:
        study, job, _ = flat[trial.config["job"]]
        return study, job.record()

    observer = Observer(studies, histories, storage, "ray_finalists", identify)
    flat = _missing_jobs(jobs, histories, observer)
    config = tune.TuneConfig(
        metric=METRIC,
        mode="max",
        scheduler=EndsFailed(),
        max_concurrent_trials=resources.max_concurrent,
        reuse_actors=True,
        trial_dirname_creator=lambda trial: f"finalist_{trial.trial_id}",
    )
    if flat:
        trainable = tune.with_parameters(train_job, shared=[study.shared for study in studies])
        space = {"job": tune.grid_search(list(range(len(flat))))}
        _fit(spec, "ray_finalists", trainable, space, config, resources, observer, storage)
        observer.end_rest()
    return observer.ran()


def _missing_jobs(
    jobs: Sequence[Sequence[Job]], histories: Sequence[History], observer: Observer
) -> list[tuple[int, Job, str]]:
    """Index of the study, job, and checkpoint to go on from, of all jobs that are not over, the studies in turn."""
    wanted = [{job.number for job in its} for its in jobs]
    earlier: list[dict[int, tuple[TrialRecord, str]]] = [
        {n: (record, observer.take_back(index, record)) for n, record in history.records.items() if n in wanted[index]}
        for index, history in enumerate(histories)
    ]
    missing = []
    for place, study in sorted((place, study) for study, its in enumerate(jobs) for place in range(len(its))):
        job = jobs[study][place]
        record, checkpoint = earlier[study].get(job.number, (None, ""))
        if record is None or record.status == "running":
            missing.append((study, job, checkpoint))
    return missing


def _start(storage: Storage, checkpoint: str) -> tune.Checkpoint | None:
    """What a trial goes on from: Ray's after a fault, else what an earlier driver left; None where it starts."""
    return tune.get_checkpoint() or (storage.checkpoint(checkpoint) if checkpoint else None)


def _fit(
    spec: StudySpec,
    name: str,
    trainable: Any,
    space: dict[str, Any],
    config: tune.TuneConfig,
    resources: Resources,
    observer: Observer,
    storage: Storage,
    budget: TimeBudget | None = None,
) -> None:
    """One experiment of Ray Tune in the run's storage."""
    tune.Tuner(
        tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
        param_space=space,
        tune_config=config,
        run_config=tune.RunConfig(
            name=name,
            storage_path=storage.root,
            storage_filesystem=storage.filesystem,
            callbacks=[observer],
            stop=budget,
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=spec.max_failures),
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
