"""The trials of a study as figures need them: points, an Optuna study, importances."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from las_tune.tracking.record import TrialRecord

LEAST_TRIALS = 5
"""Fewer say nothing of importance."""
COLORS = {"completed": "#0072B2", "pruned": "#E69F00", "failed": "#D55E00", "running": "#999999"}
"""From Okabe and Ito's palette: told apart by the colour-blind. The shape of a marker tells the same once more."""
BASELINE_COLOR, BEST_COLOR = "#000000", "#009E73"


@dataclass(frozen=True)
class StudyPoints:
    """What is drawn of a study.

    category       for titles
    objective      what was maximised
    trials         of the search, by number
    again          trained again over new seeds
    distributions  of the hyperparameters searched
    """

    category: str
    objective: str
    trials: Sequence[TrialRecord]
    again: Sequence[TrialRecord]
    distributions: Mapping[str, BaseDistribution]

    @property
    def scored(self) -> list[TrialRecord]:
        """Trials of the search that ended an epoch and did not fail."""
        return [trial for trial in self.trials if trial.epochs and trial.status != "failed"]

    @property
    def baseline_objective(self) -> float | None:
        """The best objective of trial 0."""
        return next((trial.best_objective for trial in self.scored if trial.is_baseline), None)

    def best_so_far(self) -> list[tuple[float, float]]:
        """(minutes since the first trial started, greatest objective of any epoch so far), where it rises."""
        epochs = []
        for trial in self.trials:
            ends = itertools.accumulate(
                (row["seconds"] for row in trial.epochs), initial=trial.started - self.first_start
            )
            epochs += [(end, row["objective"]) for end, row in zip(list(ends)[1:], trial.epochs, strict=True)]
        steps: list[tuple[float, float]] = []
        for seconds, objective in sorted(epochs):
            if not steps or objective > steps[-1][1]:
                steps.append((seconds / 60, objective))
        return steps

    def lanes(self) -> list[tuple[str, list[TrialRecord]]]:
        """Everything that ran, by worker, in the order of time."""
        ran = sorted((trial for trial in (*self.trials, *self.again) if trial.started), key=lambda t: t.started)
        workers = list(dict.fromkeys(trial.worker or "unknown" for trial in ran))
        return [(worker, [t for t in ran if (t.worker or "unknown") == worker]) for worker in workers]

    @cached_property
    def first_start(self) -> float:
        """When the first trial started, in seconds since 1970."""
        return min((trial.started for trial in (*self.trials, *self.again) if trial.started), default=0.0)

    def minutes(self, trial: TrialRecord) -> tuple[float, float]:
        """From when to when a trial ran, since the first started."""
        ended = trial.ended or trial.started + trial.seconds
        return (trial.started - self.first_start) / 60, (ended - self.first_start) / 60

    def position(self, name: str, value: Any) -> float:
        """Where a hyperparameter's value lies in its range, in [0, 1]."""
        distribution = self.distributions[name]
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
        low, high, log = distribution.low, distribution.high, distribution.log  # type: ignore[attr-defined]
        if log:
            return float(np.log(value / low) / np.log(high / low))
        return float((value - low) / (high - low)) if high > low else 0.5

    def optuna_study(self) -> optuna.Study:
        """The scored trials as a study of Optuna's; stopped ones count with what they reached."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(direction="maximize", study_name=self.category)
        for trial in self.scored:
            params = {name: trial.params[name] for name in self.distributions if name in trial.params}
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    params=params,
                    distributions={name: self.distributions[name] for name in params},
                    value=trial.best_objective,
                )
            )
        return study

    def importances(self) -> dict[str, float]:
        """PED-ANOVA's importance of each hyperparameter, greatest first; empty where the trials do not say."""
        values = {trial.best_objective for trial in self.scored}
        if len(self.scored) < LEAST_TRIALS or len(values) < 2:
            return {}
        return get_param_importances(self.optuna_study(), evaluator=PedAnovaImportanceEvaluator())
