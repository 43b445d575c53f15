"""The images of a trial: the same four sheets in every one. Runs in a process of its own: no torch, no MLflow."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from las_tune.reporting.contact_sheet import Block, Cell, tile, write_sheet
from las_tune.reporting.panel import FALSE_REJECT, FIXED, MISS, Array, Panel

COLUMNS = 3
"""Pairs of images in a row."""
OUTLINES = "Outlined: the true defect (left), heat above the threshold (right)."
GOOD, DEFECTIVE, INK = "#0072B2", "#E69F00", "#1a1a1a"
"""Blue and orange of Okabe and Ito's palette."""
COLORS: Array = (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
"""(256, 3) uint8, heat 0 to 1: its lightness rises evenly, so it needs no sight of colors."""


def draw_panel(panel: Panel, title: str, folder: Path) -> list[Path]:
    """Write painted.png, heat_maps.png, worst.png and curves.png.

    Args:
        panel: what the worker kept of the best epoch.
        title: category and trial.
        folder: where to; it exists.

    Returns: the four files.
    """
    title = f"{title}, epoch {int(panel.epoch)}"
    files = [folder / f"{name}.png" for name in ("painted", "heat_maps", "worst", "curves")]
    for path, draw in zip(files, (draw_painted, draw_heat_maps, draw_worst, draw_curves), strict=True):
        draw(panel, title, path)
    return files


def draw_painted(panel: Panel, title: str, path: Path) -> None:
    """Good images with painted defects, as they are and outlined; β, and how much of the image is painted."""
    cells = [
        Cell((tile(image), tile(image, mask)), (f"β = {beta:.2f}", f"{mask.mean():.1%} of the image painted"))
        for image, mask, beta in zip(panel.painted, panel.painted_masks, panel.beta, strict=True)
    ]
    note = "β: share of the image kept inside the mask. α shapes the masks. Right: the same, the mask outlined."
    write_sheet(path, f"{title}: painted defects", note, [Block("", cells, COLUMNS)])


def draw_heat_maps(panel: Panel, title: str, path: Path) -> None:
    """The validation images that every trial shows, with true masks and anomaly maps."""
    cells = _cells(panel, FIXED)
    note = f"The same validation images in every trial. {OUTLINES}"
    write_sheet(path, f"{title}: anomaly maps", note, [Block("", cells, COLUMNS)], COLORS)


def draw_worst(panel: Panel, title: str, path: Path) -> None:
    """The worst misses beside the worst false rejects."""
    rejected, labels = panel.scores > panel.threshold, panel.defects > 0
    misses = f"Worst misses ({(~rejected & labels).sum()} of {labels.sum()} defective)"
    false = f"Worst false rejects ({(rejected & ~labels).sum()} of {(~labels).sum()} good)"
    blocks = [Block(misses, _cells(panel, MISS), 1), Block(false, _cells(panel, FALSE_REJECT), 1)]
    note = f"Validation images on the wrong side of the threshold. {OUTLINES}"
    write_sheet(path, f"{title}: worst mistakes", note, blocks, COLORS)


def _cells(panel: Panel, why: int) -> list[Cell]:
    """ImageItem with the true mask's outline, and anomaly map, of those that are shown for one reason."""
    cells = []
    for place in np.flatnonzero(panel.why == why):
        index, image = int(panel.index[place]), panel.images[place]
        score, defect, threshold = float(panel.scores[index]), int(panel.defects[index]), float(panel.threshold)
        is_rejected = score > threshold
        lines = (
            f"{panel.kinds[defect]}: {_verdict(defect > 0, is_rejected)}",
            f"score {score:.3f} {'>' if is_rejected else '≤'} {threshold:.3f}, image {index}",
        )
        mask = panel.masks[place] if len(panel.masks) else None
        images = (tile(image, mask), heat_tile(image, panel.heat[place], threshold))
        cells.append(Cell(images, lines, is_wrong=is_rejected != (defect > 0)))
    return cells


def _verdict(is_defective: bool, is_rejected: bool) -> str:
    """What the detector did, in capitals where it is wrong."""
    if is_defective:
        return "rejected" if is_rejected else "MISSED"
    return "FALSE REJECT" if is_rejected else "passed"


def heat_tile(image: Array, heat: Array, threshold: float) -> Array:
    """An anomaly map over its image in gray; outlined where it exceeds the threshold.

    image  (3, S, S) uint8 RGB
    heat     (S, S) uint8, heat · 255

    Returns: (TILE_PX, TILE_PX, 3) uint8.
    """
    gray = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"), np.float32)
    shown = 0.35 * gray + 0.65 * COLORS[heat].transpose(2, 0, 1)
    return tile(shown.astype(np.uint8), heat > 255 * threshold)


def draw_curves(panel: Panel, title: str, path: Path) -> None:
    """Histogram of scores with the threshold, ROC and PR curve over the validation images."""
    figure = Figure(figsize=(13.5, 4.8), dpi=100)
    figure.suptitle(f"{title}: scores", x=0.01, y=0.985, ha="left", fontsize=14)
    histogram, roc, precision = figure.subplots(1, 3, width_ratios=(1.5, 1, 1))
    figure.subplots_adjust(left=0.045, right=0.99, bottom=0.12, top=0.80, wspace=0.17)
    labels, rejected = panel.defects > 0, panel.scores > panel.threshold
    _draw_histogram(histogram, panel, labels)
    false_positive, true_positive, _ = roc_curve(labels, panel.scores)
    roc.plot(false_positive, true_positive, color=GOOD, linewidth=2)
    roc.plot([0, 1], [0, 1], color="gray", linewidth=0.8, linestyle=":")
    recall, false = (rejected & labels).sum() / labels.sum(), (rejected & ~labels).sum() / (~labels).sum()
    _mark_threshold(roc, false, recall)
    area = roc_auc_score(labels, panel.scores)
    roc.set(title=f"ROC: area {area:.4f}", xlabel="false positive rate", ylabel="true positive rate")
    precisions, recalls, _ = precision_recall_curve(labels, panel.scores)
    precision.plot(recalls, precisions, color=GOOD, linewidth=2, drawstyle="steps-pre")
    precision.axhline(labels.mean(), color="gray", linewidth=0.8, linestyle=":")
    if rejected.any():
        _mark_threshold(precision, recall, (rejected & labels).sum() / rejected.sum())
    average = average_precision_score(labels, panel.scores)
    precision.set(title=f"PR: average precision {average:.4f}", xlabel="recall", ylabel="precision")
    for axes in (roc, precision):
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:  # no point where nothing is rejected
            axes.legend(loc="lower center")
    figure.savefig(path, pil_kwargs={"compress_level": 3})


def _mark_threshold(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "o", color=INK, markersize=9, fillstyle="none", markeredgewidth=2, label="at the threshold")


def _draw_histogram(axes: Axes, panel: Panel, labels: Array) -> None:
    """Good and defective images told by hatching, too; the calibration images as an outline."""
    threshold, bins = float(panel.threshold), np.linspace(0, 1, 41).tolist()
    good, defective = panel.scores[~labels], panel.scores[labels]
    axes.hist(good, bins, color=GOOD, alpha=0.75, label=f"{len(good)} good, validation")
    axes.hist(
        defective, bins, facecolor=f"{DEFECTIVE}B0", edgecolor="#8a5f00", hatch="///",
        label=f"{len(defective)} defective, validation",
    )  # fmt: skip
    calibration = f"{len(panel.normal_scores)} good, calibration"
    axes.hist(panel.normal_scores, bins, histtype="step", color=INK, linewidth=1.5, label=calibration)
    axes.axvline(threshold, color=INK, linestyle="--", linewidth=1.5, label=f"threshold {threshold:.3f}")
    axes.set(xlabel="score (above the threshold: rejected)", ylabel="images", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, frameon=False)  # above: bars stand anywhere
