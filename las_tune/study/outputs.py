"""Files that a training leaves in its folder: the seed program's four, by its names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from las_tune.config import paths
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import TrialRecord
from las_tune.data.study_images import Array
from las_tune.errors import UserError
from las_tune.las.backbone import Backbone
from las_tune.las.checkpoint import save_detector
from las_tune.reporting.curves import plot_roc_curve, plot_training_curves
from las_tune.selection.evaluation import Evaluation, Trained


def require_new(folder: Path) -> None:
    """A study of that name that is there already is not touched."""
    if folder.exists():
        raise UserError("--study must be a new name", f"{folder.name}, which is in {folder.parent}", "choose another")


def write_outputs(
    folder: Path,
    category: str,
    spec: TrainSpec,
    backbone: Backbone,
    trials: Mapping[str, TrialRecord],
    trained: Mapping[str, Trained],
    evaluations: Mapping[str, Evaluation],
    test_labels: Array,
    test_name: str,
    backbone_inside: bool = True,
) -> list[Path]:
    """Write training curves, ROC curve and best model. The role champion is the one handed over.

    Args:
        folder: the study's folder.
        category: for the names.
        spec: what the champion was trained with.
        backbone: the frozen network.
        trials, trained, evaluations: by role (baseline, champion).
        test_labels: (N,) bool of the sealed test.
        test_name: what that is called in titles.
        backbone_inside: whether the model holds the frozen network, or names it.

    Returns: the three files.
    """
    curves = folder / f"training_curves_{category}.png"
    roc = folder / f"roc_curve_{category}.png"
    model = folder / paths.model_file(category)
    plot_training_curves(curves, category, trials)
    plot_roc_curve(roc, f"{category}: {test_name}", test_labels, {role: e.scores for role, e in evaluations.items()})
    champion = evaluations["champion"]
    about = {
        "category": category,
        "threshold": champion.threshold,
        "validation": trials["champion"].best,
        "test": champion.metrics,
    }
    save_detector(model, backbone, trained["champion"].head, spec, about, backbone_inside)
    return [curves, roc, model]
