"""Early stopping of trials, from which the baseline is exempt, and the time budget of a run."""

from __future__ import annotations

import math
import random
import time
from typing import Any

import numpy as np
from ray.tune import Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from las_tune.config import StudySpec
from las_tune.search.searcher import StudySearcher

REDUCTION_FACTOR = 3
"""The best third of the trials continues after each rung. The first rung is at a ninth of the epochs."""
BRACKET_TRIALS = (9, 5, 3)
"""Trials in each HyperBand bracket (Li et al., arXiv:1603.06560, algorithm 1: ⌈3/(s+1) · 3^s⌉ for s = 2, 1, 0)."""


class BaselineExemptMixin:
    """Scheduler mixin that never stops the baseline, so that the champion is compared with a complete training."""

    search: StudySearcher

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return the scheduler's decision, and always CONTINUE for trial 0."""
        decision: str = super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        return TrialScheduler.CONTINUE if self.search.number_of(trial.trial_id) == 0 else decision


class BaselineExemptASHA(BaselineExemptMixin, ASHAScheduler):  # type: ignore[misc]
    """ASHA (Li et al., arXiv:1810.05934) that leaves NumPy's global generator as it was."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial. Ray draws its bracket from NumPy's global generator."""
        state = np.random.get_state()
        super().on_trial_add(tune_controller, trial)
        np.random.set_state(state)


class BaselineExemptHyperBand(BaselineExemptASHA):
    """Asynchronous HyperBand: ASHA with three brackets, whose first rungs are at 1/9, 1/3 and all of the epochs.

    Ray's synchronous HyperBand does not fit: it waits until a bracket is full, which max_concurrent_trials prevents,
    and it pauses trials, which then lose the epochs since their last checkpoint.
    """

    seed: int

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Assign the trial to a bracket drawn from seed and trial number, and the baseline to the first bracket."""
        super().on_trial_add(tune_controller, trial)
        number = self.search.number_of(trial.trial_id)
        bracket = random.Random(f"{self.seed} {number}").choices(self._brackets, BRACKET_TRIALS)[0]
        self._trial_info[trial.trial_id] = bracket if number else self._brackets[0]


class BaselineExemptMedianRule(BaselineExemptMixin, MedianStoppingRule):  # type: ignore[misc]
    """Median stopping rule (Golovin et al., Vizier, KDD 2017).

    Stops a trial whose best objective is below the median of the running means of the other trials.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return the decision. A baseline that continues is not marked as stopped, which would be an error in Ray."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.CONTINUE:
            self._stopped_trials.discard(trial)
        return decision


class TimeBudget(Stopper):  # type: ignore[misc]
    """Stops all trials after a time in seconds. Unlike Ray's TimeoutStopper, it uses a monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no single trial is stopped."""
        return False

    def stop_all(self) -> bool:
        """Return whether the time budget is used up."""
        return time.monotonic() > self._end_s


def expected_epoch_fraction(spec: StudySpec) -> float:
    """Return the expected fraction of its epochs that a trial trains, if one in three continues at each rung of ASHA.

    Returns 1 for the other schedulers.
    """
    if spec.scheduler != "asha":
        return 1.0
    epochs, rung, fraction, trained = spec.train.epochs, _grace_period(spec), 1.0, 0.0
    done = 0
    while done < epochs:
        trained += fraction * (min(rung, epochs) - done)
        done, rung, fraction = rung, rung * REDUCTION_FACTOR, fraction / REDUCTION_FACTOR
    return trained / epochs


def _grace_period(spec: StudySpec) -> int:
    """Return the number of epochs before the first rung."""
    return max(1, spec.train.epochs // REDUCTION_FACTOR**2)


def make_scheduler(spec: StudySpec, search: StudySearcher) -> TrialScheduler:
    """Make the scheduler that --scheduler names."""
    if spec.scheduler == "none":
        return FIFOScheduler()
    epochs, grace_period = spec.train.epochs, _grace_period(spec)
    if spec.scheduler == "median":
        # With a finite min_time_slice, Ray pauses trials while there are too few to compare with.
        scheduler: Any = BaselineExemptMedianRule(
            "epoch", grace_period=grace_period, min_samples_required=3, min_time_slice=math.inf
        )
    else:
        scheduler_class = BaselineExemptASHA if spec.scheduler == "asha" else BaselineExemptHyperBand
        scheduler = scheduler_class(
            time_attr="epoch",
            max_t=epochs,
            grace_period=grace_period,
            reduction_factor=REDUCTION_FACTOR,
            brackets=1 if spec.scheduler == "asha" else len(BRACKET_TRIALS),
        )
    scheduler.search, scheduler.seed = search, spec.train.seed
    return scheduler
