"""The images of a study, decoded once on the driver: the images of the trials, and the sealed test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from las_tune.config import PIXEL_OBJECTIVES, Progress, StudySpec, TrainSpec
from las_tune.data.category import GOOD, Category, ImageItem, index_category
from las_tune.data.images import DecodedImages, decode_images, decode_masks
from las_tune.data.split import Split, split_category
from las_tune.data.synthetic_defects import FAMILIES, make_synthetic_defects
from las_tune.data.textures import Textures, load_textures
from las_tune.errors import DataError, UserError, require
from las_tune.las import otsu_foreground

Array = NDArray[Any]


@dataclass(frozen=True)
class LabeledImages:
    """Decoded images with labels.

    images   (N, 3, S, S) uint8 RGB
    defects  (N,) int64, 0 = good, k = the k-th defect type
    masks    (N, S, S) bool, 1 = defective pixel; None if masks are missing
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
    """All images that trials use, before features are computed. The sealed test is not included.

    fit           (N, 3, S, S) uint8 RGB good images for training
    calibration   (C, 3, S, S) uint8 RGB good images that set the threshold; the fit images in very small categories
    validation    images used to select epochs, trials and finalists
    textures      (M, 3, S, S) uint8 RGB
    monitored     labeled images by name, scored every epoch and never used for model selection
    defect_types  defect types of the validation images, "good" first
    """

    fit: Array
    calibration: Array
    validation: LabeledImages
    textures: Array
    monitored: dict[str, LabeledImages] = field(default_factory=dict)
    defect_types: tuple[str, ...] = (GOOD,)


@dataclass(frozen=True)
class StudyImages:
    """All images of a study, on the driver. Before promotion only the images of the trials leave the driver."""

    split: Split
    trials: TrialImages
    sealed_test: LabeledImages
    skipped: tuple[str, ...]
    """One line per broken file that was left out."""
    test_name: str
    """Display name: sealed test, synthetic test (no labeled images), or whole test (used for model selection)."""
    masks_missing: int
    """Number of defective images without a mask. If it is not 0, pixel metrics are left out."""


def load_images(spec: StudySpec, progress: Progress | None = None) -> StudyImages:
    """Index, split and decode a category and its textures.

    Raises: UserError or DataError if there are too few images, or if a file is broken.
    """
    seed = spec.train.seed
    category = index_category(spec.data_root, spec.category)
    split = split_category(category, seed, spec.holdout, validation=spec.validation, protocol=spec.protocol)
    loader = _Loader(spec, category, split, progress)
    good = loader.decode("good", (*split.fit, *split.calibration))  # fit images first
    num_fit = len(set(split.fit) & set(good.kept))
    require(
        num_fit, f"All {len(split.fit)} images for training are broken", remedy="Replace the files", error=DataError
    )
    validation = loader.labeled("validation", seed)
    monitored = {"labelled": loader.labeled("labelled", seed)} if split.labelled else {}
    sealed = validation if spec.protocol == "paper" else loader.labeled("sealed_test", seed + 1)
    textures = loader.textures()
    if spec.leakage_gap:
        monitored |= {"sealed": sealed, "whole": _concatenated(validation, sealed)}
    has_synthetic = "validation" in split.synthetic_parts
    trials = TrialImages(
        fit=good.images[:num_fit],
        calibration=good.images[num_fit:] if len(good.images) > num_fit else good.images,
        validation=validation,
        textures=textures.images,
        monitored=monitored,
        defect_types=(GOOD, *(FAMILIES if has_synthetic else category.defects)),
    )
    return StudyImages(
        split=split,
        trials=trials,
        sealed_test=sealed,
        skipped=tuple(loader.skipped),
        test_name=_test_name(spec, split),
        masks_missing=0 if "sealed_test" in split.synthetic_parts else category.masks_missing,
    )


