"""Optuna as Ray Tune's search algorithm, reporting to Optuna how each trial ended."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from ray.tune.search import Searcher

from las_tune.config import Status, StudySpec, TrialRecord
from las_tune.search.optuna_storage import STATUS, open_storage, quiet_optuna
from las_tune.search.samplers import GridSampler, make_sampler, suggest_params
from las_tune.space import Space

METRIC = "best_objective"
"""Metric that trials are compared by. The best objective so far never falls, so the last report is also the best."""
MIN_GAIN = 0.005
"""Smallest gain of the objective that resets --patience. During the search each trial has one seed, so its noise cannot
be measured. This is a lower bound: two seeds of one configuration differed by 0.02 on metal_plate."""
FAILURE_WINDOW = 10
"""Number of first trials of a driver that are checked: if more than half of them fail, the search stops."""
STABLE_PREFIX = "trial "


def stable_trial_id(number: int) -> str:
    """Return the ID of a trial that all drivers share. Ray assigns a new ID to the trial in each of them."""
    return f"{STABLE_PREFIX}{number}"


def reported_rows(record: TrialRecord) -> list[dict[str, Any]]:
    """Return the epochs of a record as the trial reported them, with the best objective so far."""
    best, rows = None, list[dict[str, Any]]()
    for row in record.epochs:
        best = row["objective"] if best is None or row["objective"] > best else best  # a NaN in the first row stays
        rows.append({"epoch": int(row["epoch"]), "training_iteration": int(row["epoch"]), METRIC: best})
    return rows


class StudySearcher(Searcher):  # type: ignore[misc]  # Ray has no type hints
    """Search algorithm of one study: proposes configurations with an Optuna sampler, the baseline first.

    A trial that the scheduler stopped is reported to Optuna as PRUNED, a trial that failed or has no finite objective
    as FAIL. The search ends early when patience or the grid is exhausted; running trials are then trained to their end.

    Ray's own OptunaSearch reports stopped trials as COMPLETE and leaves some failed trials RUNNING.
    """

    def __init__(
        self,
        space: Space,
        *,
        study_name: str,
        num_epochs: int,
        make_sampler: Callable[[int], BaseSampler],
        folder: Path,
        patience: int | None = None,
        points: Sequence[dict[str, Any]] = (),
        num_trials: int | None = None,
    ) -> None:
        """Create the Optuna study, or load it from the folder.

        Args:
            space: the search space.
            study_name: name of the Optuna study.
            num_epochs: epochs of a trial that is not stopped early.
            make_sampler: makes the sampler for the trial with a given number. Each trial has a new sampler, so that
                proposals depend on the seed and on earlier trials only, also after a change of driver.
            folder: folder of the study, with Optuna's journal.
            patience: number of trials in a row, in the order of their ends, without a gain above MIN_GAIN, after which
                the search ends. None: no limit.
            points: configurations to evaluate right after the baseline.
            num_trials: total number of trials. None: no limit.
        """
        super().__init__(metric=METRIC, mode="max")
        self._space = space
        self._num_epochs = num_epochs
        self._patience = patience
        self._num_trials = num_trials
        self._make_sampler = make_sampler
        self._sampler: BaseSampler = make_sampler(0)
        self._storage = open_storage(folder)
        self._trials: dict[str, optuna.Trial] = {}
        self._ended: set[str] = set()
        self._unfinished: list[optuna.Trial] = []
        self._last_gain = -math.inf  # objective at the last gain, so that small gains add up
        self._trials_since_gain = 0
        self._failure_window = FAILURE_WINDOW if num_trials is None else min(FAILURE_WINDOW, num_trials)
        self._num_ended = self._num_failed = 0
        with quiet_optuna():
            self.study = optuna.create_study(
                storage=self._storage,
                sampler=self._sampler,
                pruner=optuna.pruners.NopPruner(),
                study_name=study_name,
                direction="maximize",
                load_if_exists=True,
            )
        if not self.study.get_trials(deepcopy=False):
            for point in (space.baseline, *points):
                self.study.enqueue_trial(point)

    def restore_trials(self, records: Sequence[TrialRecord]) -> dict[int, Status]:
        """Resume the search of an earlier driver. Its unfinished trials are proposed first, unchanged.

        Args:
            records: known trials in the order in which they ended, followed by the unfinished ones.

        Returns: status, by trial number, of trials that ended in Optuna and are still running in the records.
        """
        ended: dict[int, Status] = {}
        record_of = {record.number: record for record in records}
        for frozen in self.study.get_trials(deepcopy=True):
            record = record_of.get(frozen.number)
            if frozen.state == TrialState.RUNNING:
                self._restore_trial(frozen.number, record)
            elif frozen.state in STATUS and record is not None and record.status == "running":
                ended[frozen.number] = STATUS[frozen.state]
        for record in records:
            if record.status != "running":
                best = record.best_objective
                self._count_for_patience(-math.inf if record.status == "failed" or best is None else best)
        return ended

    def _restore_trial(self, number: int, record: TrialRecord | None) -> None:
        """Report the recorded epochs of a trial that is running in Optuna, and its end if it has ended."""
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        trial = optuna.Trial(self.study, self._storage.get_trial_id_from_study_id_trial_number(study_id, number))
        rows = reported_rows(record) if record is not None else []
        for row in rows:
            self._report(trial, row)
        if record is None or record.status == "running":
            self._unfinished.append(trial)
        else:
            self._end_trial(trial, rows[-1] if rows else None, record.status == "failed")

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the hyperparameters of a new trial, or Searcher.FINISHED."""
        if self._unfinished and not self.is_failing:
            trial = self._unfinished.pop(0)
        else:
            num_asked = sum(trial.state != TrialState.WAITING for trial in self.study.get_trials(deepcopy=False))
            if self._is_finished(num_asked):
                return str(Searcher.FINISHED)
            self._sampler = self.study.sampler = self._make_sampler(num_asked)
            with quiet_optuna():
                trial = self.study.ask()
        self._trials[trial_id] = trial
        with quiet_optuna():
            return suggest_params(self._space, trial)

    def _is_finished(self, num_asked: int) -> bool:
        is_grid_done = isinstance(self._sampler, GridSampler) and num_asked >= len(self._sampler.points)
        is_full = self._num_trials is not None and num_asked >= self._num_trials
        is_patience_exhausted = self._patience is not None and self._trials_since_gain >= self._patience
        return self.is_failing or is_grid_done or is_full or is_patience_exhausted

    @property
    def is_failing(self) -> bool:
        """Whether more than half of the first trials failed, so that no more are proposed."""
        return self._num_failed > self._failure_window / 2

    def number_of(self, trial_id: str) -> int:
        """Return Optuna's number of a trial, given Ray's ID or the stable ID."""
        if trial_id.startswith(STABLE_PREFIX):
            return int(trial_id.removeprefix(STABLE_PREFIX))
        return self._trials[trial_id].number

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch to Optuna. An epoch that is repeated after a fault is reported once."""
        self._report(self._trials[trial_id], result)

    def _report(self, trial: optuna.Trial, row: Mapping[str, Any]) -> None:
        if row["epoch"] not in self.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(row[METRIC], row["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Report the end of a trial to Optuna, once."""
        if trial_id in self._ended:
            return
        self._ended.add(trial_id)
        value = (result or {}).get(METRIC)
        if error or value is None or not math.isfinite(value):
            value = -math.inf
        self._num_ended += 1
        self._num_failed += value == -math.inf and self._num_ended <= self._failure_window
        self._count_for_patience(value)
        self._end_trial(self._trials[trial_id], result, is_failed=value == -math.inf)

    def _end_trial(self, trial: optuna.Trial, last_row: Mapping[str, Any] | None, is_failed: bool) -> None:
        """Set the final state of a trial in Optuna."""
        if last_row is None or is_failed:
            self.study.tell(trial, state=TrialState.FAIL)
        elif last_row["epoch"] < self._num_epochs:
            self._report(trial, last_row)  # Ray does not pass the result that stops a trial to on_trial_result
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, last_row[METRIC])

    def _count_for_patience(self, value: float) -> None:
        if value > self._last_gain + MIN_GAIN:
            self._last_gain, self._trials_since_gain = value, 0
        else:
            self._trials_since_gain += 1


def make_searcher(
    spec: StudySpec, space: Space, points: Sequence[dict[str, Any]] = (), num_discarded: int = 0
) -> StudySearcher:
    """Make the searcher of a study.

    Args:
        spec: settings of the study.
        space: the search space.
        points: configurations to evaluate right after the baseline. They change the sampler's seed: with the seed of
            the studies that the points are from, the search would repeat the proposals of these studies.
        num_discarded: number of failed trials that do not count towards spec.trials, see History.discarded.
    """
    seed = spec.train.seed + len(points)
    return StudySearcher(
        space,
        study_name=spec.study,
        num_epochs=spec.train.epochs,
        make_sampler=lambda number: make_sampler(spec.sampler, space, trials=spec.trials, seed=seed, number=number),
        folder=spec.folder,
        patience=spec.patience,
        points=points,
        num_trials=spec.trials + num_discarded,
    )
