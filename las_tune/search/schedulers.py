"""Which trials are stopped early, never the baseline; and when all are."""

from __future__ import annotations

import math
import random
import time
from typing import Any

from ray.tune import Stopper
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from las_tune.config.study_spec import StudySpec
from las_tune.search.searcher import StudySearch

REDUCTION_FACTOR = 3
"""The better third goes on at each rung; the first rung is at a ninth of the epochs."""
BRACKET_TRIALS = (9, 5, 3)
"""Trials of each bracket of HyperBand (Li et al., arXiv:1603.06560, algorithm 1: ⌈3/(s+1) · 3^s⌉ for s = 2, 1, 0)."""


class BaselineKept:
    """Mixed into a scheduler: the baseline runs to its end, so that the champion is compared with a whole training."""

    search: StudySearch

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The scheduler's decision, but for trial 0."""
        decision: str = super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        return TrialScheduler.CONTINUE if self.search.number_of(trial.trial_id) == 0 else decision


class BaselineKeptASHA(BaselineKept, ASHAScheduler):  # type: ignore[misc]
    """ASHA (Li et al., arXiv:1810.05934) that lets the baseline run."""


class BaselineKeptHyperBand(BaselineKept, ASHAScheduler):  # type: ignore[misc]
    """Asynchronous HyperBand: ASHA in three brackets, the first rung of each three times as late as the last one's.

    Ray's synchronous HyperBand waits for a bracket to fill, which max_concurrent_trials forbids, and pauses trials,
    which costs the epochs since their last checkpoint.
    """

    seed: int

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Draw the bracket by seed and number: Ray draws from NumPy's global generator. The baseline's is the first."""
        super().on_trial_add(tune_controller, trial)
        number = self.search.number_of(trial.trial_id)
        draw = random.Random(f"{self.seed} {number}").choices(self._brackets, BRACKET_TRIALS)[0]
        self._trial_info[trial.trial_id] = draw if number else self._brackets[0]


class BaselineKeptMedian(BaselineKept, MedianStoppingRule):  # type: ignore[misc]
    """Stops a trial whose best is below the median of the others' means so far (Golovin et al., Vizier, KDD 2017)."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The decision; a baseline that goes on is not noted as stopped, which Ray takes for a mistake."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.CONTINUE:
            self._stopped_trials.discard(trial)
        return decision


class TimeBudget(Stopper):  # type: ignore[misc]
    """Ends all trials after a time, by a clock that nobody sets: Ray's own follows the machine's."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._ends


def usual_share(spec: StudySpec) -> float:
    """Share of its epochs that a trial trains where ASHA lets one in three go on at each rung; 1 without ASHA."""
    if spec.scheduler != "asha":
        return 1.0
    epochs, rung, share, trained = spec.train.epochs, _grace(spec), 1.0, 0.0
    done = 0
    while done < epochs:
        trained += share * (min(rung, epochs) - done)
        done, rung, share = rung, rung * REDUCTION_FACTOR, share / REDUCTION_FACTOR
    return trained / epochs


def _grace(spec: StudySpec) -> int:
    """Epochs before the first rung."""
    return max(1, spec.train.epochs // REDUCTION_FACTOR**2)


def make_scheduler(spec: StudySpec, search: StudySearch) -> TrialScheduler:
    """The scheduler that --scheduler names."""
    if spec.scheduler == "none":
        return FIFOScheduler()
    epochs, grace = spec.train.epochs, _grace(spec)
    if spec.scheduler == "median":
        # Without a least slice, Ray would pause trials while there are too few to compare with.
        scheduler: Any = BaselineKeptMedian(
            "epoch", grace_period=grace, min_samples_required=3, min_time_slice=math.inf
        )
    else:
        kind = BaselineKeptASHA if spec.scheduler == "asha" else BaselineKeptHyperBand
        scheduler = kind(
            time_attr="epoch",
            max_t=epochs,
            grace_period=grace,
            reduction_factor=REDUCTION_FACTOR,
            brackets=1 if spec.scheduler == "asha" else len(BRACKET_TRIALS),
        )
    scheduler.search, scheduler.seed = search, spec.train.seed
    return scheduler
