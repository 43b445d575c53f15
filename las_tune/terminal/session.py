"""Searches and training runs with a live display in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from las_tune import __version__
from las_tune.config import StudySpec
from las_tune.terminal.progress import StudyConsole

if TYPE_CHECKING:
    from las_tune.execution import Plan
    from las_tune.reporting import RunSummary
    from las_tune.study import SingleResult

# The functions import las_tune.study when they run: it loads torch and Ray, and the title is printed before that.


def search(specs: Sequence[StudySpec]) -> RunSummary:
    """Search the categories of one run; see `launch_search`."""
    with StudyConsole(f"las_tune {__version__}: {_describe(specs)}", specs) as console:
        from las_tune.study import launch_search

        return launch_search(specs, lambda spec: [console.study(spec.category)], console.progress)


def plan(specs: Sequence[StudySpec]) -> Plan:
    """Estimate the cost of a search; see `launch_plan`."""
    with StudyConsole(f"las_tune {__version__}: plan of {_describe(specs)}", specs) as console:
        from las_tune.study import launch_plan

        return launch_plan(specs, console.progress)


def train_detector(spec: StudySpec) -> SingleResult:
    """Train a single detector; see `launch_training`."""
    title = f"las_tune {__version__}: training {spec.study}, {spec.train.epochs} epochs"
    with StudyConsole(title, [replace(spec, trials=1)], is_search=False) as console:
        from las_tune.study import launch_training

        return launch_training(spec, [console.study(spec.category)], console.progress)


def _describe(specs: Sequence[StudySpec]) -> str:
    """Describe a run for its title."""
    first, is_single = specs[0], len(specs) == 1
    name = f"study {first.study}" if is_single else f"run {first.run}, {len(specs)} categories"
    demo = "  (DEMO: rendered images)" if first.demo else ""
    return f"{name}, {first.trials} trials of {first.train.epochs} epochs{'' if is_single else ' each'}{demo}"
