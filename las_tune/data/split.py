"""Split a category into fit, calibration, validation and sealed test, from file names and a seed.

labelled   half of every test folder is used for validation, the rest is the sealed test
synthetic  validation images are good images of train/good with synthetic defects; the labeled validation half is
           monitored only. Without enough labeled images the sealed test is synthetic as well, on other good images
paper      all labeled test images are both validation and test, as in published results, for comparison with them
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from las_tune.config import Protocol, Validation
from las_tune.data.category import GOOD, Category, ImageItem
from las_tune.errors import DataError, require

CALIBRATION_SHARE = 0.1
"""Fraction of train/good held back for the threshold, at least one image."""
SYNTHETIC_SHARE = 0.2
"""Fraction of train/good held out for synthetic defects."""
MIN_SYNTHETIC = 4
"""One image for each family of synthetic defects."""


@dataclass(frozen=True)
class Split:
    """Parts of one category, each sorted by key. They are disjoint, except under the paper's protocol."""

    fit: tuple[ImageItem, ...]
    """Good images for training."""
    calibration: tuple[ImageItem, ...]
    """Good images held back from training; empty if train/good has fewer than four."""
    validation: tuple[ImageItem, ...]
    """Images for model selection. A synthetic validation lists its good images only."""
    sealed_test: tuple[ImageItem, ...]
    """Images that no trial uses."""
    labelled: tuple[ImageItem, ...] = ()
    """Labeled images in addition to a synthetic validation: scored every epoch, never used for model selection."""
    synthetic_parts: tuple[str, ...] = ()
    """Names of the parts with synthetic defects, where each image also has a defective copy."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content of splits.json: keys of each part, and the SHA-256 of the sealed test's keys."""
        names = ["fit", "calibration", "validation", "sealed_test", *(["labelled"] if self.labelled else [])]
        parts: dict[str, Any] = {name: [image.key for image in getattr(self, name)] for name in names}
        parts["digest"] = _sha256("\n".join(sorted(parts["sealed_test"])))
        return parts | ({"painted": ", ".join(self.synthetic_parts)} if self.synthetic_parts else {})


def split_category(
    category: Category,
    seed: int,
    holdout: float = 0.5,
    validation: Validation = "labelled",
    protocol: Protocol = "sealed",
) -> Split:
    """Split a category.

    Args:
        category: the index of the category.
        seed: random seed of the split.
        holdout: fraction of every test folder used for validation, in (0, 1); the rest is the sealed test.
        validation: labelled or synthetic, see the module's docstring.
        protocol: sealed or paper, see the module's docstring.

    Raises: DataError if there are too few images.
    """
    _require_train(category, 2 if validation == "labelled" else 3 * MIN_SYNTHETIC)
    train = seeded_order(category.train, seed)
    num_calibration = max(1, round(CALIBRATION_SHARE * len(train))) if len(train) >= 4 else 0
    held_back, rest = train[:num_calibration], train[num_calibration:]
    labelled, sealed = _split_test(category, seed, holdout)
    if validation == "synthetic":
        num = max(MIN_SYNTHETIC, round(SYNTHETIC_SHARE * len(train)))
        held_out, rest = rest[:num], rest[num:]
        if _has_both_classes(labelled) and _has_both_classes(sealed):
            return _sorted(rest, held_back, held_out, sealed, labelled, ("validation",))
        return _sorted(rest[num:], held_back, held_out, rest[:num], [], ("validation", "sealed_test"))
    if protocol == "paper":
        labelled = sealed = list(category.test)
    _require_both_classes(category, labelled, sealed, holdout)
    return _sorted(rest, held_back, labelled, sealed)


def _sorted(
    fit: list[ImageItem],
    calibration: list[ImageItem],
    validation: list[ImageItem],
    sealed_test: list[ImageItem],
    labelled: Sequence[ImageItem] = (),
    synthetic_parts: tuple[str, ...] = (),
) -> Split:
    """Return a split with each part sorted by key."""
    return Split(
        fit=_by_key(fit),
        calibration=_by_key(calibration),
        validation=_by_key(validation),
        sealed_test=_by_key(sealed_test),
        labelled=_by_key(labelled),
        synthetic_parts=synthetic_parts,
    )


def seeded_order(images: Iterable[ImageItem], seed: int) -> list[ImageItem]:
    """Return images in a random order that depends only on their keys and the seed, on every platform."""
    return sorted(images, key=lambda image: seeded_rank(image.key, seed))


def seeded_rank(key: str, seed: int) -> str:
    """Return a sort key for a random order that depends only on `key` and `seed`."""
    return _sha256(f"{seed}:{key}")


def _split_test(category: Category, seed: int, holdout: float) -> tuple[list[ImageItem], list[ImageItem]]:
    """Return validation and sealed test, stratified by folder.

    The cut is rounded on the running total, not per folder, so that with a holdout of one half the extra images of odd
    folders alternate between both sides. Good images come first, so that defect folders alternate among themselves.
    """
    validation: list[ImageItem] = []
    sealed_test: list[ImageItem] = []
    for defect in (GOOD, *category.defects):
        stratum = seeded_order((image for image in category.test if image.defect == defect), seed)
        num_total = len(validation) + len(sealed_test) + len(stratum)
        cut = math.floor(holdout * num_total + 0.5) - len(validation)
        validation += stratum[:cut]
        sealed_test += stratum[cut:]
    return validation, sealed_test


def _require_train(category: Category, minimum: int) -> None:
    num_images = len(category.train)
    require(
        num_images >= minimum,
        f"train/good needs at least {minimum} images{' for --validation synthetic' if minimum > 2 else ''}, "
        f"got {num_images} in {category.folder.absolute()}",
        remedy="Add images of good parts",
        error=DataError,
    )


def _has_both_classes(part: Iterable[ImageItem]) -> bool:
    """Return whether a part has both a good and a defective image."""
    return {image.defect == GOOD for image in part} == {True, False}


def _require_both_classes(
    category: Category, validation: list[ImageItem], sealed_test: list[ImageItem], holdout: float
) -> None:
    """Raise DataError unless validation and sealed test each have a good and a defective image."""
    num_good = sum(image.defect == GOOD for image in category.test)
    require(
        _has_both_classes(validation) and _has_both_classes(sealed_test),
        "Validation and sealed test each need a good and a defective image, so at least 2 of each, got "
        f"{num_good} good and {len(category.test) - num_good} defective test images in {category.folder.absolute()} "
        f"with --holdout {holdout:g}",
        remedy="Add labeled images to test/good and test/<defect>, move --holdout towards 0.5, "
        "or use --validation synthetic, which needs none",
        error=DataError,
    )


def _by_key(images: Iterable[ImageItem]) -> tuple[ImageItem, ...]:
    return tuple(sorted(images, key=attrgetter("key")))


def _sha256(text: str) -> str:
    # File names that are not valid UTF-8 contain lone surrogates in Python.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
