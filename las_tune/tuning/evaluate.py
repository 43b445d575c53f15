"""Trained heads on pictures that no trial saw: the sealed test, opened for baseline and champion together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, store_features
from las_tune.las.head import Head
from las_tune.las.metrics import pixel_targets
from las_tune.las.scoring import picture_scores, score_features
from las_tune.las.train import Scored, metrics_of
from las_tune.tuning.prepare import Array, Labelled

FALSE_POSITIVE_RATE = 0.01
"""The threshold is the score that this share of good calibration pictures exceeds."""


@dataclass(frozen=True)
class Trained:
    """A trained head: its state dict and the width that it was built with."""

    head: dict[str, Any]
    hidden_width: int


@dataclass(frozen=True)
class Evaluation:
    """One head on the sealed test.

    metrics    image AUROC and AP, pixel AUROC and AUPRO where there are masks, recall and false-reject rate
    scores     (N,) float, in the order of the pictures
    threshold  score from which a picture is called defective, from good calibration pictures alone
    """

    metrics: dict[str, float]
    scores: Array
    threshold: float


def evaluate(
    backbone: Backbone, trained: Mapping[str, Trained], test: Labelled, calibration: Array
) -> dict[str, Evaluation]:
    """Score each head on the same pictures.

    Args:
        backbone: the frozen network; its device is where this runs.
        trained: heads by name.
        test: the sealed test.
        calibration: (N, 3, S, S) uint8 good pictures that no head was fitted to; they set the threshold.
    """
    size = test.pictures.shape[-1]
    device = backbone.mean.device
    targets = pixel_targets(test.masks) if test.masks is not None else None

    def features(pictures: Array) -> FeatureStore:
        tensor = torch.from_numpy(pictures)
        return FeatureStore(tensor, store_features(backbone, tensor), backbone)

    scored = Scored(
        features(test.pictures),
        torch.from_numpy(test.labels).to(device),
        targets.to(device) if targets else None,
    )
    normals = features(calibration)
    evaluations = {}
    for name, part in trained.items():
        head = Head(backbone.channels, part.hidden_width, torch.Generator()).to(device)
        head.load_state_dict(part.head)
        heat = score_features(head, scored.features, size)
        scores = picture_scores(heat).cpu().numpy()
        normal = picture_scores(score_features(head, normals, size)).cpu().numpy()
        threshold = float(np.quantile(normal, 1 - FALSE_POSITIVE_RATE, method="higher"))
        rejected = scores > threshold
        metrics = {name: v for name, v in metrics_of(heat, scored).items() if isinstance(v, float)}
        metrics["recall"] = float(rejected[test.labels].mean())
        metrics["false_reject_rate"] = float(rejected[~test.labels].mean())
        evaluations[name] = Evaluation(metrics, scores, threshold)
    return evaluations
