from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

from las_tune.data.category import index_category
from las_tune.data.check import CheckRow, check_category

from .conftest import MakeCategory, save_image, save_mask

METAL_PLATE = Path(__file__).parents[3] / "shared/data/mpdd/metal_plate"


def test_valid_category_has_no_problems(make_category: MakeCategory) -> None:
    calls: list[tuple[str, int, int]] = []
    root = make_category(train=3, good=2, bent=1)
    check = check_category(index_category(root, "part"), lambda *call: calls.append(call))
    assert check.rows == (
        CheckRow("train", "good", 3, 0, ("12x8",), ("PNG RGB",)),
        CheckRow("test", "bent", 1, 1, ("12x8",), ("PNG RGB",)),
        CheckRow("test", "good", 2, 0, ("12x8",), ("PNG RGB",)),
    )
    assert check.problems == ()
    assert calls == [("reading part", done, 6) for done in range(1, 7)]


def test_category_without_masks_has_no_problems(make_category: MakeCategory) -> None:
    root = make_category(rust=2)
    shutil.rmtree(root / "part/ground_truth")
    assert check_category(index_category(root, "part")).problems == ()


def test_every_problem_is_one_line(make_category: MakeCategory) -> None:
    root = make_category(train=3, good=2, rust=4)
    part = root / "part"
    save_image(part / "train/good/003.jpg", size=(10, 10))
    (part / "train/good/000.png").write_bytes(b"")
    shutil.copy(part / "train/good/001.png", part / "test/good/001.png")
    save_mask(part / "ground_truth/rust/000_mask.png", size=(6, 6))
    Image.new("L", (12, 8)).save(part / "ground_truth/rust/001_mask.png")
    (part / "ground_truth/rust/002_mask.png").rename(part / "ground_truth/rust/2_mask.png")
    save_mask(part / "ground_truth/good/000_mask.png")
    check = check_category(index_category(root, "part"))
    assert check.rows[0] == CheckRow("train", "good", 4, 0, ("10x10", "12x8"), ("JPEG RGB", "PNG RGB"))
    broken, size, empty, missing, unmatched, duplicate = check.problems
    assert broken.startswith(f"Cannot read image {part}/train/good/000.png: ")
    assert size.startswith(f"Mask {part}/ground_truth/rust/000_mask.png has 6x6 pixels, but image ")
    assert empty == f"Mask {part}/ground_truth/rust/001_mask.png is empty. Mark the defect, or remove the mask."
    assert missing == (
        "No mask for 1 of the defective images, so pixel metrics are left out: test/rust/002.png. "
        "Add the masks to ground_truth/<defect>."
    )
    assert unmatched == "Mask ground_truth/rust/2_mask.png has no image in test/<defect>. Rename or remove it."
    assert duplicate == "Identical images: train/good/001.png, test/good/001.png. Keep one of them."


@pytest.mark.skipif(not METAL_PLATE.is_dir(), reason=f"no real MPDD images at {METAL_PLATE}")
def test_real_metal_plate_has_no_problems() -> None:
    check = check_category(index_category(METAL_PLATE.parent, "metal_plate"))
    assert [(row.defect, row.images, row.masks) for row in check.rows] == [
        ("good", 54, 0),
        ("good", 26, 0),
        ("rust", 53, 53),
        ("scratches", 18, 18),
    ]
    assert check.problems == ()
