"""A study after its training runs, before the champion is chosen."""

from __future__ import annotations

from dataclasses import dataclass

from las_tune.config import StudySpec, TrialRecord, deciding_tie_break
from las_tune.execution import TuneResult, load_trained
from las_tune.selection import BEST_OF, Finalist, TrainedHead, collect_finalists, pick_finalists
from las_tune.space import Space


@dataclass(frozen=True)
class TrainedStudy:
    """A study whose trials and retrainings have ended."""

    spec: StudySpec
    space: Space
    trials: list[TrialRecord]
    """Trials of the search."""
    retrained: list[TrialRecord]
    """Retrainings with new seeds."""
    finalists: dict[str, Finalist]
    """Baseline, registered champion and finalists, by name."""
    borrowed: dict[str, Finalist]
    """The best trials of other categories, by category."""

    @classmethod
    def load(cls, spec: StudySpec, space: Space, search: TuneResult, retraining: TuneResult) -> TrainedStudy:
        """Load the retrained heads. Raises UserError if the baseline has none."""

        def load_head(number: int) -> TrainedHead | None:
            checkpoint = retraining.checkpoints.get(number)
            return load_trained(checkpoint) if checkpoint is not None else None

        finalists: dict[str, Finalist] = {}
        borrowed: dict[str, Finalist] = {}
        for name, finalist in collect_finalists(retraining.records, load_head).items():
            if name.startswith(BEST_OF):
                borrowed[name.removeprefix(BEST_OF)] = finalist
            else:
                finalists[name] = finalist
        return cls(spec, space, search.records, retraining.records, finalists, borrowed)

    @property
    def best_trial(self) -> TrialRecord:
        """The best trial of the search; the baseline if no other trial has metrics."""
        return next(iter(pick_finalists(self.trials, 1)), self.trials[0])

    @property
    def tie_break(self) -> str:
        """The metric that decides between the two best trials if their objectives are equal; else empty."""
        best = pick_finalists(self.trials, 2)
        return deciding_tie_break(best[0].best, best[1].best) if len(best) > 1 else ""
