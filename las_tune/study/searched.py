"""A study whose trainings are done, before it is decided who is champion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from las_tune.config.objectives import broken_by
from las_tune.config.study_spec import StudySpec
from las_tune.config.trial_record import TrialRecord
from las_tune.execution.observer import Ran
from las_tune.execution.tuner import load_trained
from las_tune.selection.finalists import BEST_OF, Finalist, collect_finalists, pick_finalists
from las_tune.space.search_space import Space


@dataclass(frozen=True)
class Searched:
    """A study whose trainings are done."""

    spec: StudySpec
    space: Space
    trials: list[TrialRecord]
    """Of the search."""
    again: list[TrialRecord]
    """With new seeds."""
    finalists: dict[str, Finalist]
    """Baseline, earlier champion and finalists, by name."""
    borrowed: dict[str, Finalist]
    """The best trials of other categories, by their names."""

    @classmethod
    def of(cls, spec: StudySpec, space: Space, trials: Ran, again: Ran) -> Searched:
        """Loads the heads; raises UserError where the baseline has none."""

        def load(number: int) -> Any:
            return load_trained(again.checkpoints[number]) if number in again.checkpoints else None

        everyone = collect_finalists(again.records, load)
        borrowed = {name.removeprefix(BEST_OF): one for name, one in everyone.items() if name.startswith(BEST_OF)}
        finalists = {name: one for name, one in everyone.items() if not name.startswith(BEST_OF)}
        return cls(spec, space, trials.records, again.records, finalists, borrowed)

    @property
    def best_trial(self) -> TrialRecord:
        """The best of the search, the baseline where there is no other."""
        return next(iter(pick_finalists(self.trials, 1)), self.trials[0])

    @property
    def tie_break(self) -> str:
        """The metric by which the best trial is ahead of one with the very same objective; else empty."""
        best = pick_finalists(self.trials, 2)
        return broken_by(best[0].best, best[1].best) if len(best) > 1 else ""
