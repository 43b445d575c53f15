"""Builds the image panel of a trial: synthetic defects of its hyperparameters, and scored validation images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator

from las_tune.config import TrainSpec
from las_tune.las import EpochResult, Synthesized, TrainData, image_scores, synthesize
from las_tune.reporting.panel import FALSE_REJECT, FIXED, MISS, Array, Panel

NUM_SYNTHETIC = 6
NUM_FIXED = 8
NUM_WORST = 3
SYNTHESIS_SEED = 0
"""The same in every trial, so that synthetic examples of two trials differ by the hyperparameters alone."""


def synthesize_examples(spec: TrainSpec, data: TrainData) -> Synthesized:
    """Synthesize defects on the first fit images with the hyperparameters of a trial and a fixed seed."""
    generator = Generator(data.images.device).manual_seed(SYNTHESIS_SEED)
    return synthesize(data.images[:NUM_SYNTHETIC], data.foreground[:NUM_SYNTHETIC], data.textures, spec, generator)


def make_panel(result: EpochResult, data: TrainData, examples: Synthesized, defect_types: Sequence[str]) -> Panel:
    """Build the panel of an epoch.

    Args:
        result: the epoch.
        data: its images.
        examples: synthetic defects, from `synthesize_examples`.
        defect_types: names of the defect types in the validation images, "good" first.

    Returns: the images that every trial shows, and the worst misses and false rejects of this one.
    """
    scores, defects = image_scores(result.anomaly_maps).cpu().numpy(), data.validation.defects.cpu().numpy()
    fixed, missed, rejected = fixed_images(defects), *worst_images(scores, defects, result.threshold)
    index = np.concatenate([fixed, missed, rejected]).astype(np.int64)
    reasons = np.repeat([FIXED, MISS, FALSE_REJECT], [len(fixed), len(missed), len(rejected)])
    targets, size = data.validation.targets, result.anomaly_maps.shape[-1]
    masks = [targets.mask(int(image), size).cpu().numpy() for image in index] if targets else []
    return Panel(
        synthetic=(examples.images * 255).round().byte().cpu().numpy(),
        synthetic_masks=examples.masks[:, 0].cpu().numpy(),
        beta=examples.beta.cpu().numpy(),
        scores=scores,
        defects=defects,
        defect_types=np.array(defect_types),
        normal_scores=result.normal_scores.cpu().numpy(),
        threshold=np.array(result.threshold),
        epoch=np.array(result.epoch),
        index=index,
        reasons=reasons,
        images=data.validation.features.images[index].cpu().numpy(),
        masks=np.stack(masks) if masks else np.zeros((0, size, size), np.bool_),
        anomaly_maps=(result.anomaly_maps[torch.from_numpy(index)] * 255).round().byte().cpu().numpy(),
    )


def fixed_images(defects: Array, max_images: int = NUM_FIXED) -> Array:
    """Select the images that every trial shows: one of each defect type in turn, good ones first.

    Args:
        defects: (N,) int, defect type of each image; 0 = good.
        max_images: maximum number of images.

    Returns: (K,) int, sorted indices.
    """
    by_type = [np.flatnonzero(defects == defect_type) for defect_type in np.unique(defects)]
    turns = [images[turn] for turn in range(max_images) for images in by_type if turn < len(images)]
    return np.sort(np.array(turns[:max_images], np.int64))


def worst_images(scores: Array, defects: Array, threshold: float, max_images: int = NUM_WORST) -> tuple[Array, Array]:
    """Return the indices of defective images furthest below the threshold and of good ones furthest above it."""
    missed = np.flatnonzero((defects > 0) & (scores <= threshold))
    rejected = np.flatnonzero((defects == 0) & (scores > threshold))
    return (
        missed[np.argsort(scores[missed], kind="stable")][:max_images],
        rejected[np.argsort(-scores[rejected], kind="stable")][:max_images],
    )
