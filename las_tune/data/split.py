"""Split a category into fit, calibration, validation and sealed test, by file names and the seed alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from las_tune.data.category import GOOD, Category, Picture
from las_tune.errors import DataError, UserError


@dataclass(frozen=True)
class Split:
    """Four disjoint parts of one category, each sorted by key."""

    fit: tuple[Picture, ...]
    """Good parts to train on."""
    calibration: tuple[Picture, ...]
    """Good parts held back from training; empty where train/good holds fewer than four."""
    validation: tuple[Picture, ...]
    """Labelled pictures that the search may look at."""
    sealed_test: tuple[Picture, ...]
    """Labelled pictures that no trial ever sees."""

    def as_dict(self) -> dict[str, Any]:
        """Keys of each part, and `digest`, the SHA-256 of the sealed test's keys, for splits.json."""
        parts = {name: [picture.key for picture in getattr(self, name)] for name in self.__dataclass_fields__}
        return {**parts, "digest": _sha256("\n".join(sorted(parts["sealed_test"])))}


def split_category(category: Category, seed: int, holdout: float = 0.5, calibration: float = 0.1) -> Split:
    """Split a category.

    seed         decides which pictures go where
    holdout      share in (0, 1) of every test folder that goes to validation; the rest is the sealed test
    calibration  share in (0, 1) of train/good that is held back, at least one picture
    Raises UserError for a share out of range, DataError where there are too few pictures.
    """
    if not 0 < holdout < 1:
        raise UserError("--holdout must lie between 0 and 1, both excluded", holdout, "The usual value is 0.5")
    assert 0 < calibration < 1
    num_train = len(category.train)
    if num_train < 2:
        raise DataError(
            "train/good must hold at least 2 pictures",
            f"{num_train} in {category.folder.absolute()}",
            "Add pictures of good parts",
        )
    num_calibration = max(1, round(calibration * num_train)) if num_train >= 4 else 0
    train = seeded_order(category.train, seed)
    validation, sealed_test = _split_test(category, seed, holdout)
    split = Split(
        fit=_by_key(train[num_calibration:]),
        calibration=_by_key(train[:num_calibration]),
        validation=_by_key(validation),
        sealed_test=_by_key(sealed_test),
    )
    _require_both_kinds(category, split, holdout)
    return split


def seeded_order(pictures: Iterable[Picture], seed: int) -> list[Picture]:
    """Pictures in an order that only their keys and the seed decide, on every machine and Python."""
    return sorted(pictures, key=lambda picture: seeded_rank(picture.key, seed))


def seeded_rank(key: str, seed: int) -> str:
    """What to sort by for an order that is arbitrary, but a function of key and seed."""
    return _sha256(f"{seed}:{key}")


def _split_test(category: Category, seed: int, holdout: float) -> tuple[list[Picture], list[Picture]]:
    """Validation and sealed test, folder by folder.

    The cut is rounded on the running total, not folder by folder: with one half, the extra pictures of odd
    folders go to either side in turn. Good comes first, so that the turns of the defects are their own.
    """
    validation: list[Picture] = []
    sealed_test: list[Picture] = []
    for defect in (GOOD, *category.defects):
        stratum = seeded_order((picture for picture in category.test if picture.defect == defect), seed)
        num_seen = len(validation) + len(sealed_test) + len(stratum)
        cut = math.floor(holdout * num_seen + 0.5) - len(validation)
        validation += stratum[:cut]
        sealed_test += stratum[cut:]
    return validation, sealed_test


def _require_both_kinds(category: Category, split: Split, holdout: float) -> None:
    """DataError unless validation and sealed test each hold a good and a defective picture."""
    kinds = [{picture.defect == GOOD for picture in part} for part in (split.validation, split.sealed_test)]
    if any(len(kind) < 2 for kind in kinds):
        num_good = sum(picture.defect == GOOD for picture in category.test)
        raise DataError(
            "Validation and sealed test each need a good and a defective picture, so test needs 2 of each",
            f"{num_good} good and {len(category.test) - num_good} defective in {category.folder.absolute()} "
            f"with --holdout {holdout:g}",
            "Add labelled pictures to test/good and test/<defect>, or move --holdout towards 0.5",
        )


def _by_key(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
    return tuple(sorted(pictures, key=attrgetter("key")))


def _sha256(text: str) -> str:
    # File names that are no UTF-8 reach Python as lone surrogates; they must hash as well.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
