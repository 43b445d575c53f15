"""Several studies in one run of Ray Tune: they share the cluster trial by trial, and know nothing of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from las_tune.config.trial_record import Status, TrialRecord
from las_tune.search.searcher import METRIC, StudySearch, name_of, rows_told
from las_tune.search.trial_faults import FAILED


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
        self._checkpoints: list[dict[int, str]] = [{} for _ in searches]

    def take_back(
        self, study: int, records: Sequence[TrialRecord], checkpoints: Mapping[int, str]
    ) -> dict[int, Status]:
        """Go on where an earlier driver stopped, see StudySearch.take_back.

        checkpoints: what trials go on from, by number.
        """
        self._started[study] = sum(record.status != "running" for record in records)
        self._checkpoints[study] = dict(checkpoints)
        return self.searches[study].take_back(records)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A trial of the study whose turn it is (checkpoint: what it goes on from), or that all searches are over."""
        answers: list[Any] = []
        for index in sorted(range(len(self.searches)), key=lambda i: (len(self._running[i]), self._started[i], i)):
            params = self.searches[index].suggest(trial_id)
            if isinstance(params, dict):
                self._study_of[trial_id] = index
                self._running[index].add(trial_id)
                self._started[index] += 1
                checkpoint = self._checkpoints[index].get(self.number_of(trial_id), "")
                return {"study": index, "params": params, "checkpoint": checkpoint}
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
        """Nothing for Ray's snapshot: Optuna's journal and the study's history know all."""

    def restore(self, checkpoint_path: str) -> None:
        """Never asked for: a new driver takes back what they know."""


@dataclass(frozen=True)
class NumberedTrial:
    """What schedulers see of a trial: the same under every driver, while Ray names it anew."""

    trial_id: str


class FairScheduler(FIFOScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Hands every event to the scheduler of the trial's own study."""

    def __init__(self, search: FairSearch, schedulers: Sequence[TrialScheduler]) -> None:
        super().__init__()
        self._search = search
        self._schedulers = list(schedulers)
        self._taken_back: set[tuple[int, NumberedTrial]] = set()
        for scheduler in schedulers:
            scheduler.set_search_properties(METRIC, "max")

    def take_back(self, study: int, records: Sequence[TrialRecord]) -> list[int]:
        """Show a study's scheduler the trials of earlier drivers: what is stopped is decided beside them.

        records: in the order in which they ended, then those that did not.
        Returns: numbers of those that still run and are stopped at their last epoch.
        """
        stopped = []
        for record in records:
            trial, decision = NumberedTrial(name_of(record.number)), TrialScheduler.CONTINUE
            self._schedulers[study].on_trial_add(None, trial)
            for row in rows_told(record):
                decision = self._schedulers[study].on_trial_result(None, trial, row)
            if record.status == "running":
                self._taken_back.add((study, trial))
                stopped += [record.number] if decision == TrialScheduler.STOP else []
        return stopped

    def _of(self, trial: Any) -> tuple[Any, NumberedTrial]:
        """The scheduler of a trial, and the trial as that one sees it."""
        study = self._search.study_of(trial.trial_id)
        return self._schedulers[study], NumberedTrial(name_of(self._search.number_of(trial.trial_id)))

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """What trials are compared by is known already."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is new; one that goes on after a driver's death is known."""
        scheduler, numbered = self._of(trial)
        known = (self._search.study_of(trial.trial_id), numbered)
        if known in self._taken_back:
            self._taken_back.remove(known)
        else:
            scheduler.on_trial_add(tune_controller, numbered)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether a trial goes on."""
        if FAILED in result:
            return str(TrialScheduler.STOP)
        scheduler, numbered = self._of(trial)
        return str(scheduler.on_trial_result(tune_controller, numbered, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """A trial came to its end."""
        scheduler, numbered = self._of(trial)
        scheduler.on_trial_complete(tune_controller, numbered, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial failed."""
        scheduler, numbered = self._of(trial)
        scheduler.on_trial_error(tune_controller, numbered)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """A trial was taken back."""
        scheduler, numbered = self._of(trial)
        scheduler.on_trial_remove(tune_controller, numbered)
