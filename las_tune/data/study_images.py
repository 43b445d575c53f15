"""The images of a study, decoded once on the driver: what trials may see, and the sealed test beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from las_tune.config.objectives import NEED_MASKS
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.data.category import GOOD, Category, index_category
from las_tune.data.images import Decoded, decode_images, decode_masks
from las_tune.data.split import Split, split_category
from las_tune.data.synthetic_defects import FAMILIES, make_anomalies
from las_tune.data.textures import Textures, load_textures
from las_tune.errors import DataError, UserError
from las_tune.las.masks import otsu_foreground

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total)."""
Array = NDArray[Any]


@dataclass(frozen=True)
class LabeledImages:
    """Decoded images with labels.

    images  (N, 3, S, S) uint8 RGB
    defects   (N,) int64, 0 = good, k = the k-th kind of defect
    masks     (N, S, S) bool, 1 = defective pixel; None where masks are missing
    """

    images: Array
    defects: Array
    masks: Array | None

    @property
    def labels(self) -> Array:
        """(N,) bool, 1 = defective."""
        return self.defects > 0


@dataclass(frozen=True)
class TrialImages:
    """All that trials may see, before features are computed. The sealed test is not here.

    fit          (N, 3, S, S) uint8 RGB good images to train on
    calibration  good images that set the threshold; those of fit where a category is too small to have any
    validation   what epochs, trials and finalists are chosen by
    textures     (M, 3, S, S) uint8 RGB
    watched      what is scored in every epoch and never chosen by, by name
    kinds        names of the kinds of defects in validation, "good" first
    """

    fit: Array
    calibration: Array
    validation: LabeledImages
    textures: Array
    watched: dict[str, LabeledImages] = field(default_factory=dict)
    kinds: tuple[str, ...] = (GOOD,)


@dataclass(frozen=True)
class StudyImages:
    """All images of a study, on the driver. Only those of trials ever leave it before promotion."""

    split: Split
    trials: TrialImages
    sealed_test: LabeledImages
    skipped: tuple[str, ...]
    """One line for each broken file that was left out."""
    test_name: str
    """sealed test; painted test where no labeled images are there; whole test where it is what selects, too."""
    masks_missing: int
    """Defective images without a mask; above 0, pixel metrics are left out."""


def load_images(spec: StudySpec, progress: Progress | None = None) -> StudyImages:
    """Index, split and decode a category and its textures. Raises DataError with one line for what is wrong."""
    size, seed = spec.train.image_size, spec.train.seed

    def report(what: str) -> Callable[[int, int], None] | None:
        return partial(progress, what) if progress else None

    category = index_category(spec.data_root, spec.category)
    split = split_category(category, seed, spec.holdout, validation=spec.validation, protocol=spec.protocol)
    skipped: list[str] = []

    def decode(what: str, images: Any) -> Decoded:
        decoded = decode_images(images, size, spec.skip_broken, report(f"reading {what} images"))
        skipped.extend(decoded.skipped)
        return decoded

    def labelled(part: str, images: Any, painting_seed: int) -> LabeledImages:
        decoded = decode(part.replace("_", " "), images)
        if part in split.painted:
            return _painted(decoded.images, painting_seed)
        return _labelled(decoded, size, category)

    good = decode("good", (*split.fit, *split.calibration))  # in this order
    num_fit = len(set(split.fit) & set(good.kept))
    if not num_fit:
        raise DataError("At least one fit image must be readable", f"{len(split.fit)} broken ones", "replace the files")
    validation = labelled("validation", split.validation, seed)
    watched = {"labelled": labelled("labelled", split.labelled, seed)} if split.labelled else {}
    sealed = validation if spec.protocol == "paper" else labelled("sealed_test", split.sealed_test, seed + 1)
    textures: Textures = load_textures(
        spec.textures, size, seed, skip_broken=spec.skip_broken, progress=report("reading textures")
    )
    skipped.extend(textures.skipped)
    if spec.leakage_gap:
        watched |= {"sealed": sealed, "whole": _together(validation, sealed)}
    kinds = (GOOD, *(FAMILIES if "validation" in split.painted else category.defects))
    calibration = good.images[num_fit:] if len(good.images) > num_fit else good.images
    return StudyImages(
        split=split,
        trials=TrialImages(good.images[:num_fit], calibration, validation, textures.images, watched, kinds),
        sealed_test=sealed,
        skipped=tuple(skipped),
        test_name=_test_name(spec, split),
        masks_missing=0 if "sealed_test" in split.painted else category.masks_missing,
    )


def _test_name(spec: StudySpec, split: Split) -> str:
    if spec.is_test_selected:
        return "whole test"
    return "painted test" if "sealed_test" in split.painted else "sealed test"


def _labelled(decoded: Decoded, size: int, category: Category) -> LabeledImages:
    kinds = (GOOD, *category.defects)
    defects = np.array([kinds.index(image.defect) for image in decoded.kept], np.int64)
    if (defects > 0).all() or not defects.any():
        raise UserError(
            "Validation and sealed test each need a good and a defective image",
            f"{int((defects == 0).sum())} good and {int((defects > 0).sum())} defective after broken files "
            "were left out",
            "repair the broken files",
        )
    return LabeledImages(decoded.images, defects, decode_masks(decoded.kept, size) if category.has_masks else None)


def _painted(good: Array, seed: int) -> LabeledImages:
    """Good images, and one defective copy of each; its kind is the family that was painted."""
    if not len(good):
        raise DataError("At least one image to paint on must be readable", "broken ones alone", "replace the files")
    painted = make_anomalies(good, foreground_of(good), seed)
    families = np.array([FAMILIES.index(family) + 1 for family in painted.families], np.int64)
    masks = np.concatenate([np.zeros_like(painted.masks), painted.masks])
    images = np.concatenate([good, painted.images])
    return LabeledImages(images, np.concatenate([np.zeros_like(families), families]), masks)


def _together(one: LabeledImages, other: LabeledImages) -> LabeledImages:
    masks = np.concatenate([one.masks, other.masks]) if one.masks is not None and other.masks is not None else None
    return LabeledImages(
        np.concatenate([one.images, other.images]), np.concatenate([one.defects, other.defects]), masks
    )


def resolve_objective(spec: TrainSpec, images: StudyImages) -> TrainSpec:
    """Settle auto (combined with masks, image_auroc without); an objective that masks are missing for is an error."""
    parts = (images.trials.validation, images.sealed_test, *images.trials.watched.values())
    has_masks = all(part.masks is not None for part in parts)
    if spec.objective == "auto":
        return spec.replace(objective="combined" if has_masks else "image_auroc")
    if spec.objective in NEED_MASKS and not has_masks:
        raise UserError(
            f"--objective {' and '.join(NEED_MASKS)} need a mask for every defective image",
            f"{spec.objective} with masks missing",
            "use --objective image_auroc, or add the masks (python -m las_tune data check names them)",
        )
    return spec


def foreground_of(images: Array) -> Array:
    """Otsu foreground of (N, 3, S, S) uint8 images: (N, 1, S, S) bool."""
    batches = torch.split(torch.from_numpy(images), 16)
    return torch.cat([otsu_foreground(batch) for batch in batches]).numpy()
