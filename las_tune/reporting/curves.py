"""Draws the training curves and the ROC curves of baseline and champion as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve

from las_tune.config import TrialRecord

COLORS = {"baseline": "#E69F00", "champion": "#0072B2"}
"""By role, from the color-blind safe palette of Okabe and Ito."""
DPI = 130


def plot_training_curves(path: Path, category: str, trials: Mapping[str, TrialRecord]) -> None:
    """Plot losses and validation metrics against epochs, all trials in the same axes.

    Args:
        path: the PNG file.
        category: shown in the title.
        trials: trials by role (baseline, champion).
    """
    panels: Sequence[tuple[str, Sequence[tuple[str, str]]]] = (
        ("loss", (("loss", "-"), ("loss_normal", "--"), ("loss_las", ":"))),
        ("image AUROC, AP (validation)", (("image_auroc", "-"), ("image_ap", "--"))),
        ("pixel AUROC, AUPRO (validation)", (("pixel_auroc", "-"), ("pixel_aupro", "--"))),
    )
    figure = Figure(figsize=(13, 4), layout="constrained")
    figure.suptitle(f"{category}: training curves")
    for axes, (title, curves) in zip(figure.subplots(1, 3), panels, strict=True):
        for role, trial in trials.items():
            for name, style in curves:
                points = [(row["epoch"], row[name]) for row in trial.epochs if name in row]
                if points:
                    label = f"{role} (trial {trial.number}) {name}"
                    axes.plot(*zip(*points, strict=True), style, color=COLORS[role], label=label, marker=".")
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=7, handlelength=3.5)
        else:
            axes.text(0.5, 0.5, "no masks", ha="center", transform=axes.transAxes)
    figure.savefig(path, dpi=DPI)


def plot_roc_curve(path: Path, title: str, labels: NDArray[np.bool_], scores: Mapping[str, NDArray[Any]]) -> None:
    """Plot the ROC curves of the sealed test.

    Args:
        path: the PNG file.
        title: category and name of the test.
        labels: (N,) 1 = defective.
        scores: (N,) image scores by role (baseline, champion).
    """
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for role, values in scores.items():
        false_positive, true_positive, _ = roc_curve(labels, values)
        area = roc_auc_score(labels, values)
        axes.plot(false_positive, true_positive, color=COLORS[role], label=f"{role}: AUROC {area:.4f}")
    axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
    axes.set(
        title=f"{title}, {len(labels)} images",
        xlabel="false positive rate",
        ylabel="true positive rate",
        aspect="equal",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=DPI)
