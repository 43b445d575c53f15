"""Numbers as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from las_tune.config.interval import Interval


def format_seconds(seconds: float) -> str:
    """Return a duration in a suitable unit.

    >>> [format_seconds(seconds) for seconds in (0.25, 40, 720, 12600)]
    ['0.25 s', '40 s', '12 min', '3.5 h']
    """
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_interval(gain: Interval) -> str:
    """Format a gain and its 95% interval.

    >>> format_interval(Interval(0.031, 0.012, 0.055))
    '+0.0310 (+0.0120 to +0.0550)'
    >>> format_interval(Interval(0.031, float("-inf"), float("inf")))
    '+0.0310 (noise unknown: too few images or seeds)'
    """
    if not gain.is_finite:
        return f"{gain.mean:+.4f} (noise unknown: too few images or seeds)"
    return f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def format_params(params: Mapping[str, Any]) -> str:
    """Return hyperparameters in one line, with three significant digits.

    >>> format_params({"adaptor_lr": 1e-4, "alpha": 1 / 3, "foreground": "otsu"})
    'adaptor_lr 0.0001, alpha 0.333, foreground otsu'
    """
    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items())


def format_value(value: Any) -> str:
    """Return the value of a hyperparameter, with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
