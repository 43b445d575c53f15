"""Several studies in one run of Ray Tune: they share the cluster trial by trial, and know nothing of each other."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from las_tune.tuning.search import METRIC, StudySearch


class FairSearch(Searcher):  # type: ignore[misc]  # ray ships no types for it
    """Asks the searches of several studies in turn; a config holds `study`, the index, and `params`.

    A free place goes to the study with the fewest running trials, of equals to the one that has started the fewest.
    Where a study is over, the others get its places.
    """

    def __init__(self, searches: Sequence[StudySearch]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.searches = list(searches)
        self._study_of: dict[str, int] = {}
        self._running: list[set[str]] = [set() for _ in searches]
        self._started = [0 for _ in searches]

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial of the study whose turn it is, or that all searches are over."""
        answers: list[Any] = []
        for index in sorted(range(len(self.searches)), key=lambda i: (len(self._running[i]), self._started[i], i)):
            params = self.searches[index].suggest(trial_id)
            if isinstance(params, dict):
                self._study_of[trial_id] = index
                self._running[index].add(trial_id)
                self._started[index] += 1
                return {"study": index, "params": params}
            answers.append(params)
        return str(Searcher.FINISHED) if all(answer == Searcher.FINISHED for answer in answers) else None

    def study_of(self, trial_id: str) -> int:
        """Index of the study that one of Ray's trials belongs to."""
        return self._study_of[trial_id]

    def number_of(self, trial_id: str) -> int:
        """Optuna's number of one of Ray's trials, in its study."""
        return self.searches[self.study_of(trial_id)].number_of(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """To the study that it belongs to."""
        self.searches[self.study_of(trial_id)].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """To the study that it belongs to; its place is free."""
        index = self.study_of(trial_id)
        self._running[index].discard(trial_id)
        self.searches[index].on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Ray's snapshot of the search."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """Go on from Ray's snapshot."""
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))


class FairScheduler(FIFOScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Hands every event to the scheduler of the trial's own study."""

    def __init__(self, search: FairSearch, schedulers: Sequence[TrialScheduler]) -> None:
        super().__init__()
        self._search = search
        self._schedulers = list(schedulers)

    def _of(self, trial: Any) -> Any:
        return self._schedulers[self._search.study_of(trial.trial_id)]

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """What trials are compared by."""
        taken = [scheduler.set_search_properties(metric, mode, **spec) for scheduler in self._schedulers]
        return all(taken)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is new."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial came to its end."""
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial failed."""
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """A trial was taken back."""
        self._of(trial).on_trial_remove(tune_controller, trial)
