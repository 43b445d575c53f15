"""Draws the image panel of a trial as four PNG files, in a separate process that loads neither torch nor MLflow."""

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
"""Pairs of images per row."""
OUTLINES = "Outlines: ground truth (left), anomaly map above the threshold (right)."
GOOD, DEFECTIVE, INK = "#0072B2", "#E69F00", "#1a1a1a"
"""Blue and orange of the color-blind safe palette of Okabe and Ito."""
COLORS: Array = (matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
"""(256, 3) uint8, colors of an anomaly map from 0 to 1. Lightness increases evenly, so no color vision is needed."""


def draw_panel(panel: Panel, title: str, folder: Path) -> list[Path]:
    """Write synthetic_defects.png, anomaly_maps.png, worst.png and curves.png.

    Args:
        panel: images of the best epoch.
        title: category and trial.
        folder: an existing folder.

    Returns: the four files.
    """
    title = f"{title}, epoch {int(panel.epoch)}"
    files = [folder / f"{name}.png" for name in ("synthetic_defects", "anomaly_maps", "worst", "curves")]
    for path, draw in zip(files, (draw_synthetic_defects, draw_anomaly_maps, draw_worst, draw_curves), strict=True):
        draw(panel, title, path)
    return files


def draw_synthetic_defects(panel: Panel, title: str, path: Path) -> None:
    """Draw good images with synthetic defects, without and with the outline of the mask."""
    cells = [
        Cell((tile(image), tile(image, mask)), (f"β = {beta:.2f}", f"{mask.mean():.1%} of the image defective"))
        for image, mask, beta in zip(panel.synthetic, panel.synthetic_masks, panel.beta, strict=True)
    ]
    note = "β: share of the image kept inside the mask. α: shape of the masks. Right: with the mask outlined."
    write_sheet(path, f"{title}: synthetic defects", note, [Block("", cells, COLUMNS)])


def draw_anomaly_maps(panel: Panel, title: str, path: Path) -> None:
    """Draw the validation images that every trial shows, with ground truth and anomaly maps."""
    cells = _cells(panel, FIXED)
    note = f"The same validation images in every trial. {OUTLINES}"
    write_sheet(path, f"{title}: anomaly maps", note, [Block("", cells, COLUMNS)], COLORS)


def draw_worst(panel: Panel, title: str, path: Path) -> None:
    """Draw the worst misses and the worst false rejects."""
    rejected, labels = panel.scores > panel.threshold, panel.defects > 0
    misses = f"Worst misses ({(~rejected & labels).sum()} of {labels.sum()} defective)"
    false = f"Worst false rejects ({(rejected & ~labels).sum()} of {(~labels).sum()} good)"
    blocks = [Block(misses, _cells(panel, MISS), 1), Block(false, _cells(panel, FALSE_REJECT), 1)]
    note = f"Validation images on the wrong side of the threshold. {OUTLINES}"
    write_sheet(path, f"{title}: worst errors", note, blocks, COLORS)


def _cells(panel: Panel, reason: int) -> list[Cell]:
    """Return the images that are shown for a reason: with the outline of the ground truth, and the anomaly map."""
    cells = []
    for position in np.flatnonzero(panel.reasons == reason):
        index, image = int(panel.index[position]), panel.images[position]
        score, defect, threshold = float(panel.scores[index]), int(panel.defects[index]), float(panel.threshold)
        is_rejected = score > threshold
        lines = (
            f"{panel.defect_types[defect]}: {_verdict(defect > 0, is_rejected)}",
            f"score {score:.3f} {'>' if is_rejected else '≤'} {threshold:.3f}, image {index}",
        )
        mask = panel.masks[position] if len(panel.masks) else None
        images = (tile(image, mask), anomaly_tile(image, panel.anomaly_maps[position], threshold))
        cells.append(Cell(images, lines, is_wrong=is_rejected != (defect > 0)))
    return cells


def _verdict(is_defective: bool, is_rejected: bool) -> str:
    """Return the verdict, in capitals if it is wrong."""
    if is_defective:
        return "rejected" if is_rejected else "MISSED"
    return "FALSE REJECT" if is_rejected else "passed"


def anomaly_tile(image: Array, anomaly_map: Array, threshold: float) -> Array:
    """Return the anomaly map over the gray image, outlined where it exceeds the threshold.

    Args:
        image: (3, S, S) uint8 RGB.
        anomaly_map: (S, S) uint8, anomaly map in [0, 1] times 255.
        threshold: in [0, 1].

    Returns: (TILE_PX, TILE_PX, 3) uint8.
    """
    gray = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L"), np.float32)
    blended = 0.35 * gray + 0.65 * COLORS[anomaly_map].transpose(2, 0, 1)
    return tile(blended.astype(np.uint8), anomaly_map > 255 * threshold)


def draw_curves(panel: Panel, title: str, path: Path) -> None:
    """Draw a histogram of the scores, the ROC curve and the precision-recall curve of the validation images."""
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
    roc.set(title=f"ROC: AUROC {area:.4f}", xlabel="false positive rate", ylabel="true positive rate")
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
        if axes.get_legend_handles_labels()[0]:  # without a rejected image there is no precision to mark
            axes.legend(loc="lower center")
    figure.savefig(path, pil_kwargs={"compress_level": 3})


def _mark_threshold(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "o", color=INK, markersize=9, fillstyle="none", markeredgewidth=2, label="at the threshold")


def _draw_histogram(axes: Axes, panel: Panel, labels: Array) -> None:
    """Draw scores of good, defective and calibration images; hatching and outline distinguish them without color."""
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
    axes.set(xlabel="image score (rejected above the threshold)", ylabel="images", xlim=(0, 1))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, frameon=False
    )  # above the axes, clear of the bars
