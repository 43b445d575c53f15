"""Baseline, champion, gain and memory bank, side by side: what the terminal, MLflow and notebooks tell of a summary.

Tables of what MLflow holds (tables.py) have rows of their own, and the cell of the gain from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from las_tune.config.formatting import format_interval
from las_tune.config.objectives import METRIC_OF, objective_value

GAIN = "gain (95% interval)"
KEPT = "baseline kept"
OBJECTIVE_OF = {metric: objective for objective, metric in METRIC_OF.items()}
"""Intervals are kept by objective."""


@dataclass(frozen=True)
class Row:
    """One number, as means over seeds."""

    where: str
    """validation, or the test by its name."""
    metric: str
    baseline: float
    champion: float
    memory_bank: float
    gain: str


def gain_rows(summary: Mapping[str, Any]) -> list[Row]:
    """The objective on validation images, the objective on the test, then every metric of the test.

    Args:
        summary: see tuning/conclude.py.
    """
    interval = summary["validation_gain"]
    gain = format_interval(interval) if interval else KEPT
    rows = [Row("validation", summary["objective"], **summary["validation_mean"], gain=gain)]
    means = {role: _objective_first(summary["objective"], metrics) for role, metrics in summary["test_mean"].items()}
    for name in means["champion"]:
        of_role = {role: metrics[name] for role, metrics in means.items()}
        gain = gain_on_test(summary, name, of_role["champion"] - of_role["baseline"])
        rows.append(Row(summary["test_name"], name, **of_role, gain=gain))
    return rows


def _objective_first(objective: Any, metrics: Mapping[str, float]) -> dict[str, float]:
    """What was searched for is told first, also where it is no metric of its own."""
    name = METRIC_OF.get(objective, objective)
    return {name: objective_value(objective, metrics)} | dict(metrics)


def gain_on_test(summary: Mapping[str, Any], name: str, difference: float) -> str:
    """Of the champion in one metric: with its interval where one was computed; summary may be empty."""
    gains = summary.get("test_gain")
    if gains == {} or (gains is None and not difference):
        return KEPT
    interval = (gains or {}).get(OBJECTIVE_OF.get(name, name))
    return format_interval(interval) if interval else f"{difference:+.4f}"
