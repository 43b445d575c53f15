"""The images of a study: synthetic defects, monitored images, and the objectives that they allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from las_tune.config.train_spec import TrainSpec
from las_tune.data.images import decode_image
from las_tune.data.study_images import Array, LabeledImages, StudyImages, foreground_of, load_images, resolve_objective
from las_tune.data.synthetic_defects import FAMILIES, make_synthetic_defects
from las_tune.errors import DataError, UserError
from tests.data.conftest import save_image, save_mask
from tests.parts import make_part, make_textures, part_spec, truncate_image

TRAIN = TrainSpec(image_size=64)
MASKED, UNMASKED = "combined", "image_auroc"


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part with 30 good training images and two defect types, with masks."""
    root = tmp_path_factory.mktemp("parts")
    make_part(root, train=30)
    for index in range(3):
        save_image(root / "part/test/bent" / f"{index:03}.png")
        save_mask(root / "part/ground_truth/bent" / f"{index:03}_mask.png")
    make_textures(root / "textures")
    return root


def load(root: Path, train: TrainSpec = TRAIN, **fields: Any) -> StudyImages:
    return load_images(part_spec(root, train, **fields))


def decoded(images: Any) -> Array:
    return np.stack([decode_image(image.path, TRAIN.image_size) for image in images])


def assert_synthetic(synthetic: LabeledImages, good: Array) -> None:
    """Assert that there are the good images, and a defective copy of each that differs only inside its mask."""
    number = len(good)
    assert np.array_equal(synthetic.images[:number], good)
    assert len(synthetic.images) == len(synthetic.defects) == 2 * number
    assert synthetic.labels.tolist() == [False] * number + [True] * number
    assert synthetic.masks is not None and synthetic.masks.dtype == bool and not synthetic.masks[:number].any()
    assert synthetic.masks[number:].any((1, 2)).all()
    changed = (synthetic.images[number:] != good).any(1)
    assert not (changed & ~synthetic.masks[number:]).any() and changed.any((1, 2)).all()


def same(first: LabeledImages, second: LabeledImages) -> bool:
    assert first.masks is not None and second.masks is not None
    pairs = ((first.images, second.images), (first.defects, second.defects), (first.masks, second.masks))
    return all(np.array_equal(a, b) for a, b in pairs)


def test_labeled_images_have_their_defect_types(data_root: Path) -> None:
    images = load(data_root)
    for part, of_split in (
        (images.trials.validation, images.split.validation),
        (images.sealed_test, images.split.sealed_test),
    ):
        assert np.array_equal(part.images, decoded(of_split))
        assert part.defects.dtype == np.int64
        assert [("good", "bent", "rust")[defect] for defect in part.defects] == [image.defect for image in of_split]
        assert part.masks is not None and np.array_equal(part.masks.any((1, 2)), part.labels)
    assert images.trials.monitored == {} and (images.skipped, images.masks_missing) == ((), 0)
    assert np.array_equal(images.trials.fit, decoded(images.split.fit))
    assert np.array_equal(images.trials.calibration, decoded(images.split.calibration))


def test_synthetic_validation_monitors_the_labeled_half(data_root: Path) -> None:
    usual, images = load(data_root), load(data_root, validation="synthetic")
    assert_synthetic(images.trials.validation, decoded(images.split.validation))
    assert list(images.trials.monitored) == ["labelled"]
    assert same(images.trials.monitored["labelled"], usual.trials.validation)
    assert same(images.sealed_test, usual.sealed_test)
    assert len(images.trials.fit) == len(usual.trials.fit) - len(images.split.validation)


def test_defect_type_of_a_synthetic_defect_is_its_family(data_root: Path) -> None:
    images = load(data_root, validation="synthetic")
    good = decoded(images.split.validation)
    families = make_synthetic_defects(good, foreground_of(good), seed=0).families
    defects = images.trials.validation.defects[len(good) :]
    assert [FAMILIES[defect - 1] for defect in defects] == list(families)
    assert len(set(families)) > 1


def test_without_labeled_images_validation_and_test_are_synthetic(tmp_path: Path) -> None:
    make_part(tmp_path, train=20, good=0, rust=0)
    make_textures(tmp_path / "textures")
    images = load(tmp_path, validation="synthetic")
    assert_synthetic(images.trials.validation, decoded(images.split.validation))
    assert_synthetic(images.sealed_test, decoded(images.split.sealed_test))
    assert images.trials.monitored == {} and images.masks_missing == 0
    assert resolve_objective(TRAIN, images).objective == MASKED


def test_synthetic_defects_depend_on_the_seed_alone(data_root: Path) -> None:
    first, again = (load(data_root, TRAIN, validation="synthetic").trials.validation for _ in range(2))
    assert same(first, again)
    other = load(data_root, TRAIN.replace(seed=1), validation="synthetic").trials.validation
    assert not np.array_equal(first.images, other.images)


