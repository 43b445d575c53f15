"""Type of the function that long-running functions report their progress to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a description of the work, the number of steps done so far and the total number of steps."""


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""
