"""Figures of a study against wall-clock time, which `optuna.visualization` does not have."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from las_tune.config import TrialRecord

COLORS = {"completed": "#0072B2", "pruned": "#E69F00", "failed": "#D55E00", "running": "#999999"}
"""By status, from the color-blind safe palette of Okabe and Ito."""
BEST_COLOR = "#009E73"
X_LABEL = "minutes since the start of the first trial"


@dataclass(frozen=True)
class StudyTimes:
    """The trials of a study on a common time axis.

    category   shown in the titles
    objective  name of the objective that was maximized
    search     trials of the search, by number
    retrained  finalists, retrained with new seeds
    """

    category: str
    objective: str
    search: Sequence[TrialRecord]
    retrained: Sequence[TrialRecord]

    @property
    def baseline_objective(self) -> float | None:
        """The best objective of trial 0; None if it failed or has no epoch."""
        trial = next((trial for trial in self.search if trial.is_baseline and trial.status != "failed"), None)
        return trial.best_objective if trial else None

    def best_so_far(self) -> list[tuple[float, float]]:
        """Return (minutes, objective) wherever the best objective of all epochs increases.

        Failed trials and trials without a known start are excluded.
        """
        epochs = []
        for trial in self.search:
            if trial.started and trial.status != "failed":
                ends = itertools.accumulate(row["seconds"] for row in trial.epochs)
                start = trial.started - self.first_start
                epochs += [(start + end, row["objective"]) for end, row in zip(ends, trial.epochs, strict=True)]
        steps: list[tuple[float, float]] = []
        for seconds, objective in sorted(epochs):
            if not steps or objective > steps[-1][1]:
                steps.append((seconds / 60, objective))
        return steps

    def workers(self) -> dict[str, list[TrialRecord]]:
        """Return the trials of each worker in the order of their start, retrained finalists included."""
        trials = [trial for trial in (*self.search, *self.retrained) if trial.started]
        by_worker: dict[str, list[TrialRecord]] = {}
        for trial in sorted(trials, key=lambda trial: trial.started):
            by_worker.setdefault(trial.worker or "unknown", []).append(trial)
        return by_worker

    @cached_property
    def first_start(self) -> float:
        """Start of the first trial, in seconds since 1970."""
        return min((trial.started for trial in (*self.search, *self.retrained) if trial.started), default=0.0)

    def minutes(self, trial: TrialRecord) -> tuple[float, float]:
        """Return start and end of a trial in minutes since the start of the first trial."""
        ended = trial.ended or trial.started + trial.seconds
        return (trial.started - self.first_start) / 60, (ended - self.first_start) / 60


def draw_best_so_far(times: StudyTimes) -> Figure:
    """Draw the best objective against time. Optuna's optimization history has trial numbers as its x axis."""
    figure, axes = _new_figure(f"{times.category}: best objective against time", (9.0, 4.5))
    steps = times.best_so_far()
    if not steps:
        _write(axes, "No trial finished an epoch, or the start times are unknown.")
        return figure
    last_minute = max(times.minutes(trial)[1] for trial in times.search if trial.started)
    minutes, values = zip(*steps, (max(last_minute, steps[-1][0]), steps[-1][1]), strict=True)
    axes.step(minutes, values, where="post", color=BEST_COLOR, linewidth=1.8, label="best so far")
    baseline, best = times.baseline_objective, values[-1]
    if baseline is not None:
        axes.axhline(baseline, color="black", linestyle="--", linewidth=1, label=f"baseline {baseline:.4f}")
        if best > baseline:  # the first epochs of the first trial would take most of the height
            axes.set_ylim(baseline - 0.6 * (best - baseline), best + 0.15 * (best - baseline))
    axes.set(xlabel=X_LABEL, ylabel=f"{times.objective}, validation")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def draw_timeline(times: StudyTimes) -> Figure:
    """Draw the trials of each worker over time. Optuna's timeline has one row per trial and does not show workers."""
    workers = times.workers()
    figure, axes = _new_figure(f"{times.category}: trials by worker", (10.0, 0.5 * len(workers) + 2.0))
    if not workers:
        _write(axes, "No trial was started.")
        return figure
    spans = {id(trial): times.minutes(trial) for trials in workers.values() for trial in trials}
    last = max(end for _, end in spans.values())
    for row, trials in enumerate(workers.values()):
        for trial in trials:
            start, end = spans[id(trial)]
            hatch = "//" if trial.finalist else None
            axes.barh(row, end - start, left=start, color=COLORS[trial.status], edgecolor="white", hatch=hatch)
            if end - start > 0.02 * last:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.75}
                axes.text((start + end) / 2, row, str(trial.number), ha="center", va="center", fontsize=7, bbox=box)
    for status in dict.fromkeys(trial.status for trials in workers.values() for trial in trials):
        axes.barh(0, 0, color=COLORS[status], label=status)
    if times.retrained:
        axes.barh(0, 0, color="white", edgecolor="gray", hatch="//", label="retrained with a new seed")
    axes.set_yticks(range(len(workers)), list(workers), fontsize=8)
    axes.set(xlabel=X_LABEL)
    axes.invert_yaxis()
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _new_figure(title: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots()
    axes.set_title(title)
    return figure, axes


def _write(axes: Axes, text: str) -> None:
    """Explain an empty figure."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes)
