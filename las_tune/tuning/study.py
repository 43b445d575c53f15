"""One study from pictures to a promoted champion, read from top to bottom."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from las_tune.errors import UserError
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.spec import StudySpec
from las_tune.tracking.ledger import Ledger, default_tracking_uri
from las_tune.tracking.model import log_model
from las_tune.tracking.provenance import provenance_tags, without_password
from las_tune.tracking.record import Listener, TrialRecord
from las_tune.tracking.summary import count_trials, describe_cost, describe_trial, write_json
from las_tune.tracking.training_log import TrainingLog
from las_tune.tuning.cluster import Resources, ray_cluster, resources_of
from las_tune.tuning.evaluate import MEMORY_BANK, Evaluation
from las_tune.tuning.finalists import (
    BASELINE,
    CURRENT,
    Finalist,
    decide_champion,
    known_hyperparameters,
    make_jobs,
    pick_finalists,
    require_any,
)
from las_tune.tuning.openings import count_opening
from las_tune.tuning.outputs import make_folder, require_new, write_outputs
from las_tune.tuning.prepare import Progress, StudyPictures, load_pictures, resolve_objective
from las_tune.tuning.promote import Decision
from las_tune.tuning.remote import evaluate_remotely, prepare_remotely, score_remotely
from las_tune.tuning.sealed import SealedReport, objective_in
from las_tune.tuning.space import Space, load_space, space_for
from las_tune.tuning.trainable import SharedStudy
from las_tune.tuning.tuner import load_trained, run_finalists, run_trials


def run_study(spec: StudySpec, listeners: Sequence[Listener], progress: Progress) -> dict[str, Any]:
    """Search one category; returns the summary.

    Everything that a user can get wrong is checked before the study's folder is made.
    """
    started = time.monotonic()
    require_new(spec.folder)
    space = load_space(spec.space) if spec.space else space_for(spec.category)
    pictures = load_pictures(
        spec.data_root, spec.category, spec.textures, spec.train, spec.skip_broken, progress, spec.holdout
    )
    spec = replace(
        spec,
        train=resolve_objective(spec.train, pictures.validation.masks is not None),
        tracking_uri=spec.tracking_uri or default_tracking_uri(spec.results),
    )
    backbone = load_backbone(spec.train.backbone, spec.train.backbone_weights)
    tags = provenance_tags(spec.train, spec.category, spec.study, spec.demo)
    make_folder(spec.results)
    ledger = Ledger(spec.tracking_uri, spec.experiment, spec.results / "mlartifacts", tags)
    progress("starting Ray", 0, 1)
    with ray_cluster(spec.address):
        resources = resources_of(spec)
        make_folder(spec.folder)
        log = TrainingLog(spec.folder, spec.category, datetime.now())
        write_json(spec.folder / "splits.json", pictures.split.as_dict())
        ledger.start_study(spec.study, _parameters(spec, space))
        try:
            everyone = [*listeners, ledger, log]
            summary = _search_and_promote(spec, space, backbone, pictures, resources, ledger, everyone, progress)
            summary["seconds"] = round(time.monotonic() - started, 1)
            write_json(spec.folder / "summary.json", summary)
            written = [spec.folder / "summary.json", spec.folder / "splits.json", log.path, *space.sources]
            ledger.log_artifacts(ledger.parent_run_id, written)
            ledger.end_study("FINISHED")
        except BaseException as error:
            log.write(f"ended by {type(error).__name__}: {error}")
            ledger.end_study("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
    return summary


def _search_and_promote(
    spec: StudySpec,
    space: Space,
    backbone: Backbone,
    pictures: StudyPictures,
    resources: Resources,
    ledger: Ledger,
    listeners: Sequence[Listener],
    progress: Progress,
) -> dict[str, Any]:
    progress("computing frozen features", 0, 1)
    shared, stored = prepare_remotely(spec, backbone, pictures, resources)
    progress(stored, 1, 1)
    ledger.tag_run(ledger.parent_run_id, {"features": stored})
    progress("trials", 0, 1)
    trials, _ = run_trials(spec, space, shared, resources, listeners)
    require_any(trials)

    progress("training the finalists again", 0, 1)
    model_name = f"las-{spec.category}"
    holder = ledger.champion_tags(model_name)
    demo = str(spec.demo).lower()
    current = json.loads(holder.get("hyperparameters", "null")) if holder.get("demo") == demo else None
    current = known_hyperparameters(current)
    finalists, again = _train_finalists(spec, space, current, trials, shared, resources, listeners)
    scores = score_remotely(shared, {name: one.heads for name, one in finalists.items()}, resources)
    decision = decide_champion(scores, spec.train.resolved_objective, current is not None)
    handed_over = finalists[BASELINE if decision.champion == BASELINE else decision.best]

    progress("opening the sealed test", 0, 1)
    openings = count_opening(spec.results, spec.category, pictures.split.as_dict()["digest"], spec.study)
    roles = {"baseline": finalists[BASELINE], "champion": handed_over}
    heads = {f"{role}/{index}": head for role, one in roles.items() for index, head in enumerate(one.heads)}
    evaluations = evaluate_remotely(shared, heads, pictures.sealed_test, pictures.threshold_pictures, resources)
    report = SealedReport.of(roles, evaluations, pictures.sealed_test.labels)

    progress("writing the champion", 0, 1)
    shipped = {role: one.records[one.shipped] for role, one in roles.items()}
    files = write_outputs(
        spec.folder, spec.category, spec.train.replace(**handed_over.records[0].params), backbone, shipped,
        {role: one.heads[one.shipped] for role, one in roles.items()}, report.shipped, pictures.sealed_test.labels,
    )  # fmt: skip
    ledger.log_artifacts(ledger.parent_run_id, files)
    _log_finalists(ledger, roles, evaluations, decision)
    champion_run = ledger.run_of(shipped["champion"].number)
    model_id = log_model(champion_run, files[-1], pictures.fit[0].transpose(1, 2, 0))
    tags = {"study": spec.study, "demo": demo, "trial": str(shipped["champion"].number)}
    tags |= {"hyperparameters": json.dumps(shipped["champion"].params), "promotion": decision.reason}
    promote = decision.champion != CURRENT and not (spec.demo and holder.get("demo") == "false")  # of real pictures
    model_uri = ledger.register(model_name, model_id, champion_run, tags, promote)
    summary = _describe(spec, pictures, trials, ledger) | {
        **{role: describe_trial(shipped[role], report.shipped[role].metrics) for role in roles},
        "validation_mean": {role: one.mean_objective for role, one in roles.items()}
        | {MEMORY_BANK: objective_in(evaluations[MEMORY_BANK].validation, spec.train.resolved_objective)},
        "test_mean": report.means,
        "test_gain": {name: asdict(interval) for name, interval in report.gains.items()},
        "reference": report.bank_against_champion(spec.train.resolved_objective),
        "promotion": asdict(decision),
        "test_openings": openings,
        "cost": describe_cost([*trials, *again], decision.gain.mean),
        "model_uri": model_uri,
    }
    ledger.log_metrics(ledger.parent_run_id, report.metrics() | {"test_openings": openings})
    ledger.tag_run(ledger.parent_run_id, {"promotion": decision.reason})
    return summary


def _train_finalists(
    spec: StudySpec,
    space: Space,
    current: dict[str, Any] | None,
    trials: Sequence[TrialRecord],
    shared: SharedStudy,
    resources: Resources,
    listeners: Sequence[Listener],
) -> tuple[dict[str, Finalist], list[TrialRecord]]:
    """Train baseline, finalists and current champion over new seeds; those that failed in every seed are left out."""
    jobs = make_jobs(
        pick_finalists(trials, spec.finalists), space.baseline, current,
        spec.train.seed + 1, spec.seeds,
    )  # fmt: skip
    first_number = max(trial.number for trial in trials) + 1
    records, checkpoints = run_finalists(spec, jobs, first_number, shared, resources, listeners)
    finalists: dict[str, Finalist] = {}
    for record in records:
        if record.number in checkpoints and record.status == "completed":
            one = finalists.setdefault(record.finalist, Finalist(record.finalist, [], []))
            one.records.append(record)
            one.heads.append(load_trained(checkpoints[record.number]))
    if BASELINE not in finalists:
        reasons = sorted({record.reason for record in records if record.finalist == BASELINE})
        raise UserError("The baseline must train with one of the new seeds", "; ".join(reasons), "see the log")
    return finalists, records


def _log_finalists(
    ledger: Ledger, roles: dict[str, Finalist], evaluations: dict[str, Evaluation], decision: Decision
) -> None:
    """The sealed test's numbers into the runs of the heads that were scored, and who was what."""
    for role, one in roles.items():
        for index, record in enumerate(one.records):
            run_id = ledger.run_of(record.number)
            metrics = evaluations[f"{role}/{index}"].metrics
            ledger.log_metrics(run_id, {f"test/{name}": value for name, value in metrics.items()})
            if index == one.shipped:
                ledger.tag_run(run_id, {role: "true", "promotion": decision.reason})


def _describe(
    spec: StudySpec, pictures: StudyPictures, trials: Sequence[TrialRecord], ledger: Ledger
) -> dict[str, Any]:
    """What the summary says besides the numbers."""
    return {
        "study": spec.study,
        "category": spec.category,
        "demo": spec.demo,
        "objective": spec.train.objective,
        "splits": {part: len(keys) for part, keys in pictures.split.as_dict().items() if isinstance(keys, list)},
        "skipped": list(pictures.skipped),
        "masks_missing": pictures.masks_missing,
        "trials": count_trials(trials),
        "tracking_uri": without_password(spec.tracking_uri),
        "experiment_id": ledger.experiment_id,
        "parent_run_id": ledger.parent_run_id,
    }


def _parameters(spec: StudySpec, space: Space) -> dict[str, Any]:
    """What the parent run says of the search."""
    return {
        "trials": spec.trials,
        "epochs": spec.train.epochs,
        "image_size": spec.train.image_size,
        "batch_size": spec.train.batch_size,
        "sampler": spec.sampler,
        "scheduler": spec.scheduler,
        "space": space.name,
        "command": without_password(spec.command)[:5000],
    }
