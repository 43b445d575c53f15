"""Objectives of the search, and the order of results with equal objectives. All values are metrics of one epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Objective = Literal["image_auroc", "pixel_aupro", "combined", "recall_at_fpr", "worst_defect"]
"""combined is the mean of image_auroc and pixel_aupro; recall_at_fpr uses a threshold from good calibration images
only; worst_defect is the lowest image AUROC over the defect types."""

PIXEL_OBJECTIVES: tuple[Objective, ...] = ("pixel_aupro", "combined")
"""Objectives that need masks."""
METRIC_OF = {"recall_at_fpr": "recall"}
"""Metric of an objective that has another name."""
TIE_BREAKS = ("image_auroc", "pixel_aupro", "recall", "worst_defect")
"""Metrics that order results with equal objectives; the first metric that differs decides."""


def objective_value(objective: Objective, metrics: Mapping[str, float]) -> float:
    """Return the value to maximize.

    >>> objective_value("combined", {"image_auroc": 1.0, "pixel_aupro": 0.5})
    0.75
    """
    if objective == "combined":
        return (metrics["image_auroc"] + metrics["pixel_aupro"]) / 2
    return metrics[METRIC_OF.get(objective, objective)]


def ranking(row: Mapping[str, float]) -> tuple[float, ...]:
    """Return the sort key of epochs, trials and finalists: the objective, then the tie breaks that were measured.

    >>> ranking({"objective": 0.9, "recall": 0.8}) > ranking({"objective": 0.9, "recall": 0.7})
    True
    """
    return (row["objective"], *(row[name] for name in TIE_BREAKS if name in row))


def deciding_tie_break(best: Mapping[str, float], second: Mapping[str, float]) -> str:
    """Return the tie break that decided between two results; empty if their objectives differ."""
    if best["objective"] != second["objective"]:
        return ""
    return next((name for name in TIE_BREAKS if best.get(name) != second.get(name)), "the order of trials")
