"""Baseline, champion, gain and memory bank side by side: the rows that terminal, MLflow and notebooks show.

Tables that are made from MLflow's runs (las_tune.tracking.tables) take only the text of the gain from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from las_tune.config import METRIC_OF, Interval, Objective, format_interval, objective_value
from las_tune.reporting.summary import Summary

GAIN = "gain (95% interval)"
"""Title of the column."""
KEPT = "baseline kept"
"""Shown instead of a gain if the champion is the baseline."""
OBJECTIVE_OF = {metric: objective for objective, metric in METRIC_OF.items()}
"""Objective that corresponds to a metric of another name; gains are stored by objective."""


@dataclass(frozen=True)
class Row:
    """One metric; means over seeds."""

    images: str
    """The images that were scored: validation, or the name of the test."""
    metric: str
    baseline: float
    champion: float
    memory_bank: float
    gain: str


def gain_rows(summary: Summary) -> list[Row]:
    """Return the objective on validation images, the objective on the test, then every metric of the test."""
    interval, means = summary.validation_gain, summary.validation_mean
    gain = format_interval(interval) if interval else KEPT
    rows = [Row("validation", summary.objective, means.baseline, means.champion, means.memory_bank, gain)]
    tests = summary.test_mean
    baseline, champion, memory_bank = (
        _objective_first(summary.objective, metrics) for metrics in (tests.baseline, tests.champion, tests.memory_bank)
    )
    for name in champion:
        gain = format_test_gain(summary.test_gain, name, champion[name] - baseline[name])
        rows.append(Row(summary.test_name, name, baseline[name], champion[name], memory_bank[name], gain))
    return rows


def _objective_first(objective: Objective, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics with the objective first, computed if it is not among them."""
    name = METRIC_OF.get(objective, objective)
    return {name: objective_value(objective, metrics)} | dict(metrics)


def format_test_gain(gains: Mapping[str, Interval] | None, metric: str, difference: float) -> str:
    """Format the gain of the champion in one metric of the test.

    Args:
        gains: intervals by objective, as in `Summary.test_gain`; None if the study has no summary.
        metric: name of the metric.
        difference: champion minus baseline, shown if no interval was computed.
    """
    if gains == {} or (gains is None and not difference):
        return KEPT
    interval = (gains or {}).get(OBJECTIVE_OF.get(metric, metric))
    return format_interval(interval) if interval else f"{difference:+.4f}"
