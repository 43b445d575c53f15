"""Studies from images to promoted champions, read from top to bottom. Those of one run share the cluster."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.config.files import make_folder, write_json
from las_tune.config.study_spec import StudySpec, model_name
from las_tune.config.trial_record import Listener
from las_tune.data.study_images import Progress, StudyImages
from las_tune.execution.checkpoint_storage import Storage
from las_tune.execution.cluster import Resources, check_storage, ray_cluster, resources_of
from las_tune.execution.history import History
from las_tune.execution.observer import Ran, TunedStudy
from las_tune.execution.plan import Plan
from las_tune.execution.remote import measure_remotely, prepare_remotely
from las_tune.execution.trainable import SharedStudy
from las_tune.execution.tuner import run_finalists, run_trials
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.reporting.training_log import TrainingLog
from las_tune.search.warm_start import warm_points
from las_tune.selection.finalists import BASELINE, BEST_OF, CURRENT, make_jobs, pick_finalists, require_any
from las_tune.space.search_space import Space
from las_tune.study.checks import CheckedStudy, check_studies
from las_tune.study.conclusion import conclude
from las_tune.study.publication import publish, publish_start, study_parameters
from las_tune.study.resume import begin, reopen
from las_tune.study.searched import Searched
from las_tune.study.shared_configuration import best_shared_configuration
from las_tune.tracking.journal import STUDY_RUN
from las_tune.tracking.ledger import Ledger
from las_tune.tracking.provenance import provenance_tags

Points = tuple[dict[str, Any], ...]
"""Hyperparameters of trials that come right after the baseline."""
WAIT_S = 300.0
"""How long the end of a study waits for an MLflow that takes nothing."""
GOES_ON = "going on with study {}, where its last driver stopped"
LAST_WAIT_S = 10.0
"""How long a run that was stopped waits for MLflow; the journal keeps what it did not take."""


@dataclass(frozen=True)
class OpenStudy:
    """A study that has its folder and its run in the ledger."""

    spec: StudySpec
    space: Space
    images: StudyImages
    ledger: Ledger
    log: TrainingLog
    listeners: Sequence[Listener]
    points: Points


def run_studies(
    specs: Sequence[StudySpec], listeners_of: Callable[[StudySpec], Sequence[Listener]], progress: Progress
) -> dict[str, Any]:
    """Search some categories together: {"studies": their summaries, "shared_configuration": see there, or None}.

    Everything that a user can get wrong is checked before a folder is made. A study that fails, fails alone: its
    summary holds `failed`, the reason.
    """
    started = time.monotonic()
    checked = check_studies(specs, progress)
    specs = [study.spec for study in checked]
    backbone = load_backbone(specs[0].train.backbone, specs[0].train.backbone_weights)
    make_folder(specs[0].results)
    if (storage := Storage.of(specs[0])).is_local:
        make_folder(Path(storage.root).parent, "--storage")
    ledgers = [Ledger(s.tracking_uri, s.experiment, s.results / "mlartifacts", provenance_tags(s)) for s in specs]
    warm = [
        (tuple(study.before["points"]), [GOES_ON.format(study.spec.study)])
        if study.before
        else warm_points(study.spec, study.space, study.images.split.as_dict()["digest"], ledger.champion_tags)
        for study, ledger in zip(checked, ledgers, strict=True)
    ]
    progress("starting Ray", 0, 1)
    with ray_cluster(specs[0].address), ExitStack() as open_ledgers:
        check_storage(specs[0])
        resources = resources_of(specs[0])
        studies = []
        for one, ledger, (points, sentences) in zip(checked, ledgers, warm, strict=True):
            log = _start(one, ledger, points, resources, progress)
            open_ledgers.callback(_close, ledger)
            _announce(one, ledger, points, sentences, progress)
            listeners = [*listeners_of(one.spec), ledger, log]
            studies.append(OpenStudy(one.spec, one.space, one.images, ledger, log, listeners, points))
        try:
            return _search_and_conclude(studies, backbone, resources, progress, started)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                progress("ending: what is known is written; Ctrl-C again ends at once", 0, 1)
            for study in studies:
                study.log.write(f"ended by {type(error).__name__}: {error}")
                study.ledger.end_study("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise


def _start(
    checked: CheckedStudy, ledger: Ledger, points: Points, resources: Resources, progress: Progress
) -> TrainingLog:
    """Begin a study's folder and its run in the ledger, or go on with them."""
    spec = checked.spec
    make_folder(spec.folder)
    if not checked.before:
        begin(spec, checked.asked, points)
    log = TrainingLog(spec.folder, spec.category, datetime.now())
    parameters = study_parameters(spec, checked.space)
    ledger.start_study(spec.folder, spec.study, parameters, resources.cost_unit, _teller(log, progress))
    return log


def _announce(
    checked: CheckedStudy, ledger: Ledger, points: Points, sentences: Sequence[str], progress: Progress
) -> None:
    """Tell the ledger and the user what is about to be searched."""
    spec, before = checked.spec, checked.before
    if before is not None and before["asked"] != checked.asked:
        ledger.extend(spec.trials)  # first: a driver that dies between the two is asked to extend again
        reopen(spec, checked.asked, points)
    publish_start(spec, checked.space, checked.images.split.as_dict(), ledger)
    ledger.holder(model_name(spec.category))  # known even if MLflow is away when the trials end
    for sentence in sentences:
        progress(sentence, 1, 1)
    if points:
        ledger.tag(STUDY_RUN, {"warm_start": "; ".join(sentences)})


