"""The grid is small, evenly spaced, and includes the baseline."""

from __future__ import annotations

from typing import Any

import pytest

from las_tune.space.grid import axis, grid_axes, grid_points
from las_tune.space.parameters import Choice, Parameter, Range
from las_tune.space.search_space import Space, load_space

CORE = load_space("core")
CONDITIONAL = Space(
    "conditional",
    {
        "adaptor_lr": Range(1e-5, 1e-3, log=True, when={"use_adaptor": (True,)}),
        "alpha": Range(0.0, 0.5),
        "use_adaptor": Choice((True, False)),
    },
    sources=(),
)
MIXED = Space(
    "mixed",
    {
        "adaptor_lr": Range(1e-5, 1e-3, log=True),
        "alpha": Range(0.0, 0.5),
        "perlin_max_exponent": Range(4, 6, integer=True),
        "foreground": Choice(("otsu", "none")),
    },
    sources=(),
)


@pytest.mark.parametrize(
    ("parameter", "baseline", "count", "values"),
    [
        (Range(0.0, 0.5), 1 / 3, 1, [1 / 3]),
        (Range(0.0, 0.5), 1 / 3, 2, [0.0, 1 / 3]),
        (Range(0.0, 0.5), 1 / 3, 3, [0.0, 1 / 3, 0.5]),
        (Range(1e-5, 1e-3, log=True), 1e-4, 5, [1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3]),
        (Range(4, 6, integer=True), 5, 3, [4, 5, 6]),
        (Range(1, 100, log=True, integer=True), 10, 3, [1, 10, 100]),
        (Choice(("otsu", "none")), "otsu", 1, ["otsu", "none"]),
    ],
)
def test_axis_has_even_steps_and_the_baseline(
    parameter: Parameter, baseline: Any, count: int, values: list[Any]
) -> None:
    steps = axis(parameter, baseline, count)
    assert steps == (values if isinstance(parameter, Choice) else pytest.approx(values))
    assert baseline in steps and all(parameter.contains(value) for value in steps)
    assert [type(value) for value in steps] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("space", "trials", "lengths"),
    [
        (CORE, 32, [2, 2, 2, 2, 2]),
        (CORE, 33, [3, 2, 2, 2, 2]),
        (CORE, 1, [1, 1, 1, 1, 1]),
        (MIXED, 5, [2, 2, 1, 2]),
        (MIXED, 100, [5, 4, 3, 2]),  # the integer range has only three values
    ],
)
def test_grid_is_the_smallest_with_enough_points(space: Space, trials: int, lengths: list[int]) -> None:
    assert [len(values) for values in grid_axes(space, trials).values()] == lengths


def test_grid_has_distinct_points_and_starts_with_the_baseline() -> None:
    points = grid_points(MIXED, 24, seed=0)
    assert points[0] == MIXED.baseline
    assert len({tuple(point.values()) for point in points}) == 24
    assert grid_points(MIXED, 24, seed=1)[1:] != points[1:]


def test_inactive_parameters_give_no_duplicate_points() -> None:
    parameters: dict[str, Parameter] = {
        "alpha": Choice((0.0, 0.5, 1 / 3), when={"foreground": ("none",)}),
        "foreground": Choice(("otsu", "none")),
    }
    points = grid_points(Space("when", parameters, sources=()), 32, seed=0)
    assert points[0] == {"foreground": "otsu"}
    assert sorted(point["alpha"] for point in points[1:]) == [0.0, 1 / 3, 0.5]
