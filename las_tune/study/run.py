"""Run studies from their images to their champions. The studies of one run share the cluster."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from las_tune.config import Listener, Progress, StudySpec, make_folder, model_name, write_json
from las_tune.execution import (
    History,
    Plan,
    SharedStudy,
    TuneInput,
    TuneResult,
    check_storage,
    evaluate_remotely,
    measure_remotely,
    prepare_remotely,
    ray_cluster,
    resources_of,
    run_finalists,
    run_trials,
    score_remotely,
)
from las_tune.las import load_backbone
from las_tune.reporting import FailedStudy, RunSummary, Summary
from las_tune.selection import (
    BASELINE,
    BEST_OF,
    REGISTERED_CHAMPION,
    Retraining,
    count_opening,
    make_retrainings,
    pick_finalists,
    require_successful_trial,
)
from las_tune.study.checks import prepare_studies
from las_tune.study.conclusion import decide, evaluate
from las_tune.study.opening import (
    OpenStudy,
    RunContext,
    announce,
    close_ledger,
    connect,
    find_start_points,
    make_folders,
    start_study,
)
from las_tune.study.outputs import write_champion, write_figures
from las_tune.study.publication import StudyFiles, publish
from las_tune.study.shared_configuration import best_shared_configuration
from las_tune.study.trained_study import TrainedStudy
from las_tune.tracking import STUDY_RUN

OVERVIEW = "overview.json"
"""Result of a run of several studies, in the folder of the run."""


def run_studies(
    specs: Sequence[StudySpec], listeners_of: Callable[[StudySpec], Sequence[Listener]], progress: Progress
) -> RunSummary:
    """Search several categories together. All user input is checked before a folder is created.

    In a run of several studies, one that fails does not stop the others.

    Args:
        specs: one per category. The settings of the run itself are taken from the first one.
        listeners_of: returns the listeners of a study, in addition to its ledger and its training log.
        progress: reports the steps of the run.

    Raises: UserError for invalid settings, and if the only study fails.
    """
    started = time.monotonic()
    prepared = prepare_studies(specs, progress)
    first = prepared[0].spec
    backbone = load_backbone(first.train.backbone, first.train.backbone_weights)
    make_folders(first)
    ledgers = [connect(study.spec) for study in prepared]
    warm_starts = [find_start_points(study, ledger) for study, ledger in zip(prepared, ledgers, strict=True)]
    progress("starting Ray", 0, 1)
    with ray_cluster(first.address), ExitStack() as open_ledgers:
        check_storage(first)
        context = RunContext(backbone, resources_of(first), progress, started)
        studies = []
        for study, ledger, (points, sentences) in zip(prepared, ledgers, warm_starts, strict=True):
            log = start_study(study, ledger, points, context)
            open_ledgers.callback(close_ledger, ledger)
            announce(study, ledger, points, sentences, progress)
            listeners = [*listeners_of(study.spec), ledger, log]
            studies.append(OpenStudy(study.spec, study.space, study.images, ledger, log, listeners, points))
        with _end_on_error(studies, progress):
            return _run(studies, context)


def plan_studies(specs: Sequence[StudySpec], progress: Progress) -> Plan:
    """Return the expected cost of a run: check the images, compute the features, and measure an epoch. Writes nothing.

    Raises: UserError like run_studies.
    """
    started = time.monotonic()
    prepared = prepare_studies(specs, progress)
    first = prepared[0].spec
    backbone = load_backbone(first.train.backbone, first.train.backbone_weights)
    progress("starting Ray", 0, 1)
    with ray_cluster(first.address):
        context = RunContext(backbone, resources_of(first), progress, started)
        shared = [
            prepare_remotely(study.spec, backbone, study.images.trials, context.resources, progress, len(prepared))[0]
            for study in prepared
        ]
        return _plan([study.spec for study in prepared], shared, context)


# --- from the first trial to the end ---


def _run(studies: Sequence[OpenStudy], context: RunContext) -> RunSummary:
    """Compute features, run trials and retrain finalists for all studies together; then conclude one after another."""
    progress, resources = context.progress, context.resources
    inputs = [_share_data(study, context, len(studies)) for study in studies]
    plan = _plan([study.spec for study in studies], [tune_input.shared for tune_input in inputs], context)
    progress(plan.sentence(), 1, 1)
    progress("running trials", 0, 1)
    searches = run_trials(inputs, resources)
    progress("retraining the finalists", 0, 1)
    retrainings = run_finalists(inputs, _finalist_jobs(studies, searches), resources)

    results: list[Summary | FailedStudy] = []
    trained: dict[str, TrainedStudy] = {}
    for study, tune_input, search, retraining in zip(studies, inputs, searches, retrainings, strict=True):
        try:
            require_successful_trial(search.records, search.is_failing)
            trained_study = TrainedStudy.load(study.spec, study.space, search, retraining)
            results.append(_conclude(study, trained_study, tune_input.shared, context))
            trained[study.spec.category] = trained_study
        except Exception as error:  # the other studies of the run are trained, and are concluded as well
            if len(studies) == 1:
                raise
            results.append(_fail(study, error))
    return _summarize_run(studies[0].spec, results, trained)


def _share_data(study: OpenStudy, context: RunContext, num_studies: int) -> TuneInput:
    """Compute the data that all trials of a study share."""
    shared, stored = prepare_remotely(
        study.spec, context.backbone, study.images.trials, context.resources, context.progress, num_studies
    )
    study.ledger.tag(STUDY_RUN, {"features": stored})
    return TuneInput(study.spec, study.space, shared, study.listeners, study.points)


def _plan(specs: Sequence[StudySpec], shared: Sequence[SharedStudy], context: RunContext) -> Plan:
    context.progress("measuring an epoch", 0, 1)
    epochs_s = [measure_remotely(shared_study, context.resources) for shared_study in shared]
    return Plan.of(specs, epochs_s, context.resources)


def _finalist_jobs(studies: Sequence[OpenStudy], searches: Sequence[TuneResult]) -> list[list[Retraining]]:
    """Retrainings of each study: baseline, registered champion, finalists, and the best trials of other categories."""
    best = {
        study.spec.category: pick_finalists(search.records, 1) for study, search in zip(studies, searches, strict=True)
    }
    jobs = []
    for study, search in zip(studies, searches, strict=True):
        spec = study.spec
        configurations = {BASELINE: study.space.baseline}
        registered = study.ledger.registered_champion(model_name(spec.category)).hyperparameters(spec.demo)
        if registered is not None:
            configurations[REGISTERED_CHAMPION] = registered
        for trial in pick_finalists(search.records, spec.finalists):
            configurations[f"trial {trial.number}"] = trial.params
        for category, trials in best.items():
            if category != spec.category and trials:
                configurations[f"{BEST_OF}{category}"] = trials[0].params
        has_any = not search.is_failing and any(trial.status != "failed" and trial.epochs for trial in search.records)
        known = [record for record in History(spec.folder).records.values() if record.finalist]
        jobs.append(make_retrainings(configurations, spec.train.seed + 1, spec.seeds, known) if has_any else [])
    return jobs


def _conclude(study: OpenStudy, trained: TrainedStudy, shared: SharedStudy, context: RunContext) -> Summary:
    """Decide, open the sealed test for baseline and champion, write the files, and publish."""
    spec, images, progress = study.spec, study.images, context.progress
    scores = score_remotely(shared, {name: f.heads for name, f in trained.finalists.items()}, context.resources)
    choice = decide(trained, scores, study.ledger.champion_tags(model_name(spec.category)))

    progress("opening the sealed test", 0, 1)
    sealed_keys = images.split.as_dict()["sealed_test"]
    openings = count_opening(spec.results, spec.data_root / spec.category, sealed_keys, spec.study, spec.trials)
    evaluations = evaluate_remotely(shared, choice.heads_to_test, images.sealed_test, context.resources)
    conclusion = evaluate(trained, images, choice, evaluations, openings, context.resources.cost_unit)

    progress("saving the champion", 0, 1)
    detector = write_champion(conclusion, context.backbone)
    progress("drawing figures", 0, 1)
    files = StudyFiles(detector, write_figures(trained), study.log.path)
    return publish(conclusion, files, study.ledger, progress, context.started)


def _fail(study: OpenStudy, error: Exception) -> FailedStudy:
    """End a study whose conclusion failed, in a run of several studies."""
    study.log.write(f"ended by\n{traceback.format_exc()}")
    study.ledger.end_study("FAILED")
    reason = f"{type(error).__name__}: {error} (see {study.log.path})"
    return FailedStudy(study.spec.study, study.spec.category, reason)


def _summarize_run(
    spec: StudySpec, results: Sequence[Summary | FailedStudy], trained: dict[str, TrainedStudy]
) -> RunSummary:
    """Summarize a run; write the summary if the run has several studies."""
    objectives = {study.spec.train.objective for study in trained.values()}
    is_comparable = len(trained) > 1 and len(objectives) == 1
    run = RunSummary(tuple(results), best_shared_configuration(trained) if is_comparable else None)
    if len(results) > 1:
        make_folder(spec.run_folder)
        write_json(spec.run_folder / OVERVIEW, run.to_json())
    return run


# --- the end of a run that is stopped ---


@contextmanager
def _end_on_error(studies: Sequence[OpenStudy], progress: Progress) -> Iterator[None]:
    """End the runs of all studies if the run is stopped by an error or by Ctrl-C."""
    try:
        yield
    except BaseException as error:
        is_interrupt = isinstance(error, KeyboardInterrupt)
        if is_interrupt:
            progress("stopping: saving the results so far; press Ctrl-C again to stop immediately", 0, 1)
        for study in studies:
            study.log.write(f"ended by {type(error).__name__}: {error}")
            study.ledger.end_study("KILLED" if is_interrupt else "FAILED")
        raise
