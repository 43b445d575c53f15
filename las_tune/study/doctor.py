"""Consistency check of a study: its history of Ray's trials, Optuna's storage and MLflow's runs are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from las_tune.config import Progress, TrialRecord, paths
from las_tune.errors import UserError
from las_tune.execution import History
from las_tune.search import mark_failed, optuna_statuses
from las_tune.tracking import STUDY_RUN, Audit, Journal, resend_end, resend_run, sync_study

Kind = Literal["zombie", "orphan", "duplicate", "missing", "different", "waiting"]


@dataclass(frozen=True)
class Problem:
    """A disagreement between history, Optuna and MLflow.

    zombie     has the status running, but no process runs it
    orphan     belongs to no trial of the study
    duplicate  a second run of a trial, or a second value of an epoch
    missing    a run or epochs that MLflow or Optuna lacks
    different  a trial with two statuses
    waiting    writes that have not been sent to MLflow yet
    """

    kind: Kind
    text: str
    repair: Callable[[], object] | None = None
    """None if sending the journal to MLflow repairs the problem, or if it cannot be repaired."""


@dataclass(frozen=True)
class Diagnosis:
    """The state of a study and its problems."""

    study: str
    is_finished: bool
    num_trials: int
    num_retrainings: int
    problems: list[Problem]


def diagnose(folder: Path, tracking_uri: str) -> Diagnosis:
    """Compare history, Optuna and MLflow of the study in a folder. Nothing is changed.

    Args:
        folder: folder of the study.
        tracking_uri: its MLflow store with its password; empty for the store in its journal.

    Raises: UserError if the study is running, the folder has no study, or the store does not answer.
    """
    with closing(_open_journal(folder)) as journal:
        return _Doctor(folder, journal, tracking_uri).diagnosis()


def repair(folder: Path, tracking_uri: str, progress: Progress) -> Diagnosis:
    """Repair the problems of a study, send waiting writes to MLflow, and diagnose the study again.

    Args:
        folder, tracking_uri: as in `diagnose`.
        progress: reports the writes that are sent.

    Raises: UserError like diagnose.
    """
    with closing(_open_journal(folder)) as journal:
        for problem in _Doctor(folder, journal, tracking_uri).diagnosis().problems:
            if problem.repair is not None:
                problem.repair()
    sync_study(folder, tracking_uri, progress)
    return diagnose(folder, tracking_uri)


def studies_in(results: Path) -> list[str]:
    """Return the sorted names of the studies in a results folder."""
    return sorted(file.parent.name for file in results.glob(f"*/{paths.LEDGER}"))


def _open_journal(folder: Path) -> Journal:
    if not (folder / paths.LEDGER).is_file():
        known = ", ".join(studies_in(folder.parent)) or "none"
        raise UserError(f"There is no study {folder.name} in {folder.parent}", remedy=f"Known studies: {known}")
    return Journal(folder)


class _Doctor:
    """The history, Optuna's statuses and MLflow's runs of one study."""

    def __init__(self, folder: Path, journal: Journal, tracking_uri: str) -> None:
        self._folder = folder
        self._journal = journal
        self._history = History(folder)
        self._is_finished = (folder / paths.SUMMARY).exists()
        self._optuna = optuna_statuses(folder, folder.name)
        self._mlflow = Audit.load(journal, journal.resolve_store(tracking_uri), folder.parent / "mlartifacts")

    def diagnosis(self) -> Diagnosis:
        """Return all problems of the study."""
        records = self._history.records.values()
        problems = [*self._unsent_writes(), *self._optuna_problems(), *self._mlflow_problems()]
        num_retrainings = sum(bool(record.finalist) for record in records)
        num_trials = len(records) - num_retrainings
        return Diagnosis(self._folder.name, self._is_finished, num_trials, num_retrainings, problems)

    def _unsent_writes(self) -> Iterator[Problem]:
        if self._journal.num_waiting:
            yield Problem("waiting", f"MLflow has not received {self._journal.num_waiting} of the writes")

    def _optuna_problems(self) -> Iterator[Problem]:
        """Compare the trials of the search. An unfinished study resumes the trials that run in Optuna."""
        trials = {n: record for n, record in self._history.records.items() if not record.finalist}
        for number, status in self._optuna.items():
            record = trials.get(number)
            allowed = ("running", record.status, _status_in_optuna(record)) if record is not None else ()
            end = partial(mark_failed, self._folder, self._folder.name, [number])
            if status == "running" and self._is_finished:
                yield Problem("zombie", f"Optuna lists trial {number} as running, but the study is finished", end)
            elif status not in ("running", "failed") and record is None:  # failed trials do not affect the sampler
                yield Problem("orphan", f"Optuna has trial {number}, which does not belong to the study")
            elif record is not None and record.status != "running" and status not in allowed:
                yield Problem("different", f"trial {number} is {record.status}, but {status} in Optuna")
        for number in trials.keys() - self._optuna:
            yield Problem("missing", f"Optuna has no trial {number}")

    def _mlflow_problems(self) -> Iterator[Problem]:
        expected = {str(number): record for number, record in self._history.records.items()}
        for key, runs in self._mlflow.runs.items():
            if len(runs) > 1:
                ids = [run.info.run_id for run in runs[1:]]
                remove = partial(self._mlflow.delete, ids)
                yield Problem("duplicate", f"MLflow has {len(runs)} runs of {_name(key)}: {', '.join(ids)}", remove)
            if key != STUDY_RUN and key not in expected:
                remove = partial(self._mlflow.delete, [runs[0].info.run_id])
                yield Problem("orphan", f"MLflow has a run of {_name(key)}, which is not in the study", remove)
            elif runs[0].info.status == "RUNNING":
                end = partial(resend_end, self._journal, key)
                yield Problem("zombie", f"MLflow lists {_name(key)} as running, but no process runs it", end)
            elif key != STUDY_RUN and expected[key].status != "running":
                yield from self._run_problems(key, expected[key])
        for key in [STUDY_RUN, *expected]:
            if key not in self._mlflow.runs:
                resend = partial(resend_run, self._journal, key)
                yield Problem("missing", f"MLflow has no run of {_name(key)}", resend)

    def _run_problems(self, key: str, record: TrialRecord) -> Iterator[Problem]:
        """Check status and epochs of a trial that has ended."""
        resend = partial(resend_run, self._journal, key)
        status = self._mlflow.runs[key][0].data.tags.get("status")
        if status != record.status:
            yield Problem("different", f"{_name(key)} is {record.status}, but {status} in MLflow", resend)
        epochs, expected = self._mlflow.epochs(key), [int(row["epoch"]) for row in record.epochs]
        if sorted(set(epochs)) != expected:
            text = f"{_name(key)} has {len(expected)} epochs, but {len(set(epochs))} in MLflow"
            yield Problem("missing", text, resend)
        elif epochs != expected:
            text = f"{_name(key)} has {len(expected)} epochs, but MLflow has {len(epochs)} values for them"
            yield Problem("duplicate", text)


def _status_in_optuna(record: TrialRecord) -> str:
    """Status of a trial in Optuna, which counts a trial without an objective as failed."""
    has_objective = record.best_objective is not None and record.best_objective == record.best_objective
    return record.status if has_objective else "failed"


def _name(key: str) -> str:
    return "the study" if key == STUDY_RUN else f"trial {key}"
