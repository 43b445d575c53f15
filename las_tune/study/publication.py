"""What goes to MLflow beside the trials: how a study was asked for, what it found, its figures, how to repeat it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.config.files import write_json
from las_tune.config.study_spec import BY_LIBRARY, StudySpec
from las_tune.errors import without_password
from las_tune.reporting.description import describe_start, describe_study
from las_tune.reporting.study_figures import write_study_figures
from las_tune.search.samplers import distribution
from las_tune.space.search_space import Space
from las_tune.study.searched import Searched
from las_tune.tracking.journal import STUDY_RUN
from las_tune.tracking.ledger import Ledger

NOTE_TAG = "mlflow.note.content"
"""What MLflow shows as the description of a run, in Markdown."""


def publish_start(spec: StudySpec, space: Space, split: Mapping[str, Any], ledger: Ledger) -> None:
    """Splits, space files, versions, command line, and a description, before the first trial."""
    write_json(spec.folder / paths.SPLITS, dict(split))
    versions = sorted({f"{one.metadata['Name']}=={one.version}" for one in distributions()}, key=str.lower)
    (spec.folder / paths.CONSTRAINTS).write_text("\n".join(versions) + "\n", encoding="utf-8")
    command = without_password(spec.command)
    if spec.command != BY_LIBRARY or not (spec.folder / paths.COMMAND).exists():  # --resume takes flags from it
        (spec.folder / paths.COMMAND).write_text(command + "\n", encoding="utf-8")
    files = [spec.folder / name for name in (paths.SPLITS, paths.CONSTRAINTS, paths.COMMAND)]
    ledger.log_artifacts(STUDY_RUN, [*files, *_copy_space(space, spec.folder)])
    ledger.tag(STUDY_RUN, {NOTE_TAG: describe_start(_plan(spec), _ranges(space), command)})


def publish(
    spec: StudySpec, space: Space, searched: Searched, summary: Mapping[str, Any], ledger: Ledger, log: Path
) -> None:
    """Figures over all trials, the training log, and what was found, in the description."""
    folder = spec.folder / "figures"
    folder.mkdir(exist_ok=True)
    trials = [*searched.trials, *searched.again]
    knobs = {name: distribution(knob) for name, knob in space.knobs.items()}
    figures = write_study_figures(folder, spec.category, trials, spec.train.resolved_objective, knobs)
    ledger.log_artifacts(STUDY_RUN, figures, "figures")
    ledger.log_artifacts(STUDY_RUN, [log])
    ledger.tag(STUDY_RUN, {NOTE_TAG: describe_study(summary, _ranges(space), without_password(spec.command))})


def _copy_space(space: Space, folder: Path) -> list[Path]:
    """The files of a space as they are now, parents first; of two with one name the second gets a number."""
    copies: list[Path] = []
    for number, source in enumerate(space.sources, start=1):
        is_taken = folder / source.name in copies
        copies.append(folder / (f"{number}_{source.name}" if is_taken else source.name))
        shutil.copyfile(source, copies[-1])
    return copies


def _ranges(space: Space) -> dict[str, str]:
    """Each knob's range, as people write it."""
    return {name: knob.range_text for name, knob in space.knobs.items()}


def _plan(spec: StudySpec) -> dict[str, Any]:
    return {
        "study": spec.study,
        "category": spec.category,
        "demo": spec.demo,
        "trials": spec.trials,
        "epochs": spec.train.epochs,
        "objective": spec.train.objective,
        "sampler": spec.sampler,
        "scheduler": spec.scheduler,
        "validation": spec.validation,
        "protocol": spec.protocol,
    }


def study_parameters(spec: StudySpec, space: Space) -> dict[str, Any]:
    """What the parent run says of the search."""
    return {
        "trials": spec.trials,
        "finalists": spec.finalists,
        "seeds": spec.seeds,
        "epochs": spec.train.epochs,
        "image_size": spec.train.image_size,
        "batch_size": spec.train.batch_size,
        "objective": spec.train.objective,
        "fpr": spec.train.fpr,
        "validation": spec.validation,
        "holdout": spec.holdout,
        "protocol": spec.protocol,
        "sampler": spec.sampler,
        "scheduler": spec.scheduler,
        "patience": spec.patience,
        "warm_start": ", ".join(spec.warm_start),
        "space": space.name,
        "command": without_password(spec.command)[:5000],
    }
