"""Metrics of anomaly maps on labeled images, and the threshold between good and defective."""

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
class LabeledFeatures:
    """Features and labels of images that are scored.

    features  features of N images
    defects   (N,) int64, 0 = good, k = the k-th defect type
    targets   the defective pixels; None if masks are missing
    """

    features: FeatureStore
    defects: Tensor
    targets: PixelTargets | None

    @property
    def labels(self) -> Tensor:
        """(N,) bool, 1 = defective."""
        return self.defects > 0


def metrics_of(maps: Tensor, labeled: LabeledFeatures, threshold: float) -> dict[str, float]:
    """Compute the metrics of anomaly maps.

    Args:
        maps: (N, S, S) float, high = defective.
        labeled: labels of the images.
        threshold: images with a higher score are classified as defective.

    Returns: image_auroc, image_ap, worst_defect (the lowest image AUROC of a single defect type against all good
        images), recall, f1 and false_reject_rate; with masks also pixel_auroc and pixel_aupro.
    """
    scores, labels = image_scores(maps), labeled.labels
    metrics = {
        "image_auroc": auroc(scores, labels),
        "image_ap": average_precision(scores, labels),
        "worst_defect": min(
            auroc(scores[kept], labels[kept])
            for kept in (~labels | (labeled.defects == defect) for defect in torch.unique(labeled.defects[labels]))
        ),
    }
    if labeled.targets:
        metrics["pixel_auroc"], metrics["pixel_aupro"] = pixel_metrics(maps, labeled.targets)
    return metrics | at_threshold(scores.cpu().numpy(), labels.cpu().numpy(), threshold)


def threshold_of(normal_scores: Array, fpr: float) -> float:
    """Return the score that a fraction `fpr` of good images exceeds; with too few images, the highest score.

    >>> threshold_of(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 0.2)
    0.5
    """
    return float(np.quantile(normal_scores, 1 - fpr, method="higher"))


def at_threshold(scores: Array, labels: Array, threshold: float) -> dict[str, float]:
    """Compute recall, F1 and false reject rate if images with a score above the threshold are rejected.

    >>> at_threshold(np.array([0.2, 0.7, 0.9]), np.array([False, False, True]), 0.5)
    {'recall': 1.0, 'f1': 0.6666666666666666, 'false_reject_rate': 0.5}
    """
    rejected = scores > threshold
    hits, misses, false_rejects = (rejected & labels).sum(), (~rejected & labels).sum(), (rejected & ~labels).sum()
    return {
        "recall": float(hits / (hits + misses)),
        "f1": float(2 * hits / (2 * hits + misses + false_rejects)),
        "false_reject_rate": float(false_rejects / (~labels).sum()),
    }
