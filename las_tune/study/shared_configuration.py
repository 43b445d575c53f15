"""One configuration for several categories: the best on average, and what each category loses with it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from las_tune.reporting import SharedConfiguration
from las_tune.selection import BASELINE, BEST_OF
from las_tune.study.trained_study import TrainedStudy


def best_shared_configuration(studies: Mapping[str, TrainedStudy]) -> SharedConfiguration:
    """Choose between the baseline and the best trial of each category by the mean regret over categories.

    All of them were trained in every category, with the same seeds. A configuration that failed in a category is not a
    candidate.

    Args:
        studies: by category; all with the same objective.
    """
    means = {category: _mean_objectives(category, study) for category, study in studies.items()}
    regrets = {
        source: {category: max(objectives.values()) - objectives[source] for category, objectives in means.items()}
        for source in (BASELINE, *(f"{BEST_OF}{category}" for category in sorted(studies)))
        if all(source in objectives for objectives in means.values())
    }
    mean_regrets = {source: float(np.mean(list(regret.values()))) for source, regret in regrets.items()}
    source = min(mean_regrets, key=lambda name: mean_regrets[name])
    if source == BASELINE:
        params = next(iter(studies.values())).space.baseline
    else:
        params = studies[source.removeprefix(BEST_OF)].best_trial.params
    return SharedConfiguration(source, params, mean_regrets[source], regrets[source], mean_regrets)


def _mean_objectives(category: str, study: TrainedStudy) -> dict[str, float]:
    """Mean objective of every configuration that was trained in a category.

    Best trials are named by their category: trial 4 of another category is a different configuration.
    """
    best = f"trial {study.best_trial.number}"
    finalists = {
        f"{BEST_OF}{category}" if name == best else name: finalist for name, finalist in study.finalists.items()
    }
    borrowed = {f"{BEST_OF}{other}": finalist for other, finalist in study.borrowed.items()}
    return {name: finalist.mean_objective for name, finalist in (finalists | borrowed).items()}
