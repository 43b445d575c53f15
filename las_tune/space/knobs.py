"""What one knob of a search space may be: a range or a choice, and when a trial gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Condition: TypeAlias = Mapping[str, tuple[Any, ...]]
"""By name of another knob, the values that it must have, any of them; a trial gets the knob where all of it holds."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included."""

    low: float
    high: float
    log: bool = False
    """Searched evenly in its logarithm."""
    integer: bool = False
    """Whole numbers only; the ends are ints then, and floats otherwise."""
    reason: str = ""
    when: Condition = field(default_factory=dict)

    @property
    def ends(self) -> tuple[Any, ...]:
        """Both ends: where TrainSpec accepts them, it accepts what lies between."""
        return (self.low, self.high)

    @property
    def range_text(self) -> str:
        """As people write it."""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"

    def contains(self, value: Any) -> bool:
        """Whether a trial may have this value."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and not (self.integer and value % 1)


@dataclass(frozen=True)
class Choice:
    """A few values without order."""

    values: tuple[Any, ...]
    reason: str = ""
    when: Condition = field(default_factory=dict)

    @property
    def ends(self) -> tuple[Any, ...]:
        """All values: they have no order."""
        return self.values

    @property
    def range_text(self) -> str:
        """As people write it."""
        return " or ".join(map(str, self.values))

    def contains(self, value: Any) -> bool:
        """Whether a trial may have this value; True and 1 are two."""
        return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in self.values)


Knob: TypeAlias = Range | Choice
