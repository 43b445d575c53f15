"""The images of a trial, as arrays: what its hyperparameters paint, and what its detector says of which image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator

from las_tune.config.train_spec import TrainSpec
from las_tune.las.scoring import image_scores
from las_tune.las.synthesis import Synthesized, synthesize
from las_tune.las.training import EpochResult, TrainData
from las_tune.reporting.panel import FALSE_REJECT, FIXED, MISS, Array, Panel

NUM_PAINTED = 6
NUM_FIXED = 8
NUM_WORST = 3
PAINTING_SEED = 0
"""The same in every trial: what differs between their images is what their hyperparameters do."""


def paint(spec: TrainSpec, data: TrainData) -> Synthesized:
    """Defects on the first fit images, as this training paints them; the same draws in every trial."""
    generator = Generator(data.images.device).manual_seed(PAINTING_SEED)
    return synthesize(data.images[:NUM_PAINTED], data.foreground[:NUM_PAINTED], data.textures, spec, generator)


def make_panel(result: EpochResult, data: TrainData, painted: Synthesized, kinds: Sequence[str]) -> Panel:
    """The panel of an epoch: images that every trial shows, and those that this one gets most wrong.

    kinds: names of the kinds of defects, "good" first.
    """
    scores, defects = image_scores(result.heat).cpu().numpy(), data.validation.defects.cpu().numpy()
    fixed, missed, rejected = fixed_images(defects), *worst_images(scores, defects, result.threshold)
    index = np.concatenate([fixed, missed, rejected]).astype(np.int64)
    why = np.repeat([FIXED, MISS, FALSE_REJECT], [len(fixed), len(missed), len(rejected)])
    targets, size = data.validation.targets, result.heat.shape[-1]
    masks = [targets.mask(int(image), size).cpu().numpy() for image in index] if targets else []
    return Panel(
        painted=(painted.images * 255).round().byte().cpu().numpy(),
        painted_masks=painted.masks[:, 0].cpu().numpy(),
        beta=painted.beta.cpu().numpy(),
        scores=scores,
        defects=defects,
        kinds=np.array(kinds),
        normal_scores=result.normal_scores.cpu().numpy(),
        threshold=np.array(result.threshold),
        epoch=np.array(result.epoch),
        index=index,
        why=why,
        images=data.validation.features.images[index].cpu().numpy(),
        masks=np.stack(masks) if masks else np.zeros((0, size, size), np.bool_),
        heat=(result.heat[torch.from_numpy(index)] * 255).round().byte().cpu().numpy(),
    )


def fixed_images(defects: Array, most: int = NUM_FIXED) -> Array:
    """Which images every trial shows: one of each kind in turn, good ones first. defects (N,) int -> (K,) int."""
    kinds = [np.flatnonzero(defects == kind) for kind in np.unique(defects)]
    turns = [images[turn] for turn in range(most) for images in kinds if turn < len(images)]
    return np.sort(np.array(turns[:most], np.int64))


def worst_images(scores: Array, defects: Array, threshold: float, most: int = NUM_WORST) -> tuple[Array, Array]:
    """Defective images furthest below the threshold, and good ones furthest above it, the worst first."""
    missed = np.flatnonzero((defects > 0) & (scores <= threshold))
    rejected = np.flatnonzero((defects == 0) & (scores > threshold))
    return (
        missed[np.argsort(scores[missed], kind="stable")][:most],
        rejected[np.argsort(-scores[rejected], kind="stable")][:most],
    )
