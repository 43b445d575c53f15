"""The parameters of a search space: a range or a choice each, with an optional condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Condition: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Allowed values by name of another parameter. A trial has the conditional parameter only where all of them match."""


@dataclass(frozen=True)
class Range:
    """Numbers between two bounds, both included."""

    low: float
    high: float
    log: bool = False
    """Whether the range is sampled on a logarithmic scale."""
    integer: bool = False
    """Whether only integers are allowed. Both bounds are then int, otherwise float."""
    reason: str = ""
    when: Condition = field(default_factory=dict)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Both bounds. TrainSpec accepts a range if it accepts its bounds."""
        return (self.low, self.high)

    @property
    def range_text(self) -> str:
        """The range for display, such as `1e-05 to 0.001, log`."""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"

    def contains(self, value: Any) -> bool:
        """Return whether a trial may have this value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and not (self.integer and value % 1)


@dataclass(frozen=True)
class Choice:
    """A list of unordered values."""

    values: tuple[Any, ...]
    reason: str = ""
    when: Condition = field(default_factory=dict)

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values, because they have no order."""
        return self.values

    @property
    def range_text(self) -> str:
        """The values for display, such as `otsu or none`."""
        return " or ".join(map(str, self.values))

    def contains(self, value: Any) -> bool:
        """Return whether a trial may have this value. True and 1 are different values."""
        return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in self.values)


Parameter: TypeAlias = Range | Choice
