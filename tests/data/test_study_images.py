"""The images of a study: what is painted, what is watched, and the objective that they allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from las_tune.config.train_spec import TrainSpec
from las_tune.data.images import decode_image
from las_tune.data.study_images import Array, LabeledImages, StudyImages, foreground_of, load_images, resolve_objective
from las_tune.data.synthetic_defects import FAMILIES, make_anomalies
from las_tune.errors import DataError, UserError
from tests.data.conftest import save_image, save_mask
from tests.parts import cut_off, make_part, make_textures, part_spec

TRAIN = TrainSpec(image_size=64)
MASKED, UNMASKED = "combined", "image_auroc"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part with 30 good images for training and two kinds of defects, with masks."""
    root = tmp_path_factory.mktemp("parts")
    make_part(root, train=30)
    for index in range(3):
        save_image(root / "part/test/bent" / f"{index:03}.png")
        save_mask(root / "part/ground_truth/bent" / f"{index:03}_mask.png")
    make_textures(root / "textures")
    return root


def load(place: Path, train: TrainSpec = TRAIN, **fields: Any) -> StudyImages:
    return load_images(part_spec(place, train, **fields))


def decoded(images: Any) -> Array:
    return np.stack([decode_image(image.path, TRAIN.image_size) for image in images])


def check_painted(painted: LabeledImages, good: Array) -> None:
    """The good images, and a defective copy of each that differs inside its mask alone."""
    number = len(good)
    assert np.array_equal(painted.images[:number], good)
    assert len(painted.images) == len(painted.defects) == 2 * number
    assert painted.labels.tolist() == [False] * number + [True] * number
    assert painted.masks is not None and painted.masks.dtype == bool and not painted.masks[:number].any()
    assert painted.masks[number:].any((1, 2)).all()
    changed = (painted.images[number:] != good).any(1)
    assert not (changed & ~painted.masks[number:]).any() and changed.any((1, 2)).all()


def same(one: LabeledImages, other: LabeledImages) -> bool:
    assert one.masks is not None and other.masks is not None
    pairs = ((one.images, other.images), (one.defects, other.defects), (one.masks, other.masks))
    return all(np.array_equal(a, b) for a, b in pairs)


def test_labelled_images_know_their_kinds(place: Path) -> None:
    images = load(place)
    for part, of_split in (
        (images.trials.validation, images.split.validation),
        (images.sealed_test, images.split.sealed_test),
    ):
        assert np.array_equal(part.images, decoded(of_split))
        assert part.defects.dtype == np.int64
        assert [("good", "bent", "rust")[kind] for kind in part.defects] == [image.defect for image in of_split]
        assert part.masks is not None and np.array_equal(part.masks.any((1, 2)), part.labels)
    assert images.trials.watched == {} and (images.skipped, images.masks_missing) == ((), 0)
    assert np.array_equal(images.trials.fit, decoded(images.split.fit))
    assert np.array_equal(images.trials.calibration, decoded(images.split.calibration))


def test_a_synthetic_validation_is_painted_and_the_labelled_half_is_watched(place: Path) -> None:
    usual, images = load(place), load(place, validation="synthetic")
    check_painted(images.trials.validation, decoded(images.split.validation))
    assert list(images.trials.watched) == ["labelled"]
    assert same(images.trials.watched["labelled"], usual.trials.validation)
    assert same(images.sealed_test, usual.sealed_test)
    assert len(images.trials.fit) == len(usual.trials.fit) - len(images.split.validation)


def test_the_kind_of_a_painted_defect_is_its_family(place: Path) -> None:
    images = load(place, validation="synthetic")
    good = decoded(images.split.validation)
    families = make_anomalies(good, foreground_of(good), seed=0).families
    kinds = images.trials.validation.defects[len(good) :]
    assert [FAMILIES[kind - 1] for kind in kinds] == list(families)
    assert len(set(families)) > 1, "one kind alone would prove nothing"


def test_without_labelled_images_both_are_painted_and_nothing_is_watched(tmp_path: Path) -> None:
    make_part(tmp_path, train=20, good=0, rust=0)
    make_textures(tmp_path / "textures")
    images = load(tmp_path, validation="synthetic")
    check_painted(images.trials.validation, decoded(images.split.validation))
    check_painted(images.sealed_test, decoded(images.split.sealed_test))
    assert images.trials.watched == {} and images.masks_missing == 0
    assert resolve_objective(TRAIN, images).objective == MASKED


def test_the_seed_alone_decides_what_is_painted(place: Path) -> None:
    one, again = (load(place, TRAIN, validation="synthetic").trials.validation for _ in range(2))
    assert same(one, again)
    other = load(place, TRAIN.replace(seed=1), validation="synthetic").trials.validation
    assert not np.array_equal(one.images, other.images)


