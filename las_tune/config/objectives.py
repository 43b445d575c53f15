"""What a search may maximize, and how equals are told apart: numbers of one epoch, no images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Objective = Literal["image_auroc", "pixel_aupro", "combined", "recall_at_fpr", "worst_defect"]
"""combined is the mean of the first two; recall_at_fpr takes its threshold from good calibration images alone;
worst_defect is the AUROC of the kind of defect that is told worst from good parts."""

NEED_MASKS: tuple[Objective, ...] = ("pixel_aupro", "combined")
METRIC_OF = {"recall_at_fpr": "recall"}
"""The metric of an objective, where its name is another one."""
TIE_BREAKS = ("image_auroc", "pixel_aupro", "recall", "worst_defect")
"""Of two that are equal in the objective, the one that is ahead in the first of these that differs is better."""


def objective_value(objective: Objective, metrics: Mapping[str, float]) -> float:
    """The number that is maximized, from the metrics of scored images.

    >>> objective_value("combined", {"image_auroc": 1.0, "pixel_aupro": 0.5})
    0.75
    """
    if objective == "combined":
        return (metrics["image_auroc"] + metrics["pixel_aupro"]) / 2
    return metrics[METRIC_OF.get(objective, objective)]


def ranking(row: Mapping[str, float]) -> tuple[float, ...]:
    """What epochs, trials and finalists are ordered by: the objective, then the tie breaks that are there.

    >>> ranking({"objective": 0.9, "recall": 0.8}) > ranking({"objective": 0.9, "recall": 0.7})
    True
    """
    return (row["objective"], *(row[name] for name in TIE_BREAKS if name in row))


def broken_by(better: Mapping[str, float], other: Mapping[str, float]) -> str:
    """The metric in which two that are equal in the objective differ first; empty where nothing was to be broken."""
    if better["objective"] != other["objective"]:
        return ""
    return next((name for name in TIE_BREAKS if better.get(name) != other.get(name)), "the order of trials")