def plan_studies(specs: Sequence[StudySpec], progress: Progress) -> Plan:
    """What run_studies would take: images are checked, features computed, steps measured, and nothing is written."""
    checked = check_studies(specs, progress)
    backbone = load_backbone(specs[0].train.backbone, specs[0].train.backbone_weights)
    progress("starting Ray", 0, 1)
    with ray_cluster(specs[0].address):
        resources = resources_of(specs[0])
        shared = [
            prepare_remotely(one.spec, backbone, one.images.trials, resources, progress, len(checked))[0]
            for one in checked
        ]
        return _plan([one.spec for one in checked], shared, resources, progress)


def _plan(specs: Sequence[StudySpec], shared: Sequence[SharedStudy], resources: Resources, progress: Progress) -> Plan:
    progress("measuring an epoch", 0, 1)
    return Plan.of(specs, [measure_remotely(one, resources) for one in shared], resources)


def _teller(log: TrainingLog, progress: Progress) -> Callable[[str], None]:
    """Tells what becomes of the writes to MLflow, in the log and on the console."""

    def tell(sentence: str) -> None:
        log.write(sentence)
        progress(sentence, 1, 1)

    return tell


def _close(ledger: Ledger) -> None:
    """At the end of a run, whatever it was; one that has ended before stays as it is."""
    ledger.end_study("FAILED")
    ledger.flush(LAST_WAIT_S)
    ledger.close()


def _search_and_conclude(
    studies: Sequence[OpenStudy], backbone: Backbone, resources: Resources, progress: Progress, started: float
) -> dict[str, Any]:
    """Features, trials, finalists for all together; then each study by itself to its summary."""
    tuned = []
    for study in studies:
        shared, stored = prepare_remotely(study.spec, backbone, study.images.trials, resources, progress, len(studies))
        study.ledger.tag(STUDY_RUN, {"features": stored})
        tuned.append(TunedStudy(study.spec, study.space, shared, study.listeners, study.points))
    plan = _plan([study.spec for study in studies], [one.shared for one in tuned], resources, progress)
    progress(plan.sentence(), 1, 1)
    progress("trials", 0, 1)
    trials = run_trials(tuned, resources)
    progress("training the finalists again", 0, 1)
    again = _run_finalists(studies, tuned, trials, resources)

    summaries, searched = [], {}
    for study, tuned_study, first, second in zip(studies, tuned, trials, again, strict=True):
        try:
            require_any(first.records, first.is_failing)
            one = Searched.of(study.spec, study.space, first, second)
            summary = conclude(one, tuned_study.shared, backbone, study.images, study.ledger, resources, progress)
            progress("drawing figures", 0, 1)
            publish(study.spec, study.space, one, summary, study.ledger, study.log.path)
            summaries.append(_end(study, summary, started, progress))
            searched[study.spec.category] = one
        except Exception as error:  # the other studies of the run are trained: they go on to their ends
            if len(studies) == 1:
                raise
            study.log.write(f"ended by\n{traceback.format_exc()}")
            study.ledger.end_study("FAILED")
            reason = f"{type(error).__name__}: {error} (see {study.log.path})"
            summaries.append({"study": study.spec.study, "category": study.spec.category, "failed": reason})
    one_objective = len({one.spec.train.objective for one in searched.values()}) == 1
    shared_configuration = best_shared_configuration(searched) if len(searched) > 1 and one_objective else None
    run = {"studies": summaries, "shared_configuration": shared_configuration}
    if len(studies) > 1:
        make_folder(studies[0].spec.run_folder)
        write_json(studies[0].spec.run_folder / "overview.json", run)
    return run


def _end(study: OpenStudy, summary: dict[str, Any], started: float, progress: Progress) -> dict[str, Any]:
    """Write the summary and end the study's run; what MLflow does not take in time waits in the journal."""
    left = study.ledger.deliver(progress, WAIT_S)
    summary |= {"seconds": round(time.monotonic() - started, 1), "model_uri": study.ledger.model_uri, "ledger": left}
    file = study.spec.folder / paths.SUMMARY
    write_json(file, summary)
    study.ledger.log_artifacts(STUDY_RUN, [file])
    study.ledger.end_study("FINISHED")
    return summary | {"ledger": study.ledger.deliver(progress, 0.0 if left["waiting"] else WAIT_S)}


def _run_finalists(
    studies: Sequence[OpenStudy], tuned: Sequence[TunedStudy], trials: Sequence[Ran], resources: Resources
) -> list[Ran]:
    """Train baseline, earlier champion, finalists, and the best trials of the other categories over new seeds."""
    best = {s.spec.category: pick_finalists(ran.records, 1) for s, ran in zip(studies, trials, strict=True)}
    jobs = []
    for study, ran in zip(studies, trials, strict=True):
        spec = study.spec
        current = study.ledger.holder(model_name(spec.category)).hyperparameters(spec.demo)
        everyone = {BASELINE: study.space.baseline} | ({CURRENT: current} if current is not None else {})
        everyone |= {f"trial {trial.number}": trial.params for trial in pick_finalists(ran.records, spec.finalists)}
        everyone |= {
            f"{BEST_OF}{category}": found[0].params
            for category, found in best.items()
            if category != spec.category and found
        }
        has_any = not ran.is_failing and any(trial.status != "failed" and trial.epochs for trial in ran.records)
        known = [record for record in History(spec.folder).records.values() if record.finalist]
        jobs.append(make_jobs(everyone, spec.train.seed + 1, spec.seeds, known) if has_any else [])
    return run_finalists(tuned, jobs, resources)
