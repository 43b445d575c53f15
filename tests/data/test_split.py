from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from las_tune.data.category import Category, Picture
from las_tune.data.split import Split, split_category
from las_tune.errors import DataError, UserError


def made_up(train: int = 20, root: str = "/data/part", **test: int) -> Category:
    """A category of names alone; a split needs no files."""
    folder = Path(root)
    pictures = [
        Picture(folder / "test" / defect / f"{index:03}.png", defect)
        for defect, count in sorted(test.items())
        for index in range(count)
    ]
    good = tuple(Picture(folder / "train/good" / f"{index:03}.png", "good") for index in range(train))
    return Category("part", folder, good, tuple(pictures))


def counts(split: Split) -> tuple[int, int, int, int]:
    return len(split.fit), len(split.calibration), len(split.validation), len(split.sealed_test)


def test_sizes_of_real_metal_plate() -> None:
    assert counts(split_category(made_up(54, good=26, rust=53, scratches=18), seed=0)) == (49, 5, 49, 48)


@pytest.mark.parametrize("holdout", [0.2, 0.5, 0.7])
def test_parts_are_disjoint_and_complete(holdout: float) -> None:
    category = made_up(good=11, bent=7, rust=5, torn=1)
    split = split_category(category, seed=3, holdout=holdout)
    assert sorted(p.key for p in (*split.fit, *split.calibration)) == sorted(p.key for p in category.train)
    assert sorted(p.key for p in (*split.validation, *split.sealed_test)) == sorted(p.key for p in category.test)
    assert abs(len(split.validation) - holdout * len(category.test)) <= 0.5


def test_odd_folders_give_their_extra_picture_in_turn() -> None:
    split = split_category(made_up(good=4, a=3, b=1, c=5, d=1), seed=0)
    halves = {d: sum(p.defect == d for p in split.validation) for d in ("good", "a", "b", "c", "d")}
    assert halves == {"good": 2, "a": 2, "b": 0, "c": 3, "d": 0}


@pytest.mark.parametrize("seed", range(20))
def test_two_of_each_always_suffice_at_one_half(seed: int) -> None:
    for good in (2, 3):
        split = split_category(made_up(good=good, a=1, z=1), seed)
        for part in (split.validation, split.sealed_test):
            assert {picture.defect == "good" for picture in part} == {True, False}


def test_names_and_seed_alone_decide() -> None:
    here = split_category(made_up(good=10, rust=10), seed=1).as_dict()
    category = made_up(root="/elsewhere/part", good=10, rust=10)
    shuffled = Category(category.name, category.folder, category.train[::-1], category.test[::-1])
    assert split_category(shuffled, seed=1).as_dict() == here
    assert split_category(shuffled, seed=2).as_dict() != here


def test_split_by_hand() -> None:
    """The rule written out: order by SHA-256 of "seed:key", the first half is validation."""
    keys = [f"test/rust/{index:03}.png" for index in range(6)]
    ordered = sorted(keys, key=lambda key: hashlib.sha256(f"7:{key}".encode()).hexdigest())
    split = split_category(made_up(good=2, rust=6), seed=7)
    assert [p.key for p in split.validation if p.defect == "rust"] == sorted(ordered[:3])


def test_as_dict_holds_the_digest_of_the_sealed_test() -> None:
    split = split_category(made_up(good=4, rust=4), seed=0)
    parts = json.loads(json.dumps(split.as_dict()))
    assert list(parts) == ["fit", "calibration", "validation", "sealed_test", "digest"]
    assert parts["digest"] == hashlib.sha256("\n".join(sorted(parts["sealed_test"])).encode()).hexdigest()


def test_names_that_are_no_utf8_split_as_well() -> None:
    category = made_up(good=2, rust=2)
    odd = Picture(Path("/data/part/test/rust/\udcff.png"), "rust")
    split = split_category(Category("part", category.folder, category.train, (*category.test, odd)), seed=0)
    assert len(split.as_dict()["digest"]) == 64


@pytest.mark.parametrize(("train", "expected"), [(2, 0), (3, 0), (4, 1), (14, 1), (26, 3)])
def test_size_of_calibration(train: int, expected: int) -> None:
    split = split_category(made_up(train, good=2, rust=2), seed=0)
    assert counts(split)[:2] == (train - expected, expected)


def test_too_few_train_pictures() -> None:
    with pytest.raises(DataError) as error:
        split_category(made_up(1, good=2, rust=2), seed=0)
    assert str(error.value) == (
        "train/good must hold at least 2 pictures, got 1 in /data/part. Add pictures of good parts."
    )


@pytest.mark.parametrize("test", [{}, {"good": 5}, {"rust": 5}, {"good": 1, "rust": 5}, {"good": 5, "rust": 1}])
def test_too_few_test_pictures(test: dict[str, int]) -> None:
    with pytest.raises(DataError) as error:
        split_category(made_up(20, "/data/part", **test), seed=0)
    assert str(error.value) == (
        "Validation and sealed test each need a good and a defective picture, so test needs 2 of each, got "
        f"{test.get('good', 0)} good and {test.get('rust', 0)} defective in /data/part with --holdout 0.5. "
        "Add labelled pictures to test/good and test/<defect>, or move --holdout towards 0.5."
    )


def test_holdout_that_empties_a_side() -> None:
    with pytest.raises(DataError, match=r"3 good and 3 defective in /data/part with --holdout 0\.1\. Add"):
        split_category(made_up(good=3, rust=3), seed=0, holdout=0.1)


@pytest.mark.parametrize("holdout", [0.0, 1.0, -0.5, float("nan")])
def test_holdout_out_of_range(holdout: float) -> None:
    with pytest.raises(UserError) as error:
        split_category(made_up(good=4, rust=4), seed=0, holdout=holdout)
    assert str(error.value) == (
        f"--holdout must lie between 0 and 1, both excluded, got {holdout}. The usual value is 0.5."
    )