@dataclass
class _Loader:
    """Decodes the parts of a split and collects the skipped files."""

    spec: StudySpec
    category: Category
    split: Split
    progress: Progress | None
    skipped: list[str] = field(default_factory=list)

    def decode(self, what: str, images: Sequence[ImageItem]) -> DecodedImages:
        """Decode images; `what` is their description for `progress`."""
        decoded = decode_images(
            images, self.spec.train.image_size, self.spec.skip_broken, self.progress, f"reading {what} images"
        )
        self.skipped.extend(decoded.skipped)
        return decoded

    def labeled(self, part: str, seed: int) -> LabeledImages:
        """Decode a part of the split. `seed` is the random seed of its synthetic defects, if it has any."""
        decoded = self.decode(part.replace("_", " "), getattr(self.split, part))
        if part in self.split.synthetic_parts:
            return _with_synthetic_defects(decoded.images, seed)
        return _labeled(decoded, self.spec.train.image_size, self.category)

    def textures(self) -> Textures:
        """Decode the textures."""
        train = self.spec.train
        textures = load_textures(
            self.spec.textures, train.image_size, train.seed, skip_broken=self.spec.skip_broken, progress=self.progress
        )
        self.skipped.extend(textures.skipped)
        return textures


def _test_name(spec: StudySpec, split: Split) -> str:
    if spec.is_test_selected:
        return "whole test"
    return "synthetic test" if "sealed_test" in split.synthetic_parts else "sealed test"


def _labeled(decoded: DecodedImages, size: int, category: Category) -> LabeledImages:
    defect_types = (GOOD, *category.defects)
    defects = np.array([defect_types.index(image.defect) for image in decoded.kept], np.int64)
    num_good, num_defective = int((defects == 0).sum()), int((defects > 0).sum())
    require(
        num_good and num_defective,
        f"Validation and sealed test each need a good and a defective image, got {num_good} good and {num_defective} "
        "defective after broken files were left out",
        remedy="Replace the broken files",
    )
    return LabeledImages(decoded.images, defects, decode_masks(decoded.kept, size) if category.has_masks else None)


def _with_synthetic_defects(good: Array, seed: int) -> LabeledImages:
    """Return good images and a defective copy of each, whose defect type is the family of its synthetic defect."""
    synthetic = make_synthetic_defects(good, foreground_of(good), seed)
    families = np.array([FAMILIES.index(family) + 1 for family in synthetic.families], np.int64)
    masks = np.concatenate([np.zeros_like(synthetic.masks), synthetic.masks])
    images = np.concatenate([good, synthetic.images])
    return LabeledImages(images, np.concatenate([np.zeros_like(families), families]), masks)


def _concatenated(first: LabeledImages, second: LabeledImages) -> LabeledImages:
    has_masks = first.masks is not None and second.masks is not None
    return LabeledImages(
        np.concatenate([first.images, second.images]),
        np.concatenate([first.defects, second.defects]),
        np.concatenate([first.masks, second.masks]) if has_masks else None,
    )


def resolve_objective(spec: TrainSpec, images: StudyImages) -> TrainSpec:
    """Return the spec with the objective `auto` resolved: combined if all images have masks, else image_auroc.

    Raises: UserError if the objective needs masks that are missing.
    """
    parts = (images.trials.validation, images.sealed_test, *images.trials.monitored.values())
    has_masks = all(part.masks is not None for part in parts)
    if spec.objective == "auto":
        return spec.replace(objective="combined" if has_masks else "image_auroc")
    if spec.objective in PIXEL_OBJECTIVES and not has_masks:
        raise UserError(
            f"--objective {spec.objective} needs a mask for every defective image, and some have none",
            remedy="Use --objective image_auroc, or add the masks (`python -m las_tune data check` lists them)",
        )
    return spec


def foreground_of(images: Array) -> Array:
    """Return the Otsu foreground (N, 1, S, S) bool of images (N, 3, S, S) uint8; 1 = part."""
    batches = torch.split(torch.from_numpy(images), 16)
    return torch.cat([otsu_foreground(batch) for batch in batches]).numpy()
