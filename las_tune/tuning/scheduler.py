"""Which trials are stopped early: ASHA, but never the baseline."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from las_tune.spec import StudySpec
from las_tune.tuning.search import StudySearch

REDUCTION_FACTOR = 3
"""ASHA keeps the better third at each rung."""


class BaselineKept:
    """Mixed into a scheduler: the baseline runs to its end, so that the champion is compared with a whole training."""

    search: StudySearch

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """The scheduler's decision, but for trial 0."""
        decision: str = super().on_trial_result(tune_controller, trial, result)  # type: ignore[misc]
        return TrialScheduler.CONTINUE if self.search.number_of(trial.trial_id) == 0 else decision


class BaselineKeptASHA(BaselineKept, ASHAScheduler):  # type: ignore[misc]
    """ASHA (Li et al., arXiv:1810.05934) that lets the baseline run."""


def make_scheduler(spec: StudySpec, search: StudySearch) -> TrialScheduler:
    """The scheduler that --scheduler names."""
    if spec.scheduler == "none":
        return FIFOScheduler()
    epochs = spec.train.epochs
    scheduler = BaselineKeptASHA(
        time_attr="epoch",
        max_t=epochs,
        grace_period=max(1, epochs // REDUCTION_FACTOR**2),
        reduction_factor=REDUCTION_FACTOR,
    )
    scheduler.search = search
    return scheduler
