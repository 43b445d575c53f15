"""Optuna's samplers by the names that --sampler takes, and the search space in Optuna's terms."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from las_tune.space import Choice, Parameter, Space, grid_points, holds


class GridSampler(BaseSampler):
    """Sampler that gives point n to trial n.

    Optuna's own GridSampler does not fit: at the end of the grid it calls study.stop(), which raises outside
    study.optimize(); it proposes points of running trials again; and it does not count the baseline as a point.
    """

    def __init__(self, points: Sequence[dict[str, Any]]) -> None:
        self.points = points

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return an empty space: all parameters are sampled independently."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no parameters: all are sampled independently."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the value of a parameter at the trial's grid point."""
        return self.points[trial.number][param_name]


def suggest_params(space: Space, trial: optuna.Trial) -> dict[str, Any]:
    """Suggest a value for every active parameter. Conditional parameters follow those that they depend on.

    TPE models the parameters that all trials have jointly, and each conditional parameter separately, from the trials
    that have it. Its experimental option group=True differs only if several parameters share a condition.
    """
    values: dict[str, Any] = {}
    for name in sorted(space.parameters, key=lambda name: bool(space.parameters[name].when)):
        parameter = space.parameters[name]
        if not holds(parameter, values):
            continue
        if isinstance(parameter, Choice):
            values[name] = trial.suggest_categorical(name, parameter.values)
        elif parameter.integer:
            values[name] = trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log)
        else:
            values[name] = trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
    return values


def distribution(parameter: Parameter) -> BaseDistribution:
    """Convert a parameter to an Optuna distribution."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.values)
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def make_sampler(name: str, space: Space, *, trials: int, seed: int, number: int = 0) -> BaseSampler:
    """Make the sampler for one trial.

    gp learns from completed trials only and starts after ten of them, so use it with --scheduler none. cmaes samples
    choices at random; it ranks a pruned trial by its last report, which is low, as that is why the trial was pruned.

    Args:
        name: tpe, random, gp, cmaes or grid.
        space: the search space.
        trials: number of trials of the study, which determines the grid.
        seed: seed of the search.
        number: number of the trial. The sampler's own seed is derived from it and from `seed`.
    """
    if name == "grid":
        return GridSampler(grid_points(space, trials, seed))
    seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    if name == "cmaes":
        with warnings.catch_warnings(action="ignore", category=optuna.exceptions.ExperimentalWarning):
            return optuna.samplers.CmaEsSampler(seed=seed, consider_pruned_trials=True, warn_independent_sampling=False)
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    sampler: BaseSampler = samplers[name](seed=seed)
    return sampler
