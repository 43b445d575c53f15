"""Evaluation on the sealed test, of baseline, champion and memory bank together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from las_tune.data import Array, LabeledImages
from las_tune.las import (
    Backbone,
    FeatureStore,
    Head,
    LabeledFeatures,
    TrainData,
    aupro_by_image,
    build_bank,
    image_scores,
    metrics_of,
    pixel_targets,
    score_bank,
    score_features,
    store_features,
    threshold_of,
)

MEMORY_BANK = "memory_bank"


@dataclass(frozen=True)
class TrainedHead:
    """A trained head: its state dict and the arguments of its constructor."""

    head: dict[str, Any]
    hidden_width: int
    use_adaptor: bool

    def load(self, backbone: Backbone, device: torch.device) -> Head:
        """Build the head on a device."""
        head = Head(backbone.channels, self.hidden_width, torch.Generator(), self.use_adaptor).to(device)
        head.load_state_dict(self.head)
        return head


@dataclass(frozen=True)
class Evaluation:
    """Results of one detector on the sealed test.

    metrics     see metrics_of
    scores      (N,) float, in the order of the images
    per_image   (N,) float, contribution of each image to AUPRO (see aupro_by_image); None without masks
    threshold   score above which an image is classified as defective, from good calibration images alone
    validation  metrics on the validation images; only for the memory bank, since heads have them from training
    """

    metrics: dict[str, float]
    scores: Array
    per_image: Array | None
    threshold: float
    validation: dict[str, float] = field(default_factory=dict)


def evaluate(
    backbone: Backbone, data: TrainData, trained: Mapping[str, TrainedHead], test: LabeledImages, fpr: float
) -> dict[str, Evaluation]:
    """Evaluate detectors and a memory bank (PatchCore-style nearest neighbor) of the fit images on the same images.

    Args:
        backbone: the frozen network; the evaluation runs on its device.
        data: data of the trials; its calibration images set the thresholds.
        trained: heads by name.
        test: the sealed test.
        fpr: fraction of good calibration images above the threshold.

    Returns: evaluations by name; that of the memory bank is named MEMORY_BANK.
    """
    size = test.images.shape[-1]
    device = backbone.mean.device
    targets = pixel_targets(test.masks) if test.masks is not None else None
    images = torch.from_numpy(test.images).to(device)
    # Features that exceed the limit for the trials are not stored here either.
    maps = store_features(backbone, images) if data.features.maps is not None else None
    labeled = LabeledFeatures(
        FeatureStore(images, maps, backbone),
        torch.from_numpy(test.defects).to(device),
        targets.to(device) if targets else None,
    )

    def evaluate_maps(maps_of: Callable[[FeatureStore], Tensor]) -> Evaluation:
        maps = maps_of(labeled.features)
        threshold = threshold_of(image_scores(maps_of(data.calibration)).cpu().numpy(), fpr)
        per_image = aupro_by_image(maps, labeled.targets).cpu().numpy() if labeled.targets else None
        scores = image_scores(maps).cpu().numpy()
        return Evaluation(metrics_of(maps, labeled, threshold), scores, per_image, threshold)

    evaluations = {}
    for name, part in trained.items():
        evaluations[name] = evaluate_maps(partial(score_features, part.load(backbone, device), size=size))
    bank = build_bank(data.features)
    of_bank = evaluate_maps(lambda features: score_bank(bank, features, size))
    on_validation = score_bank(bank, data.validation.features, size)
    validation = metrics_of(on_validation, data.validation, of_bank.threshold)
    return evaluations | {MEMORY_BANK: replace(of_bank, validation=validation)}
