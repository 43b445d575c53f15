"""Grid search: the values of each parameter and the order of the points."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable
from typing import Any

from las_tune.config import TrainSpec
from las_tune.space.parameters import Choice, Parameter, Range
from las_tune.space.search_space import Space, holds

MAX_DRAWS_PER_POINT = 16
"""Points drawn per requested point, since conditions can make several points equal."""


def grid_points(space: Space, trials: int, seed: int) -> list[dict[str, Any]]:
    """Return points of the grid in random order, with the baseline first.

    Args:
        space: the search space.
        trials: number of points wanted. Fewer are returned if the grid has fewer.
        seed: random seed of the order.
    """
    axes = grid_axes(space, trials)
    size = math.prod(map(len, axes.values()))
    # The grid is sampled, not enumerated, because a grid over many choices can be huge.
    drawn = random.Random(seed).sample(range(size), min(trials * MAX_DRAWS_PER_POINT, size))
    points = [space.baseline]
    for number in drawn:
        point = space.active(_point(axes, number))
        if len(points) < trials and point not in points:
            points.append(point)
    return points


def grid_axes(space: Space, trials: int) -> dict[str, list[Any]]:
    """Return the grid values of every parameter: all values of a choice, a few steps of a range.

    Each range starts with the baseline value alone. As long as the grid has fewer points than trials, a range with the
    fewest values gets one more. The result is the smallest grid with enough points whose ranges differ by at most one
    value. If all ranges are integer ranges and run out of values, the grid is the whole space.
    """
    counts = {name: 1 for name, parameter in space.parameters.items() if isinstance(parameter, Range)}
    baseline = {name: getattr(TrainSpec(), name) for name in space.parameters}
    axes = {name: axis(parameter, baseline[name], 1) for name, parameter in space.parameters.items()}
    while _num_points(space, axes) < trials:
        growing = [name for name, count in counts.items() if _can_grow(space.parameters[name], count)]
        if not growing:
            break
        name = min(growing, key=counts.__getitem__)
        counts[name] += 1
        axes[name] = axis(space.parameters[name], baseline[name], counts[name])
    return axes


def axis(parameter: Parameter, baseline: Any, count: int) -> list[Any]:
    """Return the grid values of one parameter.

    Args:
        parameter: a choice, which has all its values, or a range.
        baseline: the baseline value. It replaces the nearest step of a range.
        count: number of evenly spaced steps of a range, both bounds included. Ignored for a choice.
    """
    if isinstance(parameter, Choice):
        return list(parameter.values)
    scale, unscale = (math.log, math.exp) if parameter.log else (float, float)
    low, high = scale(parameter.low), scale(parameter.high)
    steps: Iterable[float] = (unscale(low + (high - low) * step / max(count - 1, 1)) for step in range(count))
    if parameter.integer:
        steps = (round(step) for step in steps)
    # Rounding in exp(log(x)) can move a step just outside the range.
    values = [min(max(step, parameter.low), parameter.high) for step in steps]
    nearest = min(range(count), key=lambda index: abs(scale(values[index]) - scale(baseline)))
    values[nearest] = baseline
    return sorted(set(values))


def _num_points(space: Space, axes: dict[str, list[Any]]) -> int:
    """Return the number of distinct points once inactive parameters are left out."""
    conditions = {name: axes[name] for parameter in space.parameters.values() for name in parameter.when}
    remaining = {name: parameter for name, parameter in space.parameters.items() if name not in conditions}
    settings = (dict(zip(conditions, values, strict=True)) for values in itertools.product(*conditions.values()))
    return sum(
        math.prod(len(axes[name]) for name in remaining if holds(remaining[name], values)) for values in settings
    )


def _can_grow(parameter: Parameter, count: int) -> bool:
    """Return whether a range has further values. An integer range can run out of them."""
    return isinstance(parameter, Range) and (not parameter.integer or count <= parameter.high - parameter.low)


def _point(axes: dict[str, list[Any]], number: int) -> dict[str, Any]:
    """Return the point with this number, whose digits in the mixed radix of the axis lengths are value indices."""
    point = {}
    for name, values in axes.items():
        number, digit = divmod(number, len(values))
        point[name] = values[digit]
    return point
