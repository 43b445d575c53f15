"""The trials of a study as figures need them: points, an Optuna study, importances."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from las_tune.config.trial_record import TrialRecord

LEAST_TRIALS = 10
"""Fewer say nothing of importance."""
LEAST_GOOD = 5
"""What PED-ANOVA tells from the rest are at least so many trials (its authors' advice), and a tenth of many. Where one
of six knobs mattered, it came first in 65% of searches of 10 trials, in 78% of 16; by the best tenth in 25% and 32%."""
NOT_SET = -0.15
"""Where on its axis a hyperparameter lies that a trial does not have."""
COLORS = {"completed": "#0072B2", "pruned": "#E69F00", "failed": "#D55E00", "running": "#999999"}
"""From Okabe and Ito's palette: told apart by the color-blind. The shape of a marker tells the same once more."""
GOLDEN = 0.618
BASELINE_COLOR, BEST_COLOR = "#000000", "#009E73"


@dataclass(frozen=True)
class StudyPoints:
    """What is drawn of a study.

    category       for titles
    objective      what was maximized
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
        """(minutes since the first trial started, greatest objective of any epoch so far), where it rises.

        Of trials that did not fail, and of which it is known when they started.
        """
        epochs = []
        for trial in self.scored:
            if not trial.started:
                continue
            ends = itertools.accumulate(
                (row["seconds"] for row in trial.epochs), initial=trial.started - self.first_start
            )
            epochs += [(end, row["objective"]) for end, row in zip(list(ends)[1:], trial.epochs, strict=True)]
        steps: list[tuple[float, float]] = []
        for seconds, objective in sorted(epochs):
            if not steps or objective > steps[-1][1]:
                steps.append((seconds / 60, objective))
        return steps

    @property
    def last_minute(self) -> float:
        """When the last trial of the search ended."""
        return max((self.minutes(trial)[1] for trial in self.trials if trial.started), default=0.0)

    def heights(self) -> tuple[float, float] | None:
        """Lowest and highest objective of a figure about the gain; None where the baseline is not beaten.

        The first epochs of the first trial would take most of the height.
        """
        low, best = self.baseline_objective, max((t.best["objective"] for t in self.scored), default=0.0)
        return None if low is None or best <= low else (low - 0.6 * (best - low), best + 0.15 * (best - low))

    @property
    def floor(self) -> float:
        """Where failed trials are marked: below all others."""
        values = [trial.best["objective"] for trial in self.scored]
        return min(values) - 0.06 * ((max(values) - min(values)) or 0.1)

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

    def ticks(self, name: str) -> list[tuple[float, str]]:
        """Positions that are written at a hyperparameter's axis, and what is written: a few of a range, all choices."""
        if labels := self.labels(name):
            return [(place / max(1, len(labels) - 1), label) for place, label in enumerate(labels)]
        knob: Any = self.distributions[name]
        values = (np.geomspace if knob.log else np.linspace)(knob.low, knob.high, 5).tolist()
        if isinstance(knob, IntDistribution):
            values = sorted({round(value) for value in values})
        return [(self.position(name, value), f"{value:.3g}") for value in values]

    def along(self, name: str) -> list[float]:
        """Position of every scored trial on a hyperparameter's axis."""
        return [self.position(name, t.params[name]) if name in t.params else NOT_SET for t in self.scored]

    @property
    def colors(self) -> tuple[float, float]:
        """Objectives at the ends of a color scale, over the better half: the worst trial would take them all."""
        values = [trial.best["objective"] for trial in self.scored]
        low, high = float(np.median(values)), max(values)
        return (low, high) if high > low else (low - 0.01, high + 0.01)

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
        quantile = max(0.1, LEAST_GOOD / len(self.scored))
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        return get_param_importances(self.optuna_study(), evaluator=evaluator)

    def labels(self, name: str) -> list[str]:
        """The values of a choice in their order; none of a range."""
        knob = self.distributions[name]
        return [str(choice) for choice in knob.choices] if isinstance(knob, CategoricalDistribution) else []

    def slice(self, name: str, status: str) -> tuple[list[TrialRecord], list[float], list[float]]:
        """Scored trials of a status that have a hyperparameter, its values, their objectives.

        A choice is its place among the values, moved aside a little by the number of the trial: many stand on each.
        """
        trials = [trial for trial in self.scored if trial.status == status and name in trial.params]
        values = [trial.params[name] for trial in trials]
        if isinstance(distribution := self.distributions[name], CategoricalDistribution):
            aside = [0.3 * (trial.number * GOLDEN % 1 - 0.5) for trial in trials]
            values = [distribution.choices.index(v) + a for v, a in zip(values, aside, strict=True)]
        return trials, values, [trial.best["objective"] for trial in trials]
