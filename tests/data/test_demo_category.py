"""The demo category: layout, masks, reproducibility, and existing folders."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from las_tune.config.paths import DEMO_CATEGORY
from las_tune.data.demo_category import IMAGE_COUNTS, MARKER, TEXTURES, TEXTURES_PER_TYPE, render_demo
from las_tune.data.demo_part import DEFECTS, VISIBLE_CHANGE, Surfaces, _render_scene, render_image
from las_tune.errors import DataError

SIZE = 96


def images(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    render_demo(root / "data", root / "textures", size=SIZE)
    return root


def test_demo_has_the_expected_layout_and_counts(demo: Path) -> None:
    counts = Counter(str(Path(name).parent) for name in images(demo / "data" / DEMO_CATEGORY))
    assert counts == IMAGE_COUNTS | {"ground_truth/hole": 10, "ground_truth/scratches": 14}
    textures = Counter(str(Path(name).parent) for name in images(demo / "textures"))
    assert textures == dict.fromkeys(TEXTURES, TEXTURES_PER_TYPE)
    assert {path.name for path in (demo / "data").iterdir()} == {DEMO_CATEGORY}
    for path in demo.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (SIZE, SIZE)
            assert image.mode == ("L" if path.stem.endswith("_mask") else "RGB")


def test_every_defect_has_a_nonempty_mask(demo: Path) -> None:
    category = demo / "data" / DEMO_CATEGORY
    for defect in DEFECTS:
        for path in (category / "test" / defect).iterdir():
            mask = np.asarray(Image.open(category / "ground_truth" / defect / f"{path.stem}_mask.png"))
            assert set(np.unique(mask)) == {0, 255}
            assert (mask > 0).mean() < 0.05


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", range(6))
def test_defect_changes_the_part_only_inside_its_mask(defect: str, seed: int) -> None:
    surfaces = Surfaces.draw(np.random.default_rng(0), SIZE)
    defective, mask = render_image(np.random.default_rng(seed), surfaces, SIZE, defect)
    clean, none = render_image(np.random.default_rng(seed), surfaces, SIZE, "good")
    assert none is None and mask is not None
    change = np.abs(defective.astype(int) - clean).max(-1)
    assert change[mask == 0].max() <= VISIBLE_CHANGE * 255 + 1  # 1: rounding
    assert change[mask > 0].min() >= 1
    for_part, _ = np.random.default_rng(seed).spawn(2)
    distance = _render_scene(for_part, surfaces)[1]
    assert distance[::2, ::2][mask > 0].max() < 2 * 256 / SIZE  # 2 px: blur


def test_files_depend_on_the_seed_alone(tmp_path: Path) -> None:
    renderings = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        render_demo(tmp_path / name / "data", tmp_path / name / "textures", seed=seed, size=32)
        renderings.append(images(tmp_path / name))
    first, again, other = renderings
    assert first == again
    assert all(first[name] != other[name] for name in first if "_mask" not in name)
    assert len(set(first.values())) == len(first)


def test_progress_reaches_the_total(tmp_path: Path) -> None:
    ticks: list[tuple[int, int]] = []

    def progress(what: str, done: int, total: int) -> None:
        ticks.append((done, total))

    render_demo(tmp_path / "data", tmp_path / "textures", size=32, progress=progress)
    assert ticks == [(done, 132) for done in range(1, 133)]
    (tmp_path / "textures" / MARKER).write_text("{}")
    ticks.clear()
    render_demo(tmp_path / "data", tmp_path / "textures", size=32, progress=progress)
    assert ticks == [(done, 132) for done in range(93, 133)]


def test_complete_demo_is_not_rendered_again(demo: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    render_demo(demo / "data", demo / "textures", size=SIZE, progress=lambda *_: pytest.fail("it rendered"))
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_incomplete_or_outdated_folders_are_rendered_again(tmp_path: Path) -> None:
    data, textures = tmp_path / "data", tmp_path / "textures"
    render_demo(data, textures, size=32)
    expected = images(tmp_path)
    (data / DEMO_CATEGORY / "test/hole/003.png").unlink()
    (textures / MARKER).write_text(json.dumps({"version": 0}))
    (textures / "wood" / "old.png").touch()
    render_demo(data, textures, size=32)
    assert images(tmp_path) == expected


def test_interrupted_rendering_leaves_no_images(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_demo(tmp_path / "data", tmp_path / "textures", size=32, progress=stop)
    assert not list(tmp_path.rglob("*.png"))


def test_folder_that_the_demo_did_not_create_is_kept(tmp_path: Path) -> None:
    own = tmp_path / DEMO_CATEGORY / "train/good/000.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"user image")
    with pytest.raises(
        DataError, match=r"bracket_black already exists and was not created by the demo .*\. Choose another folder"
    ):
        render_demo(tmp_path, tmp_path / "textures", size=32)
    assert own.read_bytes() == b"user image"
