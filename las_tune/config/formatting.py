"""Numbers as people say them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def format_seconds(seconds: float) -> str:
    """A duration in the unit that fits it.

    >>> [format_seconds(seconds) for seconds in (0.25, 40, 720, 12600)]
    ['0.25 s', '40 s', '12 min', '3.5 h']
    """
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def format_interval(gain: Mapping[str, float | None]) -> str:
    """A gain, and the 95% interval that it lies in; JSON holds null where an end is infinite.

    >>> format_interval({"mean": 0.031, "low": 0.012, "high": 0.055})
    '+0.0310 (+0.0120 to +0.0550)'
    >>> format_interval({"mean": 0.031, "low": None, "high": None})
    '+0.0310 (noise unknown: too few images or seeds)'
    """
    mean, low, high = (gain[name] for name in ("mean", "low", "high"))
    if low is None or high is None or not math.isfinite(high - low):
        return f"{mean:+.4f} (noise unknown: too few images or seeds)"
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def format_params(params: Mapping[str, Any]) -> str:
    """Hyperparameters in a line, with three digits.

    >>> format_params({"adaptor_lr": 1e-4, "alpha": 1 / 3, "foreground": "otsu"})
    'adaptor_lr 0.0001, alpha 0.333, foreground otsu'
    """
    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items())


def format_value(value: Any) -> str:
    """Of one hyperparameter."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
