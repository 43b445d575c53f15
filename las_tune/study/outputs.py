"""Files in a study's folder: its settings and splits, the detector with its curves, and the figures over all trials."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, NamedTuple

from las_tune.config import LIBRARY_COMMAND, StudySpec, TrainSpec, TrialRecord, paths, write_json
from las_tune.data import Array
from las_tune.errors import UserError, without_password
from las_tune.las import Backbone, save_detector
from las_tune.reporting import plot_roc_curve, plot_training_curves, write_study_figures
from las_tune.search import distribution
from las_tune.selection import Evaluation, TrainedHead
from las_tune.space import Space
from las_tune.study.conclusion import Conclusion
from las_tune.study.trained_study import TrainedStudy


@dataclass(frozen=True)
class DeliveredDetector:
    """One training run with its head, and the evaluation of the head on the sealed test."""

    record: TrialRecord
    head: TrainedHead
    evaluation: Evaluation


class DetectorFiles(NamedTuple):
    """Files that every training run writes; their names are those of the published reference code."""

    training_curves: Path
    roc_curve: Path
    model: Path


def require_new_folder(folder: Path) -> None:
    """Raise a UserError if the folder of a new study exists."""
    if folder.exists():
        problem = f"--study {folder.name} already exists in {folder.parent}"
        raise UserError(problem, remedy="Choose another name")


def write_start_files(spec: StudySpec, space: Space, split: Mapping[str, Any]) -> list[Path]:
    """Write the splits, the installed packages, the command line and the search space, and return the files."""
    splits, constraints, command = (spec.folder / name for name in (paths.SPLITS, paths.CONSTRAINTS, paths.COMMAND))
    write_json(splits, dict(split))
    packages = sorted({f"{package.metadata['Name']}=={package.version}" for package in distributions()}, key=str.lower)
    constraints.write_text("\n".join(packages) + "\n", encoding="utf-8")
    # --resume reads its flags from the command line, so a call of the library does not replace one.
    if spec.command != LIBRARY_COMMAND or not command.exists():
        command.write_text(without_password(spec.command) + "\n", encoding="utf-8")
    return [splits, constraints, command, *_copy_space(space, spec.folder)]


def _copy_space(space: Space, folder: Path) -> list[Path]:
    """Copy the files of a search space, parents first. The second of two files with one name gets a number."""
    copies: list[Path] = []
    for number, source in enumerate(space.sources, start=1):
        is_taken = folder / source.name in copies
        copies.append(folder / (f"{number}_{source.name}" if is_taken else source.name))
        shutil.copyfile(source, copies[-1])
    return copies


def write_detector(
    folder: Path,
    category: str,
    spec: TrainSpec,
    backbone: Backbone,
    detectors: Mapping[str, DeliveredDetector],
    test_labels: Array,
    test_name: str,
    backbone_inside: bool = True,
) -> DetectorFiles:
    """Write training curves, ROC curve and model file.

    Args:
        folder: folder of the study.
        category: for the file names.
        spec: settings that the champion was trained with.
        backbone: the frozen network.
        detectors: by role; the model file holds the role champion.
        test_labels: (N,) bool, 1 = defective, of the sealed test.
        test_name: name of the test, for titles.
        backbone_inside: whether the model file contains the frozen network, instead of its name.
    """
    files = DetectorFiles(
        folder / f"training_curves_{category}.png",
        folder / f"roc_curve_{category}.png",
        folder / paths.model_file(category),
    )
    plot_training_curves(files.training_curves, category, {role: d.record for role, d in detectors.items()})
    scores = {role: detector.evaluation.scores for role, detector in detectors.items()}
    plot_roc_curve(files.roc_curve, f"{category}: {test_name}", test_labels, scores)
    champion = detectors["champion"]
    about = {
        "category": category,
        "threshold": champion.evaluation.threshold,
        "validation": champion.record.best,
        "test": champion.evaluation.metrics,
    }
    save_detector(files.model, backbone, champion.head.head, spec, about, backbone_inside)
    return files


def write_champion(conclusion: Conclusion, backbone: Backbone) -> DetectorFiles:
    """Write the champion of a study, with its curves next to those of the baseline."""
    spec, choice, images = conclusion.study.spec, conclusion.choice, conclusion.images
    detectors = {
        role: DeliveredDetector(choice.records[role], choice.heads[role], conclusion.report.delivered[role])
        for role in choice.roles
    }
    return write_detector(
        spec.folder,
        spec.category,
        choice.champion.spec(spec.train),
        backbone,
        detectors,
        images.sealed_test.labels,
        images.test_name,
        backbone_inside=spec.model_weights == "inside",
    )


def write_figures(study: TrainedStudy) -> list[Path]:
    """Draw the figures over all trials of a study, and return their files."""
    spec, folder = study.spec, study.spec.folder / "figures"
    folder.mkdir(exist_ok=True)
    trials = [*study.trials, *study.retrained]
    distributions_of_space = {name: distribution(parameter) for name, parameter in study.space.parameters.items()}
    return write_study_figures(folder, spec.category, trials, spec.train.resolved_objective, distributions_of_space)
