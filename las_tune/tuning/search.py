"""Optuna as Ray Tune's search algorithm, with every trial told to Optuna as what it was."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from las_tune.tuning.space import Choice, Knob, Space

METRIC = "best_objective"
"""What trials are compared by: the best so far never falls, so the last report is also the best one."""


class StudySearch(OptunaSearch):  # type: ignore[misc]  # ray ships no types for it
    """Ray's OptunaSearch without its traps.

    A trial that the scheduler stopped is told as PRUNED (not COMPLETE), one that failed or gave no finite number
    as FAIL (not left RUNNING); the Optuna study has the study's own name; the baseline is asked first.
    """

    def __init__(self, space: Space, *, study: str, num_epochs: int, sampler: str, seed: int, storage: Path) -> None:
        """Args:
        space: what is searched.
        study: name of the Optuna study.
        num_epochs: epochs of a trial that ran to its end.
        sampler: tpe or random.
        seed: seed of the sampler.
        storage: file of Optuna's journal.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._num_epochs = num_epochs
        super().__init__(
            {name: distribution(knob) for name, knob in space.knobs.items()},
            metric=METRIC,
            mode="max",
            sampler=make_sampler(sampler, seed),
            study_name=study,
            storage=JournalStorage(JournalFileBackend(str(storage))),
            points_to_evaluate=[space.baseline],
        )

    def number_of(self, trial_id: str) -> int:
        """Optuna's number of one of Ray's trials."""
        number: int = self._ot_trials[trial_id].number
        return number

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        value = (result or {}).get(METRIC)
        trial = self._ot_trials[trial_id]
        if error or value is None or not math.isfinite(value):
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif result is not None and result["epoch"] < self._num_epochs:
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        else:
            self._ot_study.tell(trial, value)


def distribution(knob: Knob) -> BaseDistribution:
    """A knob as one of Optuna's distributions."""
    if isinstance(knob, Choice):
        return CategoricalDistribution(knob.values)
    if knob.integer:
        return IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return FloatDistribution(knob.low, knob.high, log=knob.log)


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """A seeded sampler by the name that --sampler takes."""
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    sampler: optuna.samplers.BaseSampler = samplers[name](seed=seed)
    return sampler
