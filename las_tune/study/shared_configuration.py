"""Several categories, one set of hyperparameters: which does best on average, and what it costs each category."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from las_tune.selection.finalists import BASELINE, BEST_OF
from las_tune.study.searched import Searched


def best_shared_configuration(searched: Mapping[str, Searched]) -> dict[str, Any]:
    """Of the baseline and each category's best trial, all trained in every category over the same seeds, the best.

    regret: what a category loses by it, in the objective on validation images (mean over seeds), against the best
    that was trained there.
    """
    means = {category: _means(category, study) for category, study in searched.items()}
    regrets = {
        name: {category: max(of_category.values()) - of_category[name] for category, of_category in means.items()}
        for name in (BASELINE, *(f"{BEST_OF}{category}" for category in sorted(searched)))
        if all(name in of_category for of_category in means.values())
    }
    name = min(regrets, key=lambda name: float(np.mean(list(regrets[name].values()))))
    if name == BASELINE:
        params = next(iter(searched.values())).space.baseline
    else:
        params = searched[name.removeprefix(BEST_OF)].best_trial.params
    return {
        "from": name,
        "params": params,
        "mean_regret": float(np.mean(list(regrets[name].values()))),
        "regret": regrets[name],
        "mean_regret_of_all": {other: float(np.mean(list(values.values()))) for other, values in regrets.items()},
    }


def _means(category: str, study: Searched) -> dict[str, float]:
    """Mean objective of everyone trained here; best trials by their categories, as trial 4 is another elsewhere."""
    own = f"trial {study.best_trial.number}"
    finalists = {f"{BEST_OF}{category}" if name == own else name: one for name, one in study.finalists.items()}
    borrowed = {f"{BEST_OF}{other}": one for other, one in study.borrowed.items()}
    return {name: one.mean_objective for name, one in (finalists | borrowed).items()}
