"""The figures of a whole study: six as PNG, and one page of the same where people can hover."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution

from las_tune.config.trial_record import TrialRecord
from las_tune.reporting.study_page import write_page
from las_tune.reporting.study_points import BASELINE_COLOR, BEST_COLOR, COLORS, NOT_SET, StudyPoints

DPI = 120
MARKERS = {"completed": "o", "pruned": "v", "failed": "X", "running": "s"}
GROUND = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.75}
"""Of text that stands on lines and bars: black is hard to read on blue."""
OBJECTIVE_COLORS = "cividis"
"""Of an objective: read alike by the color-blind."""


def write_study_figures(
    folder: Path,
    category: str,
    trials: Sequence[TrialRecord],
    objective: str,
    distributions: Mapping[str, BaseDistribution],
) -> list[Path]:
    """Draw a study.

    Args:
        folder: where the files go.
        category: for the titles.
        trials: of the search, and those trained again.
        objective: what was maximized.
        distributions: of the hyperparameters searched.

    Returns: study.html and the PNGs.
    """
    searched = [trial for trial in trials if not trial.finalist]
    points = StudyPoints(category, objective, searched, [t for t in trials if t.finalist], distributions)
    with warnings.catch_warnings(action="ignore"):  # Optuna's, of what is experimental, and of few trials
        return [write_page(folder / "study.html", points), *_write_images(folder, points)]


def _write_images(folder: Path, points: StudyPoints) -> list[Path]:
    drawn = {
        "optimization_history": (_history, (9.0, 4.5)),
        "best_so_far": (_best_so_far, (9.0, 4.5)),
        "importance": (_importance, (8.0, 0.45 * len(points.distributions) + 1.8)),
        "parallel_coordinates": (_parallel_coordinates, (1.5 * len(points.distributions) + 3.5, 5.0)),
        "timeline": (_timeline, (10.0, 0.5 * len(points.lanes()) + 2.0)),
    }
    files = []
    for name, (draw, size) in drawn.items():
        figure = Figure(figsize=size, layout="constrained", facecolor="white")
        draw(figure.subplots(), points)
        files.append(_save(figure, folder / f"{name}.png"))
    return [*files, _save(_slices(points), folder / "slices.png")]


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=DPI)
    return path


def _say(axes: Axes, text: str) -> None:
    """A figure that has nothing to show says why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)


