from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from las_tune.data.category import Category, ImageItem
from las_tune.data.split import Split, split_category
from las_tune.errors import DataError


def make_index(train: int = 20, root: str = "/data/part", **test: int) -> Category:
    """Return a category without files; a split only uses their names."""
    folder = Path(root)
    images = [
        ImageItem(folder / "test" / defect / f"{index:03}.png", defect)
        for defect, count in sorted(test.items())
        for index in range(count)
    ]
    good = tuple(ImageItem(folder / "train/good" / f"{index:03}.png", "good") for index in range(train))
    return Category("part", folder, good, tuple(images))


def counts(split: Split) -> tuple[int, int, int, int]:
    return len(split.fit), len(split.calibration), len(split.validation), len(split.sealed_test)


def test_split_of_metal_plate_has_the_expected_sizes() -> None:
    assert counts(split_category(make_index(54, good=26, rust=53, scratches=18), seed=0)) == (49, 5, 49, 48)


@pytest.mark.parametrize("holdout", [0.2, 0.5, 0.7])
def test_parts_are_disjoint_and_complete(holdout: float) -> None:
    category = make_index(good=11, bent=7, rust=5, torn=1)
    split = split_category(category, seed=3, holdout=holdout)
    assert sorted(p.key for p in (*split.fit, *split.calibration)) == sorted(p.key for p in category.train)
    assert sorted(p.key for p in (*split.validation, *split.sealed_test)) == sorted(p.key for p in category.test)
    assert abs(len(split.validation) - holdout * len(category.test)) <= 0.5


def test_extra_images_of_odd_folders_alternate() -> None:
    split = split_category(make_index(good=4, a=3, b=1, c=5, d=1), seed=0)
    halves = {d: sum(p.defect == d for p in split.validation) for d in ("good", "a", "b", "c", "d")}
    assert halves == {"good": 2, "a": 2, "b": 0, "c": 3, "d": 0}


@pytest.mark.parametrize("seed", range(20))
def test_two_images_of_each_class_suffice_at_one_half(seed: int) -> None:
    for good in (2, 3):
        split = split_category(make_index(good=good, a=1, z=1), seed)
        for part in (split.validation, split.sealed_test):
            assert {image.defect == "good" for image in part} == {True, False}


def test_split_depends_on_names_and_seed_alone() -> None:
    here = split_category(make_index(good=10, rust=10), seed=1).as_dict()
    category = make_index(root="/elsewhere/part", good=10, rust=10)
    shuffled = Category(category.name, category.folder, category.train[::-1], category.test[::-1])
    assert split_category(shuffled, seed=1).as_dict() == here
    assert split_category(shuffled, seed=2).as_dict() != here


def test_split_orders_images_by_their_hash() -> None:
    """Images are ordered by the SHA-256 of "seed:key"; the first half is validation."""
    keys = [f"test/rust/{index:03}.png" for index in range(6)]
    ordered = sorted(keys, key=lambda key: hashlib.sha256(f"7:{key}".encode()).hexdigest())
    split = split_category(make_index(good=2, rust=6), seed=7)
    assert [p.key for p in split.validation if p.defect == "rust"] == sorted(ordered[:3])


def test_as_dict_contains_the_digest_of_the_sealed_test() -> None:
    split = split_category(make_index(good=4, rust=4), seed=0)
    parts = json.loads(json.dumps(split.as_dict()))
    assert list(parts) == ["fit", "calibration", "validation", "sealed_test", "digest"]
    assert parts["digest"] == hashlib.sha256("\n".join(sorted(parts["sealed_test"])).encode()).hexdigest()


def test_names_that_are_not_utf8_can_be_split() -> None:
    category = make_index(good=2, rust=2)
    odd = ImageItem(Path("/data/part/test/rust/\udcff.png"), "rust")
    split = split_category(Category("part", category.folder, category.train, (*category.test, odd)), seed=0)
    assert len(split.as_dict()["digest"]) == 64


@pytest.mark.parametrize(("train", "expected"), [(2, 0), (3, 0), (4, 1), (14, 1), (26, 3)])
def test_calibration_has_the_expected_size(train: int, expected: int) -> None:
    split = split_category(make_index(train, good=2, rust=2), seed=0)
    assert counts(split)[:2] == (train - expected, expected)


def test_too_few_train_images_are_an_error() -> None:
    with pytest.raises(DataError) as error:
        split_category(make_index(1, good=2, rust=2), seed=0)
    assert str(error.value) == ("train/good needs at least 2 images, got 1 in /data/part. Add images of good parts.")


@pytest.mark.parametrize("test", [{}, {"good": 5}, {"rust": 5}, {"good": 1, "rust": 5}, {"good": 5, "rust": 1}])
def test_too_few_test_images_are_an_error(test: dict[str, int]) -> None:
    with pytest.raises(DataError) as error:
        split_category(make_index(20, "/data/part", **test), seed=0)
    assert str(error.value) == (
        "Validation and sealed test each need a good and a defective image, so at least 2 of each, got "
        f"{test.get('good', 0)} good and {test.get('rust', 0)} defective test images in /data/part "
        "with --holdout 0.5. "
        "Add labeled images to test/good and test/<defect>, move --holdout towards 0.5, "
        "or use --validation synthetic, which needs none."
    )


