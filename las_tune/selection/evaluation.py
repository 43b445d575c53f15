"""Detectors on images that no trial saw: the sealed test, opened for baseline, champion and memory bank together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from las_tune.data.study_images import Array, LabeledImages
from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, store_features
from las_tune.las.head import Head
from las_tune.las.memory_bank import build_bank, score_bank
from las_tune.las.metrics import aupro_by_image, pixel_targets
from las_tune.las.scored_images import Scored, metrics_of, threshold_of
from las_tune.las.scoring import image_scores, score_features
from las_tune.las.training import TrainData

MEMORY_BANK = "memory_bank"


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

    metrics     see metrics_of
    scores      (N,) float, in the order of the images
    per_image (N,) float, what each image adds to AUPRO (see aupro_by_image); None without masks
    threshold   score above which an image is called defective, from good calibration images alone
    validation  metrics on the validation images; of the memory bank only, a head has them from its training
    """

    metrics: dict[str, float]
    scores: Array
    per_image: Array | None
    threshold: float
    validation: dict[str, float] = field(default_factory=dict)


def evaluate(
    backbone: Backbone, data: TrainData, trained: Mapping[str, Trained], test: LabeledImages, fpr: float
) -> dict[str, Evaluation]:
    """Score each detector on the same images. A memory bank of the fit images, which learns nothing, is one more.

    Args:
        backbone: the frozen network; its device is where this runs.
        data: what trials saw; its calibration images set the thresholds.
        trained: heads by name.
        test: the sealed test.
        fpr: share of good calibration images that a threshold rejects.
    """
    size = test.images.shape[-1]
    device = backbone.mean.device
    targets = pixel_targets(test.masks) if test.masks is not None else None
    images = torch.from_numpy(test.images).to(device)
    # What did not fit the limit for the trials does not fit here either.
    maps = store_features(backbone, images) if data.features.maps is not None else None
    scored = Scored(
        FeatureStore(images, maps, backbone),
        torch.from_numpy(test.defects).to(device),
        targets.to(device) if targets else None,
    )

    def judge(heat_of: Callable[[FeatureStore], Tensor]) -> Evaluation:
        heat = heat_of(scored.features)
        threshold = threshold_of(image_scores(heat_of(data.calibration)).cpu().numpy(), fpr)
        per_image = aupro_by_image(heat, scored.targets).cpu().numpy() if scored.targets else None
        scores = image_scores(heat).cpu().numpy()
        return Evaluation(metrics_of(heat, scored, threshold), scores, per_image, threshold)

    evaluations = {}
    for name, part in trained.items():
        evaluations[name] = judge(partial(score_features, part.load(backbone, device), size=size))
    bank = build_bank(data.features)
    of_bank = judge(lambda features: score_bank(bank, features, size))
    on_validation = score_bank(bank, data.validation.features, size)
    validation = metrics_of(on_validation, data.validation, of_bank.threshold)
    return evaluations | {MEMORY_BANK: replace(of_bank, validation=validation)}
