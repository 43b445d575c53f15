from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from las_tune.data.textures import list_textures, load_textures
from las_tune.errors import DataError

from .conftest import save_image


def test_any_folder_of_images_is_accepted(tmp_path: Path) -> None:
    for name in ("b.png", "deep/er/a.JPG", ".cache/c.png", "deep/.d.png"):
        save_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("x")
    assert [path.name for path in list_textures(tmp_path)] == ["b.png", "a.JPG"]


@pytest.mark.parametrize("inside", ["images", "dtd/images", "dtd/dtd/images"])
def test_only_the_images_folder_of_dtd_is_used(tmp_path: Path, inside: str) -> None:
    save_image(tmp_path / inside / "woven/woven_0001.jpg")
    save_image((tmp_path / inside).parent / "labels/plot.png")
    assert [path.name for path in list_textures(tmp_path)] == ["woven_0001.jpg"]


def test_textures_are_center_cropped(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (load_textures(tmp_path, 8, seed=0).images == 255).all()


def test_subset_depends_on_names_and_seed(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        for index in range(10):
            save_image(tmp_path / folder / f"{index}.png", value=index)

    def values(folder: str, seed: int) -> list[int]:
        chosen = load_textures(tmp_path / folder, 4, seed=seed, limit=5)
        assert chosen.images.shape == (5, 3, 4, 4) and chosen.skipped == ()
        return list(chosen.images[:, 0, 0, 0].tolist())

    chosen = values("here", seed=1)
    assert chosen == sorted(set(chosen)), "distinct, in the order of their names"
    assert values("there", seed=1) == chosen
    assert values("here", seed=2) != chosen


def test_broken_texture_raises_or_is_skipped(tmp_path: Path) -> None:
    save_image(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.png"):
        load_textures(tmp_path, 4, seed=0)
    assert len(load_textures(tmp_path, 4, seed=0, skip_broken=True).skipped) == 1


@pytest.mark.parametrize("made", [False, True])
def test_folder_without_textures_is_an_error(tmp_path: Path, made: bool) -> None:
    folder = tmp_path / "dtd"
    if made:
        folder.mkdir()
    with pytest.raises(DataError) as error:
        load_textures(folder, 4, seed=0)
    assert str(error.value) == (
        f"No images in --textures {folder}{'' if made else ' (no such folder)'}. "
        "Run `python -m las_tune data fetch dtd`, or pass any folder of images to --textures."
    )
