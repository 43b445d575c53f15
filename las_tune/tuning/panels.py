"""The pictures of a trial, as arrays: what its hyperparameters paint, and what its detector says of which picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator

from las_tune.las.scoring import picture_scores
from las_tune.las.synthesis import Synthesised, synthesise
from las_tune.las.train import EpochResult, TrainData
from las_tune.spec import TrainSpec
from las_tune.tracking.panel import FALSE_REJECT, FIXED, MISS, Array, Panel

NUM_PAINTED = 6
NUM_FIXED = 8
NUM_WORST = 3
PAINTING_SEED = 0
"""The same in every trial: what differs between their pictures is what their hyperparameters do."""


def paint(spec: TrainSpec, data: TrainData) -> Synthesised:
    """Defects on the first fit pictures, as this training paints them; the same draws in every trial."""
    generator = Generator(data.pictures.device).manual_seed(PAINTING_SEED)
    return synthesise(data.pictures[:NUM_PAINTED], data.foreground[:NUM_PAINTED], data.textures, spec, generator)


def make_panel(result: EpochResult, data: TrainData, painted: Synthesised, kinds: Sequence[str]) -> Panel:
    """The panel of an epoch: pictures that every trial shows, and those that this one gets most wrong.

    kinds: names of the kinds of defects, "good" first.
    """
    scores, defects = picture_scores(result.heat).cpu().numpy(), data.validation.defects.cpu().numpy()
    fixed, missed, rejected = fixed_pictures(defects), *worst_pictures(scores, defects, result.threshold)
    index = np.concatenate([fixed, missed, rejected]).astype(np.int64)
    why = np.repeat([FIXED, MISS, FALSE_REJECT], [len(fixed), len(missed), len(rejected)])
    targets, size = data.validation.targets, result.heat.shape[-1]
    masks = [targets.mask(int(picture), size).cpu().numpy() for picture in index] if targets else []
    return Panel(
        painted=(painted.pictures * 255).round().byte().cpu().numpy(),
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
        pictures=data.validation.features.pictures[index].cpu().numpy(),
        masks=np.stack(masks) if masks else np.zeros((0, size, size), np.bool_),
        heat=(result.heat[torch.from_numpy(index)] * 255).round().byte().cpu().numpy(),
    )


def fixed_pictures(defects: Array, most: int = NUM_FIXED) -> Array:
    """Which pictures every trial shows: one of each kind in turn, good ones first. defects (N,) int -> (K,) int."""
    kinds = [np.flatnonzero(defects == kind) for kind in np.unique(defects)]
    turns = [pictures[turn] for turn in range(most) for pictures in kinds if turn < len(pictures)]
    return np.sort(np.array(turns[:most], np.int64))


def worst_pictures(scores: Array, defects: Array, threshold: float, most: int = NUM_WORST) -> tuple[Array, Array]:
    """Defective pictures furthest below the threshold, and good ones furthest above it, the worst first."""
    missed = np.flatnonzero((defects > 0) & (scores <= threshold))
    rejected = np.flatnonzero((defects == 0) & (scores > threshold))
    return (
        missed[np.argsort(scores[missed], kind="stable")][:most],
        rejected[np.argsort(-scores[rejected], kind="stable")][:most],
    )