def test_validation_and_sealed_test_are_painted_from_other_seeds(tmp_path: Path) -> None:
    """On the very same image: each is a copy of one file."""
    folder = make_part(tmp_path, train=20, good=0, rust=0)
    make_textures(tmp_path / "textures")
    content = (folder / "train/good/000.png").read_bytes()
    for path in (folder / "train/good").iterdir():
        path.write_bytes(content)
    images = load(tmp_path, validation="synthetic")
    validation, sealed = images.trials.validation, images.sealed_test
    number = len(validation.images) // 2
    assert len(sealed.images) // 2 == number == 4
    assert np.array_equal(validation.images[:number], sealed.images[:number])
    for one, other in zip(validation.images[number:], sealed.images[number:], strict=True):
        assert not np.array_equal(one, other)


def test_the_leakage_gap_watches_the_sealed_half_and_the_whole(place: Path) -> None:
    usual, images = load(place), load(place, leakage_gap=True)
    assert same(images.trials.validation, usual.trials.validation)
    assert list(images.trials.watched) == ["sealed", "whole"]
    assert same(images.trials.watched["sealed"], usual.sealed_test)
    whole, halves = images.trials.watched["whole"], (usual.trials.validation, usual.sealed_test)
    assert np.array_equal(whole.images, np.concatenate([half.images for half in halves]))
    assert np.array_equal(whole.defects, np.concatenate([half.defects for half in halves]))
    assert whole.masks is not None and np.array_equal(whole.masks.any((1, 2)), whole.labels)


def test_under_the_papers_protocol_there_is_one_test(place: Path) -> None:
    images = load(place, protocol="paper")
    assert images.sealed_test is images.trials.validation
    assert len(images.sealed_test.images) == 4 + 4 + 3 and images.trials.watched == {}


@pytest.mark.parametrize("skipped", [0, 1])
def test_a_broken_image_to_paint_on_is_left_out(tmp_path: Path, skipped: int) -> None:
    make_part(tmp_path, train=20, good=0, rust=0)
    make_textures(tmp_path / "textures")
    broken = cut_off(load(tmp_path, validation="synthetic").split.validation[0].path)
    if not skipped:
        with pytest.raises(DataError, match="must be readable by Pillow"):
            load(tmp_path, validation="synthetic")
        return
    images = load(tmp_path, validation="synthetic", skip_broken=True)
    assert len(images.trials.validation.images) == 2 * 3
    assert len(images.skipped) == 1 and str(broken) in images.skipped[0]


# --- masks, and the objective ---


@pytest.fixture
def maskless(tmp_path: Path) -> Path:
    """A part whose defective images have a mask but for one, and 20 good images."""
    make_part(tmp_path, train=20)
    (tmp_path / "part/ground_truth/rust/002_mask.png").unlink()
    make_textures(tmp_path / "textures")
    return tmp_path


@pytest.mark.parametrize(
    "fields",
    [{}, {"validation": "synthetic"}, {"leakage_gap": True}, {"protocol": "paper"}],
    ids=lambda fields: next(iter(fields), "usual"),
)
def test_one_missing_mask_anywhere_leaves_pixels_out(maskless: Path, fields: dict[str, Any]) -> None:
    images = load(maskless, **fields)
    assert images.masks_missing == 1 and images.sealed_test.masks is None
    assert (images.trials.validation.masks is not None) is ("validation" in fields), "painted ones have theirs"
    assert all(watched.masks is None for watched in images.trials.watched.values())
    assert resolve_objective(TRAIN, images).objective == UNMASKED
    for objective in ("pixel_aupro", MASKED):
        with pytest.raises(UserError) as error:
            resolve_objective(TRAIN.replace(objective=objective), images)
        assert str(error.value) == (
            "--objective pixel_aupro and combined need a mask for every defective image, got "
            f"{objective} with masks missing. use --objective image_auroc, or add the masks "
            "(python -m las_tune data check names them)."
        )
    for objective in ("image_auroc", "recall_at_fpr", "worst_defect"):
        assert resolve_objective(TRAIN.replace(objective=objective), images).objective == objective


def test_masks_that_nothing_needs_are_not_missing(maskless: Path) -> None:
    """Without a good test image everything is painted, and every painted defect has its mask."""
    for path in (maskless / "part/test/good").iterdir():
        path.unlink()
    images = load(maskless, validation="synthetic")
    assert images.split.painted == ("validation", "sealed_test")
    assert images.masks_missing == 0
    assert resolve_objective(TRAIN, images).objective == MASKED


@pytest.mark.parametrize("fields", [{}, {"validation": "synthetic"}, {"leakage_gap": True}, {"protocol": "paper"}])
def test_with_all_masks_any_objective_is_taken(place: Path, fields: dict[str, Any]) -> None:
    images = load(place, **fields)
    assert resolve_objective(TRAIN, images).objective == MASKED
    for objective in ("image_auroc", "pixel_aupro", "combined", "recall_at_fpr", "worst_defect"):
        assert resolve_objective(TRAIN.replace(objective=objective), images) == TRAIN.replace(objective=objective)
