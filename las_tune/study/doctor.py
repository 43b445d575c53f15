"""Three accounts of a study, compared: what its driver saw of Ray, what Optuna knows, what MLflow has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from las_tune.config import paths
from las_tune.config.trial_record import TrialRecord
from las_tune.data.study_images import Progress
from las_tune.errors import UserError, without_password
from las_tune.execution.history import History
from las_tune.search.optuna_storage import end_in_optuna, optuna_account
from las_tune.tracking.audit import Audit, end_again, write_again
from las_tune.tracking.journal import STUDY_RUN, Journal
from las_tune.tracking.sync import sync_study

Kind = Literal["zombie", "orphan", "duplicate", "missing", "different", "waiting"]


@dataclass(frozen=True)
class Problem:
    """What one account says and another does not.

    zombie     runs for MLflow or Optuna, and nobody runs it
    orphan     belongs to no trial of the study
    duplicate  a second run of one trial
    missing    a run, or numbers of epochs, that MLflow does not have
    different  ended one way here, another way there
    waiting    writes that MLflow has not taken yet, or that it refused
    """

    kind: Kind
    text: str
    mend: Callable[[], object] | None = None
    """None: sending what the journal holds mends it, or nothing does."""


@dataclass(frozen=True)
class Diagnosis:
    """What became of a study, and what is wrong with the accounts of it."""

    study: str
    is_finished: bool
    num_trials: int
    num_again: int
    problems: list[Problem]


def diagnose(folder: Path, tracking_uri: str) -> Diagnosis:
    """Compare the accounts of the study in a folder; nothing is changed.

    Args:
        folder: the study's.
        tracking_uri: its store, with password; empty: as its journal says.

    Raises: UserError for a study that runs, a folder without one, and a store that does not answer.
    """
    with closing(_open(folder)) as journal:
        return _Doctor(folder, journal, tracking_uri).diagnosis()


def mend(folder: Path, tracking_uri: str, progress: Progress) -> Diagnosis:
    """Mend what can be mended, bring to MLflow what waits, and look again."""
    with closing(_open(folder)) as journal:
        for problem in _Doctor(folder, journal, tracking_uri).diagnosis().problems:
            if problem.mend is not None:
                problem.mend()
    sync_study(folder, tracking_uri, progress)
    return diagnose(folder, tracking_uri)


def studies_in(results: Path) -> list[str]:
    """Names of the studies in a folder."""
    return sorted(file.parent.name for file in results.glob(f"*/{paths.LEDGER}"))


def _open(folder: Path) -> Journal:
    if not (folder / paths.LEDGER).is_file():
        known = ", ".join(studies_in(folder.parent)) or "none"
        raise UserError("--study must be in --results", f"{folder.name} in {folder.parent}", f"Known: {known}")
    return Journal(folder)


class _Doctor:
    """Holds the accounts of one study."""

    def __init__(self, folder: Path, journal: Journal, tracking_uri: str) -> None:
        self._folder = folder
        self._journal = journal
        self._history = History(folder)
        self._is_finished = (folder / paths.SUMMARY).exists()
        self._optuna = optuna_account(folder, folder.name)
        uri = tracking_uri or journal.header["tracking_uri"]
        if without_password(uri) != journal.header["tracking_uri"]:
            rule, store = "--tracking-uri must be the store that the study writes to", journal.header["tracking_uri"]
            raise UserError(rule, without_password(uri), f"give {store}")
        self._mlflow = Audit.of(journal, uri, folder.parent / "mlartifacts")

    def diagnosis(self) -> Diagnosis:
        """All that is wrong."""
        records = self._history.records.values()
        problems = [*self._waiting(), *self._of_optuna(), *self._of_mlflow()]
        num_again = sum(bool(record.finalist) for record in records)
        return Diagnosis(self._folder.name, self._is_finished, len(records) - num_again, num_again, problems)

    def _waiting(self) -> Iterator[Problem]:
        if self._journal.num_waiting:
            yield Problem("waiting", f"{self._journal.num_waiting} writes that MLflow has not taken yet")

    def _of_optuna(self) -> Iterator[Problem]:
        """A study that goes on finds its running trials in Optuna: only a finished one has zombies there."""
        trials = {n: record for n, record in self._history.records.items() if not record.finalist}
        for number, state in self._optuna.items():
            record = trials.get(number)
            allowed = ("running", record.status, _as_optuna(record)) if record is not None else ()
            end = partial(end_in_optuna, self._folder, self._folder.name, [number])
            if state == "running" and self._is_finished:
                yield Problem("zombie", f"trial {number} runs for Optuna, and the study is finished", end)
            elif state not in ("running", "failed") and record is None:  # one that failed taught it nothing
                yield Problem("orphan", f"trial {number} of Optuna is none of the study")
            elif record is not None and record.status != "running" and state not in allowed:
                yield Problem("different", f"trial {number} has {record.status}, for Optuna it has {state}")
        for number in trials.keys() - self._optuna:
            yield Problem("missing", f"Optuna does not know trial {number}")

    def _of_mlflow(self) -> Iterator[Problem]:
        wanted = {str(number): record for number, record in self._history.records.items()}
        for key, runs in self._mlflow.runs.items():
            if len(runs) > 1:
                others = [run.info.run_id for run in runs[1:]]
                remove = partial(self._mlflow.delete, others)
                yield Problem("duplicate", f"MLflow has {len(runs)} runs of {_name(key)}: {', '.join(others)}", remove)
            if key != STUDY_RUN and key not in wanted:
                remove = partial(self._mlflow.delete, [runs[0].info.run_id])
                yield Problem("orphan", f"MLflow has a run of {_name(key)}, which the study does not know", remove)
            elif runs[0].info.status == "RUNNING":
                end = partial(end_again, self._journal, key)
                yield Problem("zombie", f"MLflow has {_name(key)} as running, and nobody runs it", end)
            elif key != STUDY_RUN and wanted[key].status != "running":
                yield from self._of_run(key, wanted[key])
        for key in [STUDY_RUN, *wanted]:
            if key not in self._mlflow.runs:
                again = partial(write_again, self._journal, key)
                yield Problem("missing", f"MLflow has no run of {_name(key)}", again)

    def _of_run(self, key: str, record: TrialRecord) -> Iterator[Problem]:
        """Of a trial that has ended: whether its run says so, and has every epoch once."""
        again = partial(write_again, self._journal, key)
        status = self._mlflow.runs[key][0].data.tags.get("status")
        if status != record.status:
            yield Problem("different", f"{_name(key)} has {record.status}, for MLflow it has {status}", again)
        epochs, wanted = self._mlflow.epochs(key), [int(row["epoch"]) for row in record.epochs]
        if sorted(set(epochs)) != wanted:
            yield Problem("missing", f"{_name(key)} has {len(wanted)} epochs, in MLflow {len(set(epochs))}", again)
        elif epochs != wanted:
            yield Problem("duplicate", f"{_name(key)} has {len(wanted)} epochs, in MLflow {len(epochs)} numbers")


def _as_optuna(record: TrialRecord) -> str:
    """How else Optuna may have a trial: without a number to learn from, it has failed."""
    has_number = record.best_objective is not None and record.best_objective == record.best_objective
    return record.status if has_number else "failed"


def _name(key: str) -> str:
    return "the study" if key == STUDY_RUN else f"trial {key}"