def test_validation_and_sealed_test_have_different_synthetic_defects(tmp_path: Path) -> None:
    """All files are copies of one image, so only the random seed differs."""
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
    for in_validation, in_test in zip(validation.images[number:], sealed.images[number:], strict=True):
        assert not np.array_equal(in_validation, in_test)


def test_leakage_gap_monitors_the_sealed_half_and_the_whole_test(data_root: Path) -> None:
    usual, images = load(data_root), load(data_root, leakage_gap=True)
    assert same(images.trials.validation, usual.trials.validation)
    assert list(images.trials.monitored) == ["sealed", "whole"]
    assert same(images.trials.monitored["sealed"], usual.sealed_test)
    whole, halves = images.trials.monitored["whole"], (usual.trials.validation, usual.sealed_test)
    assert np.array_equal(whole.images, np.concatenate([half.images for half in halves]))
    assert np.array_equal(whole.defects, np.concatenate([half.defects for half in halves]))
    assert whole.masks is not None and np.array_equal(whole.masks.any((1, 2)), whole.labels)


def test_papers_protocol_uses_the_same_images_for_validation_and_test(data_root: Path) -> None:
    images = load(data_root, protocol="paper")
    assert images.sealed_test is images.trials.validation
    assert len(images.sealed_test.images) == 4 + 4 + 3 and images.trials.monitored == {}


@pytest.mark.parametrize("skipped", [0, 1])
def test_broken_image_of_a_synthetic_validation_raises_or_is_skipped(tmp_path: Path, skipped: int) -> None:
    make_part(tmp_path, train=20, good=0, rust=0)
    make_textures(tmp_path / "textures")
    broken = truncate_image(load(tmp_path, validation="synthetic").split.validation[0].path)
    if not skipped:
        with pytest.raises(DataError, match="Cannot read image"):
            load(tmp_path, validation="synthetic")
        return
    images = load(tmp_path, validation="synthetic", skip_broken=True)
    assert len(images.trials.validation.images) == 2 * 3
    assert len(images.skipped) == 1 and str(broken) in images.skipped[0]


# --- masks and objectives ---


@pytest.fixture
def missing_mask(tmp_path: Path) -> Path:
    """A part with 20 good images and one defective image without a mask."""
    make_part(tmp_path, train=20)
    (tmp_path / "part/ground_truth/rust/002_mask.png").unlink()
    make_textures(tmp_path / "textures")
    return tmp_path


@pytest.mark.parametrize(
    "fields",
    [{}, {"validation": "synthetic"}, {"leakage_gap": True}, {"protocol": "paper"}],
    ids=lambda fields: next(iter(fields), "default"),
)
def test_one_missing_mask_disables_pixel_metrics(missing_mask: Path, fields: dict[str, Any]) -> None:
    images = load(missing_mask, **fields)
    assert images.masks_missing == 1 and images.sealed_test.masks is None
    assert (images.trials.validation.masks is not None) is ("validation" in fields), "synthetic defects have masks"
    assert all(monitored.masks is None for monitored in images.trials.monitored.values())
    assert resolve_objective(TRAIN, images).objective == UNMASKED
    for objective in ("pixel_aupro", MASKED):
        with pytest.raises(UserError) as error:
            resolve_objective(TRAIN.replace(objective=objective), images)
        assert str(error.value) == (
            f"--objective {objective} needs a mask for every defective image, and some have none. "
            "Use --objective image_auroc, or add the masks (`python -m las_tune data check` lists them)."
        )
    for objective in ("image_auroc", "recall_at_fpr", "worst_defect"):
        assert resolve_objective(TRAIN.replace(objective=objective), images).objective == objective


def test_missing_masks_do_not_matter_for_synthetic_defects(missing_mask: Path) -> None:
    """Without a good test image, validation and test are synthetic, and every synthetic defect has a mask."""
    for path in (missing_mask / "part/test/good").iterdir():
        path.unlink()
    images = load(missing_mask, validation="synthetic")
    assert images.split.synthetic_parts == ("validation", "sealed_test")
    assert images.masks_missing == 0
    assert resolve_objective(TRAIN, images).objective == MASKED


@pytest.mark.parametrize("fields", [{}, {"validation": "synthetic"}, {"leakage_gap": True}, {"protocol": "paper"}])
def test_all_objectives_are_accepted_with_masks(data_root: Path, fields: dict[str, Any]) -> None:
    images = load(data_root, **fields)
    assert resolve_objective(TRAIN, images).objective == MASKED
    for objective in ("image_auroc", "pixel_aupro", "combined", "recall_at_fpr", "worst_defect"):
        assert resolve_objective(TRAIN.replace(objective=objective), images) == TRAIN.replace(objective=objective)
