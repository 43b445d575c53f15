"""The images of a trial: the right ones in the right places, and drawn without a network's library."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from las_tune.reporting.contact_sheet import TILE_PX, WRONG
from las_tune.reporting.panel import FALSE_REJECT, FIXED, MISS, Panel
from las_tune.reporting.panel_figures import draw_panel
from las_tune.reporting.panel_process import Painter, PaintingError

SIZE = 48
COLORS = {0: (20, 40, 200), 1: (30, 160, 60), 2: (200, 200, 40), 3: (170, 30, 150)}
"""Of the validation images, each in one color: 0 and 1 are good, 2 and 3 defective."""


def plain(color: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8)[:, None, None], (3, SIZE, SIZE)).copy()


def make_panel(scores: list[float], why: list[tuple[int, int]], masks: bool = True) -> Panel:
    """why: (image, reason) of those shown."""
    index = np.array([image for image, _ in why])
    defective = np.zeros((len(why), SIZE, SIZE), bool)
    defective[:, 10:30, 10:30] = (index >= 2)[:, None, None]
    painted_masks = np.zeros((2, SIZE, SIZE), bool)
    painted_masks[:, 12:36, 12:36] = True
    return Panel(
        painted=np.stack([plain((90, 90, 90))] * 2), painted_masks=painted_masks, beta=np.array([0.25, 0.75]),
        scores=np.array(scores), defects=np.array([0, 0, 1, 1]), kinds=np.array(["good", "hole"]),
        normal_scores=np.array([0.1, 0.2]), threshold=np.array(0.5), epoch=np.array(3), index=index,
        why=np.array([reason for _, reason in why]), images=np.stack([plain(COLORS[p]) for p, _ in why]),
        masks=defective if masks else defective[:0], heat=np.full((len(why), SIZE, SIZE), 100, np.uint8),
    )  # fmt: skip


SHOWN = [(0, FIXED), (2, FIXED), (3, MISS), (1, FALSE_REJECT)]
SCORES = [0.1, 0.8, 0.9, 0.2]


def count(path: Path, color: tuple[int, int, int]) -> int:
    """Pixels of a color."""
    return int((np.asarray(Image.open(path).convert("RGB")) == color).all(axis=2).sum())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = draw_panel(make_panel(SCORES, SHOWN), "trial 7", tmp_path_factory.mktemp("panel"))
    return {file.stem: file for file in files}


def test_four_images_on_white(drawn: dict[str, Path]) -> None:
    assert list(drawn) == ["painted", "heat_maps", "worst", "curves"]
    for file in drawn.values():
        assert (np.asarray(Image.open(file).convert("RGB"))[:4, :4] == 255).all()


def test_images_are_where_they_belong(drawn: dict[str, Path]) -> None:
    full = TILE_PX**2
    for image, sheet, other in ((0, "heat_maps", "worst"), (2, "heat_maps", "worst"), (3, "worst", "heat_maps")):
        assert 0.8 * full < count(drawn[sheet], COLORS[image]) <= full
        assert count(drawn[other], COLORS[image]) == 0
    assert count(drawn["worst"], COLORS[1]) == full, "a good image has no outline"


def test_a_mistake_is_framed(drawn: dict[str, Path], tmp_path: Path) -> None:
    wrong = tuple(int(WRONG[i : i + 2], 16) for i in (1, 3, 5))
    assert count(drawn["worst"], wrong) > 2 * count(drawn["heat_maps"], wrong) == 0
    right = draw_panel(make_panel([0.1, 0.2, 0.9, 0.8], SHOWN[:2]), "trial 7", tmp_path)
    assert count(right[2], wrong) == 0


def test_the_mask_is_outlined_and_left_out_where_it_is_missing(drawn: dict[str, Path], tmp_path: Path) -> None:
    without = draw_panel(make_panel(SCORES, SHOWN, masks=False), "trial 7", tmp_path)
    assert count(without[1], COLORS[2]) == TILE_PX**2 > count(drawn["heat_maps"], COLORS[2])


def test_painted_images_stand_beside_their_outlines(drawn: dict[str, Path]) -> None:
    assert 3 * TILE_PX**2 < count(drawn["painted"], (90, 90, 90)) < 4 * TILE_PX**2


def test_nothing_scored_above_the_threshold_and_all_above(tmp_path: Path) -> None:
    for scores in ([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]):
        assert len(draw_panel(make_panel(scores, SHOWN[:2]), "trial 0", tmp_path)) == 4


def test_long_names_fit(tmp_path: Path) -> None:
    panel = replace(make_panel(SCORES, SHOWN), kinds=np.array(["good", "a very long name of a defect " * 8]))
    short = draw_panel(make_panel(SCORES, SHOWN), "t", tmp_path)[1]
    width = Image.open(short).width
    assert Image.open(draw_panel(panel, "t", tmp_path)[1]).width == width


def test_drawing_needs_no_network_and_no_tracker(tmp_path: Path) -> None:
    make_panel(SCORES, SHOWN).save(tmp_path / "panel.npz")
    code = (
        "import runpy, sys; runpy.run_module('las_tune.reporting.draw_panels', run_name='__main__')\n"
        "print(sorted({'torch', 'mlflow', 'ray', 'optuna'} & set(sys.modules)))"
    )
    asked = json.dumps([str(tmp_path / "panel.npz"), "trial 7", str(tmp_path / "drawn")]) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", code], input=asked, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ['""', "[]"]
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == [
        "curves.png", "heat_maps.png", "painted.png", "worst.png",
    ]  # fmt: skip


def test_a_broken_file_is_told_and_the_next_is_drawn(tmp_path: Path) -> None:
    make_panel(SCORES, SHOWN).save(tmp_path / "panel.npz")
    (tmp_path / "broken.npz").write_bytes(b"no arrays")
    with closing(Painter()) as painter:
        with pytest.raises(PaintingError, match=r"broken\.npz cannot be drawn"):
            painter.draw(tmp_path / "broken.npz", "trial 1", tmp_path / "one")
        painter.draw(tmp_path / "panel.npz", "trial 2", tmp_path / "two")
        assert len(list((tmp_path / "two").iterdir())) == 4
        assert painter._process is not None
        painter._process.kill()
        painter._process.wait()
        with pytest.raises(PaintingError, match="is gone"):
            painter.draw(tmp_path / "panel.npz", "trial 3", tmp_path / "three")
        painter.draw(tmp_path / "panel.npz", "trial 3", tmp_path / "three")
        assert len(list((tmp_path / "three").iterdir())) == 4
