"""Scored images: labels, and what anomaly maps over them are worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from las_tune.las.features import FeatureStore
from las_tune.las.metrics import PixelTargets, auroc, average_precision, pixel_metrics
from las_tune.las.scoring import image_scores

Array = NDArray[Any]


@dataclass(frozen=True)
class Scored:
    """Images to be scored.

    features  of N images
    defects   (N,) int64, 0 = good, k = the k-th kind of defect
    targets   the defective pixels; None where masks are missing
    """

    features: FeatureStore
    defects: Tensor
    targets: PixelTargets | None

    @property
    def labels(self) -> Tensor:
        """(N,) bool, 1 = defective."""
        return self.defects > 0


def metrics_of(heat: Tensor, scored: Scored, threshold: float) -> dict[str, float]:
    """What anomaly maps (N, S, S) are worth; metrics of pixels are left out where masks are missing.

    image_auroc, image_ap, worst_defect (least AUROC of one kind of defect against all good images); pixel_auroc,
    pixel_aupro; recall, f1 and false_reject_rate where images that score above the threshold are rejected.
    """
    scores, labels = image_scores(heat), scored.labels
    metrics = {
        "image_auroc": auroc(scores, labels),
        "image_ap": average_precision(scores, labels),
        "worst_defect": min(
            auroc(scores[kept], labels[kept])
            for kept in (~labels | (scored.defects == kind) for kind in torch.unique(scored.defects[labels]))
        ),
    }
    if scored.targets:
        metrics["pixel_auroc"], metrics["pixel_aupro"] = pixel_metrics(heat, scored.targets)
    return metrics | at_threshold(scores.cpu().numpy(), labels.cpu().numpy(), threshold)


def threshold_of(normal_scores: Array, fpr: float) -> float:
    """The score that a share fpr of good images exceeds; of few images the greatest.

    >>> threshold_of(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 0.2)
    0.5
    """
    return float(np.quantile(normal_scores, 1 - fpr, method="higher"))


def at_threshold(scores: Array, labels: Array, threshold: float) -> dict[str, float]:
    """Recall, F1 and false-reject rate where images that score above the threshold are rejected.

    >>> at_threshold(np.array([0.2, 0.7, 0.9]), np.array([False, False, True]), 0.5)
    {'recall': 1.0, 'f1': 0.6666666666666666, 'false_reject_rate': 0.5}
    """
    rejected = scores > threshold
    hits, missed, false = (rejected & labels).sum(), (~rejected & labels).sum(), (rejected & ~labels).sum()
    return {
        "recall": float(hits / (hits + missed)),
        "f1": float(2 * hits / (2 * hits + missed + false)),
        "false_reject_rate": float(false / (~labels).sum()),
    }
