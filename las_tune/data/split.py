"""Split a category into fit, calibration, validation and sealed test, by file names and the seed alone.

labelled   half of every test folder validates, the rest is the sealed test
synthetic  good images of train/good are held out, and defects are painted on them; the labeled half is watched
           only. Without enough labeled images the sealed test is painted as well, on other good images
paper      all labeled test images are both: published practice, for comparison with published tables
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from las_tune.config.study_spec import Protocol, Validation
from las_tune.data.category import GOOD, Category, ImageItem
from las_tune.errors import DataError

CALIBRATION_SHARE = 0.1
"""Of train/good, held back for the threshold, at least one image."""
SYNTHETIC_SHARE = 0.2
"""Of train/good, held out to be painted on."""
LEAST_SYNTHETIC = 4
"""One for each family of painted defects."""


@dataclass(frozen=True)
class Split:
    """Parts of one category, each sorted by key; disjoint, but for the paper's protocol."""

    fit: tuple[ImageItem, ...]
    """Good parts to train on."""
    calibration: tuple[ImageItem, ...]
    """Good parts held back from training; empty where train/good holds fewer than four."""
    validation: tuple[ImageItem, ...]
    """Images that the search may look at; good ones alone where it is synthetic."""
    sealed_test: tuple[ImageItem, ...]
    """Images that no trial ever sees."""
    labelled: tuple[ImageItem, ...] = ()
    """Labeled images beside a synthetic validation: scored in every epoch, never chosen by."""
    painted: tuple[str, ...] = ()
    """Parts that defects are painted on: each image stands for itself and for a defective copy."""

    def as_dict(self) -> dict[str, Any]:
        """Keys of each part, and `digest`, the SHA-256 of the sealed test's keys, for splits.json."""
        names = ["fit", "calibration", "validation", "sealed_test", *(["labelled"] if self.labelled else [])]
        parts: dict[str, Any] = {name: [image.key for image in getattr(self, name)] for name in names}
        parts["digest"] = _sha256("\n".join(sorted(parts["sealed_test"])))
        return parts | ({"painted": ", ".join(self.painted)} if self.painted else {})


def split_category(
    category: Category,
    seed: int,
    holdout: float = 0.5,
    validation: Validation = "labelled",
    protocol: Protocol = "sealed",
) -> Split:
    """Split a category.

    seed         decides which images go where
    holdout      share in (0, 1) of every test folder that goes to validation; the rest is the sealed test
    validation, protocol  see above
    Raises UserError for a share out of range, DataError where there are too few images.
    """
    _require_train(category, 2 if validation == "labelled" else 3 * LEAST_SYNTHETIC)
    train = seeded_order(category.train, seed)
    num_calibration = max(1, round(CALIBRATION_SHARE * len(train))) if len(train) >= 4 else 0
    held_back, rest = train[:num_calibration], train[num_calibration:]
    labelled, sealed = _split_test(category, seed, holdout)
    if validation == "synthetic":
        num = max(LEAST_SYNTHETIC, round(SYNTHETIC_SHARE * len(train)))
        painted, rest = rest[:num], rest[num:]
        if _has_both_kinds(labelled) and _has_both_kinds(sealed):
            return _sorted(rest, held_back, painted, sealed, labelled, ("validation",))
        return _sorted(rest[num:], held_back, painted, rest[:num], [], ("validation", "sealed_test"))
    if protocol == "paper":
        labelled = sealed = list(category.test)
    _require_both_kinds(category, labelled, sealed, holdout)
    return _sorted(rest, held_back, labelled, sealed)


def _sorted(
    fit: list[ImageItem],
    calibration: list[ImageItem],
    validation: list[ImageItem],
    sealed_test: list[ImageItem],
    labelled: Sequence[ImageItem] = (),
    painted: tuple[str, ...] = (),
) -> Split:
    """The parts, each sorted by key."""
    return Split(
        fit=_by_key(fit),
        calibration=_by_key(calibration),
        validation=_by_key(validation),
        sealed_test=_by_key(sealed_test),
        labelled=_by_key(labelled),
        painted=painted,
    )


def seeded_order(images: Iterable[ImageItem], seed: int) -> list[ImageItem]:
    """Images in an order that only their keys and the seed decide, on every machine and Python."""
    return sorted(images, key=lambda image: seeded_rank(image.key, seed))


def seeded_rank(key: str, seed: int) -> str:
    """What to sort by for an order that is arbitrary, but a function of key and seed."""
    return _sha256(f"{seed}:{key}")


def _split_test(category: Category, seed: int, holdout: float) -> tuple[list[ImageItem], list[ImageItem]]:
    """Validation and sealed test, folder by folder.

    The cut is rounded on the running total, not folder by folder: with one half, the extra images of odd
    folders go to either side in turn. Good comes first, so that the turns of the defects are their own.
    """
    validation: list[ImageItem] = []
    sealed_test: list[ImageItem] = []
    for defect in (GOOD, *category.defects):
        stratum = seeded_order((image for image in category.test if image.defect == defect), seed)
        num_seen = len(validation) + len(sealed_test) + len(stratum)
        cut = math.floor(holdout * num_seen + 0.5) - len(validation)
        validation += stratum[:cut]
        sealed_test += stratum[cut:]
    return validation, sealed_test


def _require_train(category: Category, least: int) -> None:
    if len(category.train) < least:
        raise DataError(
            f"train/good must hold at least {least} images" + (" for --validation synthetic" if least > 2 else ""),
            f"{len(category.train)} in {category.folder.absolute()}",
            "Add images of good parts",
        )


def _has_both_kinds(part: Iterable[ImageItem]) -> bool:
    """Whether there is a good and a defective image."""
    return {image.defect == GOOD for image in part} == {True, False}


def _require_both_kinds(
    category: Category, validation: list[ImageItem], sealed_test: list[ImageItem], holdout: float
) -> None:
    """DataError unless validation and sealed test each hold a good and a defective image."""
    if not (_has_both_kinds(validation) and _has_both_kinds(sealed_test)):
        num_good = sum(image.defect == GOOD for image in category.test)
        raise DataError(
            "Validation and sealed test each need a good and a defective image, so test needs 2 of each",
            f"{num_good} good and {len(category.test) - num_good} defective in {category.folder.absolute()} "
            f"with --holdout {holdout:g}",
            "Add labeled images to test/good and test/<defect>, move --holdout towards 0.5, "
            "or use --validation synthetic, which needs none",
        )


def _by_key(images: Iterable[ImageItem]) -> tuple[ImageItem, ...]:
    return tuple(sorted(images, key=attrgetter("key")))


def _sha256(text: str) -> str:
    # File names that are no UTF-8 reach Python as lone surrogates; they must hash as well.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
