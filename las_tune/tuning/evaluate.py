"""Detectors on pictures that no trial saw: the sealed test, opened for baseline, champion and memory bank together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, store_features
from las_tune.las.head import Head
from las_tune.las.memory_bank import build_bank, score_bank
from las_tune.las.metrics import aupro_by_picture, pixel_targets
from las_tune.las.scoring import picture_scores, score_features
from las_tune.las.train import Scored, TrainData, metrics_of
from las_tune.tuning.prepare import Array, Labelled

MEMORY_BANK = "memory_bank"
FALSE_POSITIVE_RATE = 0.01
"""The threshold is the score that this share of good calibration pictures exceeds."""


@dataclass(frozen=True)
class Trained:
    """A trained head: its state dict and what it was built with."""

    head: dict[str, Any]
    hidden_width: int
    use_adaptor: bool

    def load(self, backbone: Backbone, device: torch.device) -> Head:
        """The head on a device."""
        head = Head(backbone.channels, self.hidden_width, torch.Generator(), self.use_adaptor).to(device)
        head.load_state_dict(self.head)
        return head


@dataclass(frozen=True)
class Evaluation:
    """One detector on the sealed test.

    metrics     image AUROC and AP, pixel AUROC and AUPRO where there are masks; at the threshold recall, F1 and the
                share of good pictures that are rejected
    scores      (N,) float, in the order of the pictures
    per_picture (N,) float, what each picture adds to AUPRO (see aupro_by_picture); None without masks
    threshold   score from which a picture is called defective, from good calibration pictures alone
    validation  metrics on the validation pictures; of the memory bank only, a head has them from its training
    """

    metrics: dict[str, float]
    scores: Array
    per_picture: Array | None
    threshold: float
    validation: dict[str, float] = field(default_factory=dict)


def evaluate(
    backbone: Backbone, data: TrainData, trained: Mapping[str, Trained], test: Labelled, calibration: Array
) -> dict[str, Evaluation]:
    """Score each detector on the same pictures. A memory bank of the fit pictures, which learns nothing, is one more.

    Args:
        backbone: the frozen network; its device is where this runs.
        data: what trials saw.
        trained: heads by name.
        test: the sealed test.
        calibration: (N, 3, S, S) uint8 good pictures that no head was fitted to; they set the thresholds.
    """
    size = test.pictures.shape[-1]
    device = backbone.mean.device
    targets = pixel_targets(test.masks) if test.masks is not None else None
    is_stored = data.features.maps is not None  # what did not fit the limit there does not fit here either

    def features(pictures: Array) -> FeatureStore:
        tensor = torch.from_numpy(pictures).to(device)
        return FeatureStore(tensor, store_features(backbone, tensor) if is_stored else None, backbone)

    scored = Scored(
        features(test.pictures),
        torch.from_numpy(test.labels).to(device),
        targets.to(device) if targets else None,
    )
    normals = features(calibration)

    def judge(heat_of: Callable[[FeatureStore], Tensor]) -> Evaluation:
        heat = heat_of(scored.features)
        scores = picture_scores(heat).cpu().numpy()
        threshold = threshold_of(picture_scores(heat_of(normals)).cpu().numpy())
        metrics = known(metrics_of(heat, scored)) | at_threshold(scores, test.labels, threshold)
        per_picture = aupro_by_picture(heat, scored.targets).cpu().numpy() if scored.targets else None
        return Evaluation(metrics, scores, per_picture, threshold)

    evaluations = {}
    for name, part in trained.items():
        evaluations[name] = judge(partial(_heat_of_head, part.load(backbone, device), size))
    bank = build_bank(data.features)
    evaluations[MEMORY_BANK] = replace(
        judge(lambda features: score_bank(bank, features, size)),
        validation=known(metrics_of(score_bank(bank, data.validation.features, size), data.validation)),
    )
    return evaluations


def _heat_of_head(head: Head, size: int, features: FeatureStore) -> Tensor:
    return score_features(head, features, size)


def threshold_of(normal_scores: Array) -> float:
    """The score that a share FALSE_POSITIVE_RATE of good pictures exceeds; of few pictures the greatest."""
    return float(np.quantile(normal_scores, 1 - FALSE_POSITIVE_RATE, method="higher"))


def at_threshold(scores: Array, labels: Array, threshold: float) -> dict[str, float]:
    """Recall, F1 and false-reject rate where pictures that score above the threshold are rejected."""
    rejected = scores > threshold
    hits, missed, false = (rejected & labels).sum(), (~rejected & labels).sum(), (rejected & ~labels).sum()
    return {
        "recall": float(hits / (hits + missed)),
        "f1": float(2 * hits / (2 * hits + missed + false)),
        "false_reject_rate": float(false / (~labels).sum()),
    }


def known(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Without those that need masks where there are none."""
    return {name: value for name, value in metrics.items() if value is not None}
