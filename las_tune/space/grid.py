"""A grid over a search space: which values of each knob, and in which order."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable
from typing import Any

from las_tune.config.train_spec import TrainSpec
from las_tune.space.knobs import Choice, Knob, Range
from las_tune.space.search_space import Space, holds

MOST_DRAWN = 16
"""Points drawn for each one wanted, where conditions make several of them one."""


def grid_points(space: Space, trials: int, seed: int) -> list[dict[str, Any]]:
    """The first points of a grid in random order, the baseline before all others.

    Returns: as many points as trials, or fewer where the grid has no more.
    """
    axes = grid_axes(space, trials)
    size = math.prod(map(len, axes.values()))
    drawn = random.Random(seed).sample(range(size), min(trials * MOST_DRAWN, size))  # a grid of choices can be huge
    points = [space.baseline]
    for number in drawn:
        point = space.active(_point(axes, number))
        if len(points) < trials and point not in points:
            points.append(point)
    return points


def grid_axes(space: Space, trials: int) -> dict[str, list[Any]]:
    """The values of every knob: all of a choice, some of a range.

    Ranges start with the seed's value alone. While the grid has fewer points than trials, a range with the fewest
    values gets one more. So it is the smallest grid with enough points whose ranges differ by one value at most.
    Whole numbers can run out; the grid is then every point of the space.
    """
    counts = {name: 1 for name, knob in space.knobs.items() if isinstance(knob, Range)}
    seeds = {name: getattr(TrainSpec(), name) for name in space.knobs}
    axes = {name: axis(knob, seeds[name], 1) for name, knob in space.knobs.items()}
    while _num_points(space, axes) < trials:
        growing = [name for name, count in counts.items() if _can_grow(space.knobs[name], count)]
        if not growing:
            break
        name = min(growing, key=counts.__getitem__)
        counts[name] += 1
        axes[name] = axis(space.knobs[name], seeds[name], counts[name])
    return axes


def axis(knob: Knob, seed: Any, count: int) -> list[Any]:
    """All values of a choice, or count even steps of a range, ends included, the nearest one moved to the seed's."""
    if isinstance(knob, Choice):
        return list(knob.values)
    scale, unscale = (math.log, math.exp) if knob.log else (float, float)
    low, high = scale(knob.low), scale(knob.high)
    steps: Iterable[float] = (unscale(low + (high - low) * step / max(count - 1, 1)) for step in range(count))
    if knob.integer:
        steps = (round(step) for step in steps)
    values = [min(max(step, knob.low), knob.high) for step in steps]  # exp(log(x)) can lie just outside
    nearest = min(range(count), key=lambda index: abs(scale(values[index]) - scale(seed)))
    values[nearest] = seed
    return sorted(set(values))


def _num_points(space: Space, axes: dict[str, list[Any]]) -> int:
    """Points that differ in what trials get."""
    named = {other: axes[other] for knob in space.knobs.values() for other in knob.when}
    others = {name: knob for name, knob in space.knobs.items() if name not in named}
    settings = (dict(zip(named, values, strict=True)) for values in itertools.product(*named.values()))
    return sum(math.prod(len(axes[name]) for name in others if holds(others[name], values)) for values in settings)


def _can_grow(knob: Knob, count: int) -> bool:
    """Whether a range has a value more: a whole one has only so many."""
    return isinstance(knob, Range) and (not knob.integer or count <= knob.high - knob.low)


def _point(axes: dict[str, list[Any]], number: int) -> dict[str, Any]:
    """The point of a number: its digits, each in the base of an axis's length."""
    point = {}
    for name, values in axes.items():
        number, digit = divmod(number, len(values))
        point[name] = values[digit]
    return point
