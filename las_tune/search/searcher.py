"""Optuna as Ray Tune's search algorithm, with every trial told to Optuna as what it was."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from las_tune.config.study_spec import StudySpec
from las_tune.config.trial_record import Status, TrialRecord
from las_tune.search.optuna_storage import STATUS, open_storage
from las_tune.search.samplers import GridSampler, draw, make_sampler
from las_tune.space.search_space import Space

METRIC = "best_objective"
"""What trials are compared by: the best so far never falls, so the last report is also the best one."""
SEED_NOISE = 0.005
"""A smaller gain of the objective is no gain for --patience. While trials run, each has one seed, so the noise cannot
be measured; this is a floor under it: two seeds of one set of hyperparameters differed by 0.02 on metal_plate."""

FIRST = 10
"""Of the first trials that a driver sees end, half may fail: with more, something is wrong with all of them."""
NAME = "trial "


def name_of(number: int) -> str:
    """What stands for Ray's name of a trial, which every driver draws anew."""
    return f"{NAME}{number}"


def rows_told(record: TrialRecord) -> list[dict[str, Any]]:
    """The epochs of a record as trials report them: the objective is the best so far."""
    best, rows = None, list[dict[str, Any]]()
    for row in record.epochs:
        best = row["objective"] if best is None or row["objective"] > best else best  # what is no number first stays
        rows.append({"epoch": int(row["epoch"]), "training_iteration": int(row["epoch"]), METRIC: best})
    return rows


