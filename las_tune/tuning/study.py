"""One study from pictures to a promoted champion, read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ray.tune import Checkpoint

from las_tune.las.backbone import Backbone, load_backbone
from las_tune.spec import StudySpec
from las_tune.tracking.ledger import Ledger, default_tracking_uri
from las_tune.tracking.model import log_model
from las_tune.tracking.provenance import provenance_tags, without_password
from las_tune.tracking.record import Listener, TrialRecord
from las_tune.tracking.summary import count_trials, describe_trial, write_json
from las_tune.tracking.training_log import TrainingLog
from las_tune.tuning.evaluate import Evaluation
from las_tune.tuning.outputs import make_folder, require_new, write_outputs
from las_tune.tuning.prepare import Progress, StudyPictures, load_pictures, resolve_objective
from las_tune.tuning.select import select_champion
from las_tune.tuning.space import Space, load_space, space_for
from las_tune.tuning.tuner import (
    Resources,
    evaluate_remotely,
    load_trained,
    prepare_remotely,
    ray_cluster,
    resources_of,
    run_trials,
)


def run_study(spec: StudySpec, listeners: Sequence[Listener], progress: Progress) -> dict[str, Any]:
    """Search one category; returns the summary.

    Everything that a user can get wrong is checked before the study's folder is made.
    """
    started = time.monotonic()
    require_new(spec.folder)
    space = load_space(spec.space) if spec.space else space_for(spec.category)
    pictures = load_pictures(spec.data_root, spec.category, spec.textures, spec.train, spec.skip_broken, progress)
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
    trials, checkpoints = run_trials(spec, space, shared, resources, listeners)
    roles = _roles(trials, checkpoints)
    trained = {role: load_trained(checkpoints[trial.number]) for role, trial in roles.items()}
    progress("opening the sealed test", 0, 1)
    evaluations = evaluate_remotely(
        shared.backbone, trained, pictures.sealed_test, pictures.threshold_pictures, resources
    )
    progress("writing the champion", 0, 1)
    champion = roles["champion"]
    files = write_outputs(
        spec.folder, spec.category, spec.train.replace(**champion.params), backbone, roles, trained, evaluations,
        pictures.sealed_test.labels,
    )  # fmt: skip
    ledger.log_artifacts(ledger.parent_run_id, files)
    return _promote(spec, pictures, ledger, trials, roles, evaluations, files[-1])


def _roles(trials: Sequence[TrialRecord], checkpoints: dict[int, Checkpoint]) -> dict[str, TrialRecord]:
    """Baseline (where it did not fail) and champion; they may be one trial."""
    champion = {"champion": select_champion(trials)}
    baseline = next((trial for trial in trials if trial.is_baseline and trial.number in checkpoints), None)
    return {"baseline": baseline, **champion} if baseline else champion


def _promote(
    spec: StudySpec,
    pictures: StudyPictures,
    ledger: Ledger,
    trials: Sequence[TrialRecord],
    roles: dict[str, TrialRecord],
    evaluations: dict[str, Evaluation],
    detector_file: Path,
) -> dict[str, Any]:
    """Register the champion and write the sealed test's numbers into the ledger."""
    for role, evaluation in evaluations.items():
        run_id = ledger.run_of(roles[role].number)
        ledger.log_metrics(run_id, {f"test/{name}": value for name, value in evaluation.metrics.items()})
        ledger.log_metrics(
            ledger.parent_run_id, {f"{role}/test_{name}": value for name, value in evaluation.metrics.items()}
        )
        ledger.tag_run(run_id, {role: "true"})
    champion = roles["champion"]
    champion_run = ledger.run_of(champion.number)
    example = pictures.fit[0].transpose(1, 2, 0)
    model_id = log_model(champion_run, detector_file, example)
    tags = {"study": spec.study, "demo": str(spec.demo).lower(), "trial": str(champion.number)}
    model_uri = ledger.promote(f"las-{spec.category}", model_id, champion_run, tags)
    described = {role: describe_trial(trial, evaluations[role].metrics) for role, trial in roles.items()}
    return {
        "study": spec.study,
        "category": spec.category,
        "demo": spec.demo,
        "objective": spec.train.objective,
        "splits": {part: len(keys) for part, keys in pictures.split.as_dict().items() if isinstance(keys, list)},
        "skipped": list(pictures.skipped),
        "masks_missing": pictures.masks_missing,
        "trials": count_trials(trials),
        "baseline": described.get("baseline"),
        "champion": described["champion"],
        "tracking_uri": without_password(spec.tracking_uri),
        "experiment_id": ledger.experiment_id,
        "parent_run_id": ledger.parent_run_id,
        "model_uri": model_uri,
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
