"""What proposes trials: Optuna's samplers by their names, and how a search space is asked for."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from las_tune.space.grid import grid_points
from las_tune.space.knobs import Choice, Knob
from las_tune.space.search_space import Space, holds


class GridSampler(BaseSampler):
    """Trial n has point n.

    Optuna's own stops study.optimize at the end, which raises where trials are asked for and told; proposes points
    again that still run; and does not count the baseline as one of its points.
    """

    def __init__(self, points: Sequence[dict[str, Any]]) -> None:
        self.points = points

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """No knob depends on others."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing: all knobs are drawn by themselves."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """One knob's value."""
        return self.points[trial.number][param_name]


def draw(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Ask for the knobs that a trial gets, those with a condition last: it names knobs without one.

    TPE models the knobs that all trials have jointly, and one with a condition by itself, from the trials that have it.
    Its experimental group=True differs only where several knobs share a condition.
    """
    values: dict[str, Any] = {}
    for name in sorted(space.knobs, key=lambda name: bool(space.knobs[name].when)):
        knob = space.knobs[name]
        if not holds(knob, values):
            continue
        if isinstance(knob, Choice):
            values[name] = trial.suggest_categorical(name, knob.values)
        elif knob.integer:
            values[name] = trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.log)
        else:
            values[name] = trial.suggest_float(name, knob.low, knob.high, log=knob.log)
    return values


def distribution(knob: Knob) -> BaseDistribution:
    """A knob as one of Optuna's distributions."""
    if isinstance(knob, Choice):
        return CategoricalDistribution(knob.values)
    if knob.integer:
        return IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return FloatDistribution(knob.low, knob.high, log=knob.log)


def make_sampler(name: str, space: Space, *, trials: int, seed: int, number: int = 0) -> BaseSampler:
    """A sampler by the name that --sampler takes, seeded for the trial of a number.

    gp learns from trials that ran to their end only, and starts after ten of these: it goes with --scheduler none.
    cmaes draws choices at random. It ranks a pruned trial by its last report, which is low: that is why it was pruned.
    """
    if name == "grid":
        return GridSampler(grid_points(space, trials, seed))
    seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "gp":
        logging.getLogger("optuna._gp").setLevel(logging.ERROR)  # it warns that greenlet would save milliseconds
        return optuna.samplers.GPSampler(seed=seed)
    if name == "cmaes":
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            return optuna.samplers.CmaEsSampler(seed=seed, consider_pruned_trials=True, warn_independent_sampling=False)
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    sampler: BaseSampler = samplers[name](seed=seed)
    return sampler