class StudySearch(OptunaSearch):  # type: ignore[misc]  # ray ships no types for it
    """Ray's OptunaSearch without its traps.

    A trial that the scheduler stopped is told as PRUNED (not COMPLETE), one that failed or gave no finite number
    as FAIL (not left RUNNING); the Optuna study has the study's own name; the baseline is asked first.
    The search ends early, with the running trials left to their ends, where patience or the grid is exhausted.
    """

    def __init__(
        self,
        space: Space,
        *,
        study: str,
        num_epochs: int,
        sampler: Callable[[int], BaseSampler],
        folder: Path,
        patience: int | None = None,
        points: Sequence[dict[str, Any]] = (),
        num_trials: int | None = None,
    ) -> None:
        """Args:
        space: what is searched.
        study: name of the Optuna study.
        num_epochs: epochs of a trial that ran to its end.
        sampler: makes what proposes the trial of a number. A new one each: proposals then depend on the trials
            before and the seed alone, and a driver that takes over goes on as the one before would have.
        folder: the study's; Optuna's journal lies in it.
        patience: trials in a row, as they end, without a gain beyond SEED_NOISE, after which none is proposed.
        points: hyperparameters to try right after the baseline.
        num_trials: how many are proposed in all; None: as many as are asked for.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._num_epochs = num_epochs
        self._patience = patience
        self._num_trials = num_trials
        self._make_sampler = sampler
        self._sampler: BaseSampler
        self._unfinished: list[optuna.Trial] = []
        self._last_gain = -math.inf  # small gains are measured from here, so they add up
        self._trials_since_gain = 0
        self._first = FIRST if num_trials is None else min(FIRST, num_trials)
        self._num_ended = self._num_failed = 0
        super().__init__(
            partial(draw, space),
            metric=METRIC,
            mode="max",
            sampler=sampler(0),
            study_name=study,
            storage=open_storage(folder),
        )
        if not self._ot_study.get_trials(deepcopy=False):
            for point in (space.baseline, *points):
                self._ot_study.enqueue_trial(point)

    def take_back(self, records: Sequence[TrialRecord]) -> dict[int, Status]:
        """Go on where an earlier driver stopped: those of its trials that run are asked for first, as they were.

        records: the trials that are known, in the order in which they ended, then those that did not.
        Returns: status, by number, of trials that Optuna was told of and the records do not know as ended.
        """
        told: dict[int, Status] = {}
        known = {record.number: record for record in records}
        for frozen in self._ot_study.get_trials(deepcopy=True):
            record = known.get(frozen.number)
            if frozen.state == TrialState.RUNNING:
                trial = optuna.Trial(self._ot_study, frozen._trial_id)  # Optuna has no public way back to it
                rows = rows_told(record) if record is not None else []
                for row in rows:
                    self._report(trial, row)
                if record is None or record.status == "running":
                    self._unfinished.append(trial)
                else:
                    self._tell(trial, rows[-1] if rows else None, record.status == "failed")
            elif frozen.state in STATUS and record is not None and record.status == "running":
                told[frozen.number] = STATUS[frozen.state]
        for record in records:
            if record.status != "running":
                best = record.best_objective
                self._count_for_patience(-math.inf if record.status == "failed" or best is None else best)
        return told

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The hyperparameters of a new trial, or that the search is over."""
        if self._unfinished and not self.is_failing:
            self._ot_trials[trial_id] = self._unfinished.pop(0)
            return self._ask(trial_id)
        asked = sum(trial.state != TrialState.WAITING for trial in self._ot_study.get_trials(deepcopy=False))
        grid_is_done = isinstance(self._sampler, GridSampler) and asked >= len(self._sampler.points)
        is_full = self._num_trials is not None and asked >= self._num_trials
        is_patience_over = self._patience is not None and self._trials_since_gain >= self._patience
        if self.is_failing or grid_is_done or is_full or is_patience_over:
            return str(Searcher.FINISHED)
        self._sampler = self._ot_study.sampler = self._make_sampler(asked)
        return self._ask(trial_id)

    @property
    def is_failing(self) -> bool:
        """Whether so many of the first trials failed that no more are proposed."""
        return self._num_failed > self._first / 2

    def _ask(self, trial_id: str) -> dict[str, Any] | None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Define-by-run function")  # that a sampler thinks for long is no mistake
            proposal: dict[str, Any] | None = super().suggest(trial_id)
        return proposal

    def number_of(self, trial_id: str) -> int:
        """Optuna's number of one of Ray's trials, or of what name_of made of it."""
        if trial_id.startswith(NAME):
            return int(trial_id.removeprefix(NAME))
        number: int = self._ot_trials[trial_id].number
        return number

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tell Optuna of an epoch; one that was repeated after a fault is known."""
        self._report(self._ot_trials[trial_id], result)

    def _report(self, trial: optuna.Trial, row: Mapping[str, Any]) -> None:
        if row["epoch"] not in self._ot_study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(row[METRIC], row["epoch"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how a trial ended."""
        if trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        value = (result or {}).get(METRIC)
        if error or value is None or not math.isfinite(value):
            value = -math.inf
        self._num_ended += 1
        self._num_failed += value == -math.inf and self._num_ended <= self._first
        self._count_for_patience(value)
        self._tell(self._ot_trials[trial_id], result, is_failed=value == -math.inf)

    def _tell(self, trial: optuna.Trial, row: Mapping[str, Any] | None, is_failed: bool) -> None:
        """End a trial for Optuna as what it was; row is its last."""
        if row is None or is_failed:
            self._ot_study.tell(trial, state=TrialState.FAIL)
        elif row["epoch"] < self._num_epochs:
            self._report(trial, row)  # Ray keeps the result that a trial is stopped at to itself
            self._ot_study.tell(trial, state=TrialState.PRUNED)
        else:
            self._ot_study.tell(trial, row[METRIC])

    def _count_for_patience(self, value: float) -> None:
        """Count a trial that ended with this objective."""
        if value > self._last_gain + SEED_NOISE:
            self._last_gain, self._trials_since_gain = value, 0
        else:
            self._trials_since_gain += 1


def make_search(
    spec: StudySpec, space: Space, points: Sequence[dict[str, Any]] = (), num_given_up: int = 0
) -> StudySearch:
    """The search that the flags describe; points are tried right after the baseline.

    num_given_up: trials that are proposed once more, see History.given_up.

    A search that starts from other studies' points draws others than these did: with their seed it would repeat them.
    """
    seed = spec.train.seed + len(points)
    return StudySearch(
        space,
        study=spec.study,
        num_epochs=spec.train.epochs,
        sampler=lambda number: make_sampler(spec.sampler, space, trials=spec.trials, seed=seed, number=number),
        folder=spec.folder,
        patience=spec.patience,
        points=points,
        num_trials=spec.trials + num_given_up,
    )
