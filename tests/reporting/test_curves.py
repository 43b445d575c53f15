from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from las_tune.config.trial_record import TrialRecord
from las_tune.reporting.curves import plot_roc_curve, plot_training_curves
from tests.parts import make_trial

LABELS = np.array([False, False, True, True])
PERFECT = np.array([0.1, 0.2, 0.8, 0.9])
OPPOSITE = PERFECT[::-1]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Record the saved figures."""
    figures: list[Figure] = []
    save = Figure.savefig

    def record(figure: Figure, *arguments: Any, **options: Any) -> None:
        figures.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", record)
    return figures


def curves(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each line by its label."""
    return {str(line.get_label()): [(x, y) for x, y in np.asarray(line.get_xydata()).tolist()] for line in axes.lines}


def check_png(path: Path, width: int, height: int) -> None:
    """Check that a PNG has about this size and is not empty."""
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert abs(image.width - width) < 10 and abs(image.height - height) < 10
        pixels = np.asarray(image.convert("L"))
    assert 0.001 < (pixels < 128).mean() < 0.3


def test_training_curves_show_losses_and_metrics(tmp_path: Path, drawn: list[Figure]) -> None:
    trials = {"baseline": make_trial(0, [0.5, 0.75]), "champion": make_trial(7, [0.5, 0.75, 1.0])}
    plot_training_curves(tmp_path / "c.png", "my_part", trials)
    check_png(tmp_path / "c.png", 1690, 520)
    (figure,) = drawn
    assert "my_part" in figure.get_suptitle()
    loss, image, pixel = figure.axes
    rows = trials["champion"].epochs
    panels = {
        loss: ("loss", "loss_normal", "loss_las"),
        image: ("image_auroc", "image_ap"),
        pixel: ("pixel_auroc", "pixel_aupro"),
    }
    for axes, names in panels.items():
        found = curves(axes)
        assert set(found) == {
            f"{role} {name}" for role in ("baseline (trial 0)", "champion (trial 7)") for name in names
        }
        for name in names:
            assert found[f"champion (trial 7) {name}"] == [(row["epoch"], row[name]) for row in rows]
            assert len(found[f"baseline (trial 0) {name}"]) == 2
        assert axes.get_legend() is not None
        assert len({to_rgb(line.get_color()) for line in axes.lines}) == 2


def test_training_curves_without_masks_have_no_pixel_metrics(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_training_curves(tmp_path / "c.png", "part", {"champion": make_trial(0, [0.5, 0.75], masks=False)})
    check_png(tmp_path / "c.png", 1690, 520)
    _, image, pixel = drawn[0].axes
    assert set(curves(image)) == {"champion (trial 0) image_auroc", "champion (trial 0) image_ap"}
    assert not pixel.lines and pixel.get_legend() is None
    assert [text.get_text() for text in pixel.texts] == ["no masks"]


def test_single_epoch_is_visible(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_training_curves(tmp_path / "c.png", "part", {"champion": make_trial(0, [0.5])})
    assert all(line.get_marker() not in ("None", "") for axes in drawn[0].axes for line in axes.lines)


def test_trial_without_epochs_is_omitted(tmp_path: Path, drawn: list[Figure]) -> None:
    trials: dict[str, TrialRecord] = {"baseline": make_trial(0, []), "champion": make_trial(1, [0.5])}
    plot_training_curves(tmp_path / "c.png", "part", trials)
    assert set(curves(drawn[0].axes[2])) == {"champion (trial 1) pixel_auroc", "champion (trial 1) pixel_aupro"}


def test_roc_curves_show_the_auroc_of_each_detector(tmp_path: Path, drawn: list[Figure]) -> None:
    plot_roc_curve(tmp_path / "r.png", "my_part", LABELS, {"baseline": OPPOSITE, "champion": PERFECT})
    check_png(tmp_path / "r.png", 715, 715)
    (axes,) = drawn[0].axes
    found = curves(axes)
    assert (0.0, 1.0) in found["champion: AUROC 1.0000"]
    assert (1.0, 0.0) in found["baseline: AUROC 0.0000"]
    assert "my_part" in axes.get_title() and "4 images" in axes.get_title()
    legend = axes.get_legend()
    assert legend is not None and len(legend.get_texts()) == 2, "the diagonal is not in the legend"


def test_single_roc_curve_is_drawn(tmp_path: Path, drawn: list[Figure]) -> None:
    scores = np.array([0.1, 0.8, 0.2, 0.9], np.float32)
    plot_roc_curve(tmp_path / "r.png", "part", LABELS, {"champion": scores})
    assert "champion: AUROC 0.7500" in curves(drawn[0].axes[0])


def test_figures_leave_no_state_behind(tmp_path: Path) -> None:
    """pyplot keeps figures until they are closed; these figures are created without pyplot."""
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plot_roc_curve(tmp_path / "r.png", "part", LABELS, {"champion": PERFECT})
    assert pyplot.get_fignums() == before
