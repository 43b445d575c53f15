"""Numbers as people say them."""

from __future__ import annotations


def format_seconds(seconds: float) -> str:
    """A duration in the unit that fits it.

    >>> [format_seconds(seconds) for seconds in (0.25, 40, 720, 12600)]
    ['0.25 s', '40 s', '12 min', '3.5 h']
    """
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
