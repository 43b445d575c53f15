"""Several independent studies in one run of Ray Tune, which share the cluster trial by trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from las_tune.config import Status, TrialRecord
from las_tune.search.searcher import METRIC, StudySearcher, reported_rows, stable_trial_id
from las_tune.search.trial_faults import FAILED


class FairSearcher(Searcher):  # type: ignore[misc]  # Ray has no type hints
    """Search algorithm that shares the trial slots fairly among the searchers of several studies.

    A free slot goes to the study with the fewest running trials, and among equals to the study that has started the
    fewest. The slots of a study whose search has ended go to the other studies.
    """

    def __init__(self, searchers: Sequence[StudySearcher]) -> None:
        super().__init__(metric=METRIC, mode="max")
        self.searchers = list(searchers)
        self._study_of: dict[str, int] = {}
        self._running: list[set[str]] = [set() for _ in searchers]
        self._num_started = [0 for _ in searchers]
        self._checkpoints: list[dict[int, str]] = [{} for _ in searchers]

    def restore_trials(
        self, study: int, records: Sequence[TrialRecord], checkpoints: Mapping[int, str]
    ) -> dict[int, Status]:
        """Resume the search of an earlier driver, see StudySearcher.restore_trials.

        Args:
            study: index of the study.
            records: known trials in the order in which they ended, followed by the unfinished ones.
            checkpoints: paths of the checkpoints to resume from, by trial number.
        """
        self._num_started[study] = sum(record.status != "running" for record in records)
        self._checkpoints[study] = dict(checkpoints)
        return self.searchers[study].restore_trials(records)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of a new trial, or Searcher.FINISHED once all searches have ended.

        Returns: a dict with `study` (index of the study), `params` (hyperparameters) and `checkpoint` (path of the
            checkpoint to resume from, or an empty string).
        """
        answers: list[Any] = []
        for index in sorted(range(len(self.searchers)), key=lambda i: (len(self._running[i]), self._num_started[i], i)):
            params = self.searchers[index].suggest(trial_id)
            if isinstance(params, dict):
                self._study_of[trial_id] = index
                self._running[index].add(trial_id)
                self._num_started[index] += 1
                checkpoint = self._checkpoints[index].get(self.number_of(trial_id), "")
                return {"study": index, "params": params, "checkpoint": checkpoint}
            answers.append(params)
        return str(Searcher.FINISHED) if all(answer == Searcher.FINISHED for answer in answers) else None

    def study_of(self, trial_id: str) -> int:
        """Return the index of a trial's study, given Ray's trial ID."""
        return self._study_of[trial_id]

    def number_of(self, trial_id: str) -> int:
        """Return Optuna's number of a trial within its study, given Ray's trial ID."""
        return self.searchers[self.study_of(trial_id)].number_of(trial_id)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a result to the searcher of the trial's study."""
        self.searchers[self.study_of(trial_id)].on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Free the trial's slot, and pass the end of the trial to the searcher of its study."""
        index = self.study_of(trial_id)
        self._running[index].discard(trial_id)
        self.searchers[index].on_trial_complete(trial_id, result, error)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: Optuna's journal and the study's history are the state, so Ray's snapshot needs none."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: a new driver calls restore_trials instead."""


@dataclass(frozen=True)
class NumberedTrial:
    """A trial as schedulers see it. Its ID is the same under every driver, while Ray assigns a new one each time."""

    trial_id: str


class FairScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray has no type hints
    """Scheduler that delegates every event to the scheduler of the trial's study."""

    def __init__(self, search: FairSearcher, schedulers: Sequence[TrialScheduler]) -> None:
        super().__init__()
        self._search = search
        self._schedulers = list(schedulers)
        self._restored: set[tuple[int, NumberedTrial]] = set()
        for scheduler in schedulers:
            scheduler.set_search_properties(METRIC, "max")

    def restore_trials(self, study: int, records: Sequence[TrialRecord]) -> list[int]:
        """Replay the trials of earlier drivers, so that new trials are compared with them.

        Args:
            study: index of the study.
            records: trials in the order in which they ended, followed by the unfinished ones.

        Returns: numbers of the unfinished trials that the scheduler stops at their last epoch.
        """
        stopped = []
        for record in records:
            trial, decision = NumberedTrial(stable_trial_id(record.number)), TrialScheduler.CONTINUE
            self._schedulers[study].on_trial_add(None, trial)
            for row in reported_rows(record):
                decision = self._schedulers[study].on_trial_result(None, trial, row)
            if record.status == "running":
                self._restored.add((study, trial))
                stopped += [record.number] if decision == TrialScheduler.STOP else []
        return stopped

    def _delegate(self, trial: Any) -> tuple[Any, NumberedTrial]:
        """Return the scheduler of a trial's study, and the trial with its stable ID."""
        study = self._search.study_of(trial.trial_id)
        return self._schedulers[study], NumberedTrial(stable_trial_id(self._search.number_of(trial.trial_id)))

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accept Ray's settings: metric and mode were set in the constructor."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial, unless it was restored and is therefore known."""
        scheduler, numbered = self._delegate(trial)
        key = (self._search.study_of(trial.trial_id), numbered)
        if key in self._restored:
            self._restored.remove(key)
        else:
            scheduler.on_trial_add(tune_controller, numbered)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide whether a trial continues. A trial that reported a permanent failure is stopped."""
        if FAILED in result:
            return str(TrialScheduler.STOP)
        scheduler, numbered = self._delegate(trial)
        return str(scheduler.on_trial_result(tune_controller, numbered, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Forward the end of a trial."""
        scheduler, numbered = self._delegate(trial)
        scheduler.on_trial_complete(tune_controller, numbered, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Forward the failure of a trial."""
        scheduler, numbered = self._delegate(trial)
        scheduler.on_trial_error(tune_controller, numbered)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Forward the removal of a trial."""
        scheduler, numbered = self._delegate(trial)
        scheduler.on_trial_remove(tune_controller, numbered)
