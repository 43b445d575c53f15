"""Ray Tune: runs the trials and finalists of one or several studies, and hands every event to the listeners."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint
from las_tune.study_spec import StudySpec
from las_tune.tracking.record import TrialRecord
from las_tune.tuning.cluster import Resources
from las_tune.tuning.evaluate import Trained
from las_tune.tuning.fair import FairScheduler, FairSearch
from las_tune.tuning.finalists import Job
from las_tune.tuning.observer import Observer, Ran, TunedStudy
from las_tune.tuning.scheduler import make_scheduler
from las_tune.tuning.search import METRIC, make_search
from las_tune.tuning.trainable import CHECKPOINT_SCORE, SharedStudy, run_trial


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