def test_holdout_that_empties_a_part_is_an_error() -> None:
    with pytest.raises(DataError, match=r"3 good and 3 defective test images in /data/part with --holdout 0\.1\. Add"):
        split_category(make_index(good=3, rust=3), seed=0, holdout=0.1)


# --- synthetic validation ---


def keys(images: Iterable[ImageItem]) -> set[str]:
    return {image.key for image in images}


@pytest.mark.parametrize("seed", range(5))
def test_synthetic_validation_keeps_the_sealed_test(seed: int) -> None:
    category = make_index(40, good=11, bent=7, rust=5)
    usual, synthetic = (split_category(category, seed, validation=name) for name in ("labelled", "synthetic"))  # type: ignore[arg-type]
    assert synthetic.sealed_test == usual.sealed_test
    assert synthetic.labelled == usual.validation and not usual.labelled
    assert synthetic.calibration == usual.calibration
    assert synthetic.as_dict()["digest"] == usual.as_dict()["digest"]
    assert (synthetic.synthetic_parts, usual.synthetic_parts) == (("validation",), ())
    assert set(synthetic.fit) | set(synthetic.validation) == set(usual.fit)
    assert keys(synthetic.fit) | keys(synthetic.validation) | keys(synthetic.calibration) == keys(category.train)
    assert counts(synthetic)[:3] == (28, 4, 8) and not set(synthetic.fit) & set(synthetic.validation)


@pytest.mark.parametrize(
    "test", [{}, {"good": 9}, {"rust": 9}, {"good": 1, "rust": 9}, {"good": 9, "rust": 1}], ids=str
)
def test_without_enough_labeled_images_validation_and_test_are_synthetic(test: dict[str, int]) -> None:
    category = make_index(40, **test)
    split = split_category(category, seed=3, validation="synthetic")
    assert split.synthetic_parts == ("validation", "sealed_test") and not split.labelled
    assert counts(split) == (20, 4, 8, 8)
    parts = [keys(part) for part in (split.fit, split.calibration, split.validation, split.sealed_test)]
    assert set.union(*parts) == keys(category.train) and sum(map(len, parts)) == 40
    assert split.validation == split_category(make_index(40, good=9, rust=9), 3, validation="synthetic").validation


@pytest.mark.parametrize(("train", "expected"), [(12, (3, 1, 4, 4)), (13, (4, 1, 4, 4)), (30, (15, 3, 6, 6))])
def test_synthetic_parts_have_the_expected_sizes(train: int, expected: tuple[int, ...]) -> None:
    assert counts(split_category(make_index(train), seed=0, validation="synthetic")) == expected


def test_synthetic_validation_depends_on_the_seed() -> None:
    first, again, other = (split_category(make_index(40), seed, validation="synthetic") for seed in (1, 1, 2))
    assert first == again
    assert first.validation != other.validation and first.sealed_test != other.sealed_test


def test_as_dict_lists_the_synthetic_parts() -> None:
    labeled = split_category(make_index(40, good=4, rust=4), seed=0, validation="synthetic").as_dict()
    assert list(labeled) == ["fit", "calibration", "validation", "sealed_test", "labelled", "digest", "painted"]
    assert labeled["painted"] == "validation" and len(labeled["labelled"]) == 4
    unlabeled = split_category(make_index(40), seed=0, validation="synthetic").as_dict()
    assert "labelled" not in unlabeled and unlabeled["painted"] == "validation, sealed_test"
    assert unlabeled["digest"] == hashlib.sha256("\n".join(unlabeled["sealed_test"]).encode()).hexdigest()


@pytest.mark.parametrize("test", [{}, {"good": 5, "rust": 5}], ids=str)
def test_too_few_images_for_synthetic_defects_are_an_error(test: dict[str, int]) -> None:
    with pytest.raises(DataError) as error:
        split_category(make_index(11, **test), seed=0, validation="synthetic")
    assert str(error.value) == (
        "train/good needs at least 12 images for --validation synthetic, got 11 in /data/part. "
        "Add images of good parts."
    )


# --- the paper's protocol ---


def test_papers_protocol_uses_all_test_images_twice() -> None:
    category = make_index(20, good=3, a=2, b=1)
    split = split_category(category, seed=1, protocol="paper")
    assert split.validation == split.sealed_test == category.test
    sealed = split_category(category, seed=1)
    assert (split.fit, split.calibration) == (sealed.fit, sealed.calibration)
    assert (split.labelled, split.synthetic_parts) == ((), ())
    assert split == split_category(category, seed=1, holdout=0.9, protocol="paper"), "holdout has no effect"
    assert split.as_dict()["digest"] != sealed.as_dict()["digest"]


def test_papers_protocol_needs_one_image_of_each_class() -> None:
    assert len(split_category(make_index(good=1, rust=1), seed=0, protocol="paper").sealed_test) == 2
    with pytest.raises(DataError, match="each need a good and a defective image"):
        split_category(make_index(good=5), seed=0, protocol="paper")