def _history(axes: Axes, points: StudyPoints) -> None:
    axes.set_title(f"{points.category}: objective of each trial at its best epoch")
    if not points.scored:
        return _say(axes, "no trial ended an epoch")
    for status in dict.fromkeys(trial.status for trial in points.scored):
        of_status = [trial for trial in points.scored if trial.status == status]
        values = [trial.best_objective for trial in of_status]
        marks = {"color": COLORS[status], "marker": MARKERS[status], "label": f"{status} ({len(of_status)})"}
        axes.scatter([t.number for t in of_status], values, s=36, zorder=3, **marks)  # type: ignore[arg-type]
    failed = [trial.number for trial in points.trials if trial.status == "failed"]
    if failed:
        axes.scatter(
            failed, [points.floor] * len(failed), color=COLORS["failed"], marker="X", label=f"failed ({len(failed)})"
        )
    best = np.maximum.accumulate([trial.best_objective or 0.0 for trial in points.scored])
    numbers = [trial.number for trial in points.scored]
    axes.step(numbers, best, where="post", color=BEST_COLOR, label="best so far", linewidth=1.6)
    _mark_baseline(axes, points)
    axes.set(xlabel="trial", ylabel=f"{points.objective}, validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _mark_baseline(axes: Axes, points: StudyPoints) -> None:
    if points.baseline_objective is not None:
        label = f"baseline {points.baseline_objective:.4f}"
        axes.axhline(points.baseline_objective, color=BASELINE_COLOR, linestyle="--", linewidth=1, label=label)


def _best_so_far(axes: Axes, points: StudyPoints) -> None:
    axes.set_title(f"{points.category}: best objective against time")
    steps = points.best_so_far()
    if not steps:
        return _say(axes, "no trial ended an epoch, or it is not known when they started")
    times, values = zip(*steps, (max(points.last_minute, steps[-1][0]), steps[-1][1]), strict=True)
    axes.step(times, values, where="post", color=BEST_COLOR, linewidth=1.8, label="best so far")
    _mark_baseline(axes, points)
    axes.set(xlabel="minutes since the first trial started", ylabel=f"{points.objective}, validation")
    axes.set(ylim=points.heights() or axes.get_ylim())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")


def _importance(axes: Axes, points: StudyPoints) -> None:
    axes.set_title(f"{points.category}: importance of hyperparameters (PED-ANOVA)")
    importances = points.importances()
    if not importances:
        return _say(axes, "too few trials, or all alike: nothing can be said of importance")
    names, values = list(importances)[::-1], list(importances.values())[::-1]
    bars = axes.barh(names, values, color=COLORS["completed"])
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.set(
        xlabel=f"share of what tells good trials from others, of {len(points.scored)}; 1 in all, if none matters, too"
    )
    axes.margins(x=0.12)
    axes.grid(alpha=0.3, axis="x")


def _parallel_coordinates(axes: Axes, points: StudyPoints) -> None:
    axes.set_title(f"{points.category}: hyperparameters of all trials, colored by {points.objective}")
    names = list(points.distributions)
    if not points.scored or not names:
        return _say(axes, "no trial ended an epoch")
    color_of, best = _color_of(points), max(t.best_objective or 0.0 for t in points.scored)
    lines = zip(points.scored, zip(*(points.along(name) for name in names), strict=True), strict=True)
    for trial, heights in sorted(lines, key=lambda line: line[0].best_objective or 0.0):
        is_best = trial.best_objective == best
        axes.plot(heights, color=color_of(trial), linewidth=2.6 if is_best else 0.9, alpha=1.0 if is_best else 0.7)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    for place, name in enumerate(names):
        axes.axvline(place, color="gray", linewidth=0.8)
        is_set = all(name in trial.params for trial in points.scored)
        for height, text in [*points.ticks(name), *([] if is_set else [(NOT_SET, "not set")])]:
            axes.annotate(text, (place + 0.02, height), va="center", fontsize=8, bbox=GROUND)
    axes.set(ylim=(NOT_SET - 0.05, 1.05), xlim=(-0.2, len(names) - 0.6), yticks=[])
    colors = Normalize(*points.colors)
    mappable = axes.scatter([], [], c=[], cmap=OBJECTIVE_COLORS, norm=colors)
    axes.figure.colorbar(mappable, ax=axes, label=points.objective)


def _color_of(points: StudyPoints) -> Callable[[TrialRecord], tuple[float, ...]]:
    normalize, colors = Normalize(*points.colors, clip=True), colormaps[OBJECTIVE_COLORS]
    return lambda trial: colors(float(normalize(trial.best_objective or 0.0)))


def _slices(points: StudyPoints) -> Figure:
    names = list(points.distributions)
    columns = min(4, max(1, len(names)))
    rows = -(-max(1, len(names)) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * rows + 0.5), layout="constrained", facecolor="white")
    figure.suptitle(f"{points.category}: {points.objective} by each hyperparameter")
    if not points.scored:
        _say(figure.subplots(), "no trial ended an epoch")
        return figure
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        labels = points.labels(name)
        for status in dict.fromkeys(trial.status for trial in points.scored):
            _, values, objectives = points.slice(name, status)
            marks = {"color": COLORS[status], "marker": MARKERS[status], "label": status}
            axes.scatter(values, objectives, s=18, alpha=0.8, **marks)
        if points.baseline_objective is not None:
            axes.axhline(
                points.baseline_objective, color=BASELINE_COLOR, linestyle="--", linewidth=0.8, label="baseline"
            )
        axes.set(xlabel=name, xscale="log" if getattr(points.distributions[name], "log", False) else "linear")
        if labels:
            axes.set_xticks(range(len(labels)), labels)
            axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.grid(alpha=0.3)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize=7)
    return figure


def _timeline(axes: Axes, points: StudyPoints) -> None:
    axes.set_title(f"{points.category}: what ran where")
    lanes = points.lanes()
    if not lanes:
        return _say(axes, "nothing ran")
    last = max(points.minutes(trial)[1] for _, trials in lanes for trial in trials)
    for lane, (_, trials) in enumerate(lanes):
        for trial in trials:
            start, end = points.minutes(trial)
            hatch = "//" if trial.finalist else None
            axes.barh(lane, end - start, left=start, color=COLORS[trial.status], edgecolor="white", hatch=hatch)
            if end - start > 0.02 * last:
                number = str(trial.number)
                axes.text((start + end) / 2, lane, number, ha="center", va="center", fontsize=7, bbox=GROUND)
    for status in dict.fromkeys(trial.status for _, trials in lanes for trial in trials):
        axes.barh(0, 0, color=COLORS[status], label=status)
    if points.again:
        axes.barh(0, 0, color="white", edgecolor="gray", hatch="//", label="trained again")
    axes.set_yticks(range(len(lanes)), [worker for worker, _ in lanes], fontsize=8)
    axes.set(xlabel="minutes since the first trial started")
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
