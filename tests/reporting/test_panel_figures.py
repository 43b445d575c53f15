"""The image panel of a trial: each image is on the right sheet, and drawing loads neither torch nor MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from las_tune.reporting.contact_sheet import TILE_PX, WRONG
from las_tune.reporting.panel import FALSE_REJECT, FIXED, MISS, Panel
from las_tune.reporting.panel_drawer import PanelDrawer, PanelDrawingError
from las_tune.reporting.panel_figures import draw_panel

SIZE = 48
COLORS = {0: (20, 40, 200), 1: (30, 160, 60), 2: (200, 200, 40), 3: (170, 30, 150)}
"""Color of each validation image; 0 and 1 are good, 2 and 3 defective."""


def uniform_image(color: tuple[int, int, int]) -> np.ndarray:
    return np.broadcast_to(np.array(color, np.uint8)[:, None, None], (3, SIZE, SIZE)).copy()


def make_panel(scores: list[float], shown: list[tuple[int, int]], masks: bool = True) -> Panel:
    """Make a panel that shows the given (image, reason) pairs."""
    index = np.array([image for image, _ in shown])
    defective = np.zeros((len(shown), SIZE, SIZE), bool)
    defective[:, 10:30, 10:30] = (index >= 2)[:, None, None]
    synthetic_masks = np.zeros((2, SIZE, SIZE), bool)
    synthetic_masks[:, 12:36, 12:36] = True
    return Panel(
        synthetic=np.stack([uniform_image((90, 90, 90))] * 2), synthetic_masks=synthetic_masks,
        beta=np.array([0.25, 0.75]),
        scores=np.array(scores), defects=np.array([0, 0, 1, 1]), defect_types=np.array(["good", "hole"]),
        normal_scores=np.array([0.1, 0.2]), threshold=np.array(0.5), epoch=np.array(3), index=index,
        reasons=np.array([reason for _, reason in shown]),
        images=np.stack([uniform_image(COLORS[image]) for image, _ in shown]),
        masks=defective if masks else defective[:0], anomaly_maps=np.full((len(shown), SIZE, SIZE), 100, np.uint8),
    )  # fmt: skip


SHOWN = [(0, FIXED), (2, FIXED), (3, MISS), (1, FALSE_REJECT)]
SCORES = [0.1, 0.8, 0.9, 0.2]


def count(path: Path, color: tuple[int, ...]) -> int:
    """Count the pixels of a color."""
    return int((np.asarray(Image.open(path).convert("RGB")) == color).all(axis=2).sum())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = draw_panel(make_panel(SCORES, SHOWN), "trial 7", tmp_path_factory.mktemp("panel"))
    return {file.stem: file for file in files}


def test_panel_has_four_sheets_on_white(drawn: dict[str, Path]) -> None:
    assert list(drawn) == ["synthetic_defects", "anomaly_maps", "worst", "curves"]
    for file in drawn.values():
        assert (np.asarray(Image.open(file).convert("RGB"))[:4, :4] == 255).all()


def test_images_are_on_the_right_sheet(drawn: dict[str, Path]) -> None:
    full = TILE_PX**2
    for image, sheet, other in (
        (0, "anomaly_maps", "worst"),
        (2, "anomaly_maps", "worst"),
        (3, "worst", "anomaly_maps"),
    ):
        assert 0.8 * full < count(drawn[sheet], COLORS[image]) <= full
        assert count(drawn[other], COLORS[image]) == 0
    assert count(drawn["worst"], COLORS[1]) == full, "a good image has no outline"


def test_errors_are_framed(drawn: dict[str, Path], tmp_path: Path) -> None:
    wrong = ImageColor.getrgb(WRONG)[:3]
    assert count(drawn["worst"], wrong) > 2 * count(drawn["anomaly_maps"], wrong) == 0
    right = draw_panel(make_panel([0.1, 0.2, 0.9, 0.8], SHOWN[:2]), "trial 7", tmp_path)
    assert count(right[2], wrong) == 0


def test_mask_is_outlined_if_present(drawn: dict[str, Path], tmp_path: Path) -> None:
    without = draw_panel(make_panel(SCORES, SHOWN, masks=False), "trial 7", tmp_path)
    assert count(without[1], COLORS[2]) == TILE_PX**2 > count(drawn["anomaly_maps"], COLORS[2])


def test_synthetic_defects_are_shown_without_and_with_outline(drawn: dict[str, Path]) -> None:
    assert 3 * TILE_PX**2 < count(drawn["synthetic_defects"], (90, 90, 90)) < 4 * TILE_PX**2


def test_scores_on_one_side_of_the_threshold_are_drawn(tmp_path: Path) -> None:
    for scores in ([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]):
        assert len(draw_panel(make_panel(scores, SHOWN[:2]), "trial 0", tmp_path)) == 4


def test_long_names_are_shortened(tmp_path: Path) -> None:
    panel = replace(make_panel(SCORES, SHOWN), defect_types=np.array(["good", "a very long name of a defect " * 8]))
    short = draw_panel(make_panel(SCORES, SHOWN), "t", tmp_path)[1]
    width = Image.open(short).width
    assert Image.open(draw_panel(panel, "t", tmp_path)[1]).width == width


def test_drawing_process_does_not_load_heavy_libraries(tmp_path: Path) -> None:
    make_panel(SCORES, SHOWN).save(tmp_path / "panel.npz")
    code = (
        "import runpy, sys; runpy.run_module('las_tune.reporting.draw_panels', run_name='__main__')\n"
        "print(sorted({'torch', 'mlflow', 'ray', 'optuna'} & set(sys.modules)))"
    )
    request = json.dumps([str(tmp_path / "panel.npz"), "trial 7", str(tmp_path / "drawn")]) + "\n"
    done = subprocess.run(
        [sys.executable, "-c", code], input=request, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ['""', "[]"]
    assert sorted(file.name for file in (tmp_path / "drawn").iterdir()) == [
        "anomaly_maps.png", "curves.png", "synthetic_defects.png", "worst.png",
    ]  # fmt: skip


def test_drawing_continues_after_an_error(tmp_path: Path) -> None:
    make_panel(SCORES, SHOWN).save(tmp_path / "panel.npz")
    (tmp_path / "broken.npz").write_bytes(b"no arrays")
    with closing(PanelDrawer()) as drawer:
        with pytest.raises(PanelDrawingError, match=r"broken\.npz could not be drawn"):
            drawer.draw(tmp_path / "broken.npz", "trial 1", tmp_path / "one")
        drawer.draw(tmp_path / "panel.npz", "trial 2", tmp_path / "two")
        assert len(list((tmp_path / "two").iterdir())) == 4
        assert drawer._process is not None
        drawer._process.kill()
        drawer._process.wait()
        with pytest.raises(PanelDrawingError, match="process ended"):
            drawer.draw(tmp_path / "panel.npz", "trial 3", tmp_path / "three")
        drawer.draw(tmp_path / "panel.npz", "trial 3", tmp_path / "three")
        assert len(list((tmp_path / "three").iterdir())) == 4
