"""Packages of images for a cluster: complete, verified, and identical if the images are."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from las_tune.data import digest
from las_tune.data.digest import PARTS, TEXTURES, check_digest, digest_of, images_of, pack
from las_tune.errors import UserError
from tests.data.conftest import save_image
from tests.parts import make_part, make_textures


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    make_part(tmp_path / "d")
    make_part(tmp_path / "d", "other")
    (tmp_path / "d/part/notes.txt").write_text("no image")
    make_textures(tmp_path / "t")
    return images_of(tmp_path / "d", ["part"], tmp_path / "t")


def test_package_contains_the_images_of_the_category_and_the_textures(images: dict[str, Path], tmp_path: Path) -> None:
    assert len(images) == 6 + 4 + 4 + 4 + 3 and list(images) == sorted(images)
    assert f"{PARTS}/part/ground_truth/rust/000_mask.png" in images and f"{TEXTURES}/woven/0.png" in images
    pack(images, tmp_path / "one.zip")
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    unpacked = tmp_path / "unpacked"
    check_digest(digest_of(images), unpacked / PARTS, ["part"], unpacked / TEXTURES)


def test_package_bytes_do_not_depend_on_modification_times(images: dict[str, Path], tmp_path: Path) -> None:
    """Ray identifies packages by their content and uploads unchanged ones only once."""
    pack(images, tmp_path / "one.zip")
    for path in images.values():
        os.utime(path, (1e9, 1e9))
    pack(images, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize("change", ["content", "missing", "another", "renamed"])
def test_any_change_changes_the_digest(images: dict[str, Path], tmp_path: Path, change: str) -> None:
    before, image = digest_of(images), tmp_path / "d/part/train/good/000.png"
    if change == "content":
        image.write_bytes(image.read_bytes() + b"\0")
    elif change == "missing":
        image.unlink()
    elif change == "another":
        save_image(image.with_name("new.png"))
    else:
        image.rename(image.with_name("new.png"))
    with pytest.raises(UserError, match=f"have digest .*, but --data-digest is {before}"):
        check_digest(before, tmp_path / "d", ["part"], tmp_path / "t")


def test_package_above_the_size_limit_is_an_error(
    images: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "MAX_PUSH_MB", 0)
    with pytest.raises(UserError, match=r"--push-data takes at most 0 MB, got .*rsync-up"):
        pack(images, tmp_path / "one.zip")
    assert not (tmp_path / "one.zip").exists()
