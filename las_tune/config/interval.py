"""A difference between two detectors, with its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A gain in an objective and the ends of its interval, which are infinite if the noise is unknown."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} (95% interval {self.low:.3f} to {self.high:.3f})"

    @property
    def is_finite(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.high - self.low)

    def to_json(self) -> dict[str, float | None]:
        """Return the interval as a JSON value, with null for an infinite end."""
        ends = {"low": self.low, "high": self.high}
        return {"mean": self.mean} | {name: end if math.isfinite(end) else None for name, end in ends.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, float | None]) -> Interval:
        """Restore an interval from the output of `to_json`."""
        mean, low, high = content["mean"], content["low"], content["high"]
        assert mean is not None, "only the ends can be infinite"
        return cls(mean, -math.inf if low is None else low, math.inf if high is None else high)
