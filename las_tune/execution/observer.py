"""What Ray Tune tells the driver, as TrialRecords: handed to the listeners, event by event."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.config.study_spec import StudySpec
from las_tune.config.trial_record import ROW, SYSTEM, Listener, TrialRecord
from las_tune.execution.checkpoint_storage import Storage
from las_tune.execution.history import History
from las_tune.execution.interrupts import uninterrupted
from las_tune.execution.trainable import LEAVES, SharedStudy
from las_tune.reporting.panel import PANEL_NAME
from las_tune.search.trial_faults import FAILED, TRACEBACK
from las_tune.space.search_space import Space
from las_tune.tracking.journal import PANELS_NAME

FAILURES_NAME = "failures"
"""Folder in a study's: what trials that failed said, in full."""


@dataclass(frozen=True)
class TunedStudy:
    """One study, as the tuner sees it."""

    spec: StudySpec
    space: Space
    shared: SharedStudy
    listeners: Sequence[Listener]
    points: tuple[dict[str, Any], ...] = ()
    """Hyperparameters to try right after the baseline."""


@dataclass(frozen=True)
class Ran:
    """What ran of one study: records by number, and of each trial that has one the checkpoint of its best epoch."""

    records: list[TrialRecord]
    checkpoints: dict[int, tune.Checkpoint]
    is_failing: bool = False
    """Whether the search was given up because most of its first trials failed."""


class Observer(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Turns Ray's events into TrialRecords and passes them on, on the driver; tells first what earlier drivers saw."""

    def __init__(
        self,
        studies: Sequence[TunedStudy],
        histories: Sequence[History],
        storage: Storage,
        experiment: str,
        identify: Callable[[Any], tuple[int, TrialRecord]],
    ) -> None:
        """Args:
        studies: whose trials these are.
        histories: what each of them has done before.
        storage: where checkpoints lie.
        experiment: the folder of these trials in it.
        identify: one of Ray's trials, as the index of its study and a new record.
        """
        self._studies = studies
        self._histories = histories
        self._storage = storage
        self._experiment = experiment
        self._identify = identify
        self._records: list[dict[int, TrialRecord]] = [{} for _ in studies]
        self._trials: dict[str, tuple[int, TrialRecord]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks into its snapshot; what this one holds belongs to the living driver."""
        return {}

    def take_back(self, study: int, record: TrialRecord) -> str:
        """Tell the listeners of a trial of an earlier driver, up to where it came.

        Returns: the checkpoint that it goes on from, in the storage; empty where it has ended or left none.
        """
        self._records[study][record.number] = record
        is_over = record.status != "running"
        found = [] if is_over else list(self._storage.find(self._histories[study].folders[record.number]))
        rows = record.epochs if is_over else found[0].rows if found else []
        listeners, status = self._studies[study].listeners, record.status
        record.status, record.epochs, record.seconds = "running", [], 0.0
        for listener in listeners:
            listener.trial_started(record)
        for row in rows:
            record.add_epoch(_kept(row))
            for listener in listeners:
                listener.epoch_ended(record)
        record.status = status
        if is_over:
            for listener in listeners:
                listener.trial_ended(record)
            return ""
        best = (one.path for one in found if one.rows[-1]["epoch"] == record.best["epoch"])
        record.checkpoint = next(best, "")
        if len(rows) == self._studies[study].spec.train.epochs:
            self.end_as(study, record.number, "completed")
            return ""
        return found[0].path if found else ""

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, or starts again after a fault."""
        self._record_of(trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """An epoch ended. One that was repeated after a fault gave the same numbers and is not counted twice."""
        study, record = self._record_of(trial)
        if FAILED in result:  # it ends by this report
            return
        if result.get(LEAVES):  # Ray takes what follows for a failure, which it is not
            trial.max_failures += 1
        record.worker = f"{result['hostname']}:{result['pid']}"
        if result["epoch"] > len(record.epochs):
            record.add_epoch(_kept(result))
            self._tell(study, "epoch_ended", record)
        else:
            record.repeated_seconds += result["seconds"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its last epoch, was stopped before, or failed in a way that no other try would help."""
        study, record = self._record_of(trial)
        self._keep_best(study, record, trial)
        if FAILED in trial.last_result:
            self._fail(study, record, trial.last_result[FAILED], trial.last_result[TRACEBACK])
        elif len(record.epochs) == self._studies[study].spec.train.epochs:
            self._end(study, record, "completed")
        else:
            self._end(study, record, "pruned", f"stopped after epoch {len(record.epochs)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed, and there are no more tries."""
        study, record = self._record_of(trial)
        self._keep_best(study, record, trial)
        file = Path(trial.error_file)
        told = file.read_text(encoding="utf-8") if file.is_file() else ""
        last = next((line.strip()[:300] for line in reversed(told.split("\n")) if line.strip()), "unknown")
        self._fail(study, record, last, told)

    def end_rest(self) -> dict[str, TrialRecord]:
        """End the trials that Ray let go of without a word, as it does where the time budget ends; returns them."""
        rest = {name: (study, record) for name, (study, record) in self._trials.items() if record.status == "running"}
        for study, record in rest.values():
            reason = f"the trials ended after its epoch {len(record.epochs)}"
            self._end(study, record, "pruned" if record.epochs else "failed", reason)
        return {name: record for name, (_, record) in rest.items()}

    def end_as(self, study: int, number: int, status: Any) -> None:
        """End a trial that Optuna was told of before an earlier driver died."""
        record = self._records[study][number]
        self._copy_panel(study, record)
        self._end(study, record, status, f"stopped after epoch {len(record.epochs)}" if status == "pruned" else "")

    def ran(self) -> list[Ran]:
        """What ran, study by study."""
        ran = []
        for records in self._records:
            in_order = sorted(records.values(), key=lambda record: record.number)
            kept = {r.number: self._storage.checkpoint(r.checkpoint) for r in in_order if r.checkpoint}
            ran.append(Ran(in_order, kept))
        return ran

    def _record_of(self, trial: Any) -> tuple[int, TrialRecord]:
        """The record of a trial, made when it is first heard of: one whose worker cannot start only ever fails."""
        if trial.trial_id not in self._trials:
            study, new = self._identify(trial)
            record = self._records[study].setdefault(new.number, new)
            record.started = record.started or time.time()
            record.folder = f"{self._experiment}/{trial.custom_dirname}"
            self._trials[trial.trial_id] = (study, record)
            if record is new:
                self._tell(study, "trial_started", record)
            else:
                self._histories[study].trial_started(record)
        return self._trials[trial.trial_id]

    def _tell(self, study: int, event: str, record: TrialRecord) -> None:
        with uninterrupted():  # the history's account and the ledger's stay one
            for listener in (self._histories[study], *self._studies[study].listeners):
                getattr(listener, event)(record)

    def _keep_best(self, study: int, record: TrialRecord, trial: Any) -> None:
        """Note the checkpoint of the best epoch; an earlier driver may have seen that."""
        best = trial.run_metadata.checkpoint_manager.best_checkpoint_result
        if best is not None and (not record.checkpoint or best.metrics["epoch"] == record.best["epoch"]):
            record.checkpoint = self._storage.relative(best.checkpoint)
        self._copy_panel(study, record)

    def _copy_panel(self, study: int, record: TrialRecord) -> None:
        """Copy the panel of the best epoch out of its checkpoint: Ray may delete that."""
        if record.checkpoint:
            file = self._studies[study].spec.folder / PANELS_NAME / f"trial_{record.number:04d}.npz"
            record.panel, record.no_panel = copy_panel(self._storage.checkpoint(record.checkpoint), file)

    def _fail(self, study: int, record: TrialRecord, reason: str, told: str) -> None:
        """End a trial as failed; where, is in a file of the study."""
        file = self._studies[study].spec.folder / FAILURES_NAME / f"trial_{record.number:04d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(told, encoding="utf-8")
        self._end(study, record, "failed", reason)

    def _end(self, study: int, record: TrialRecord, status: Any, reason: str = "") -> None:
        record.status, record.reason, record.ended = status, reason, time.time()
        self._tell(study, "trial_ended", record)


def _kept(row: Mapping[str, Any]) -> dict[str, float]:
    """What a record keeps of an epoch."""
    measured = (name for name in row if name.startswith(SYSTEM))
    return {name: row[name] for name in (*ROW, *measured) if name in row}


def copy_panel(checkpoint: tune.Checkpoint, file: Path) -> tuple[Path | None, str]:
    """Copy the panel alone out of a checkpoint, wherever that is stored; None, and why, where it cannot be had."""
    try:
        with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{PANEL_NAME}") as stream:
            content = stream.read()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except Exception as error:  # each kind of storage has errors of its own, and images are not worth a search
        return None, f"{type(error).__name__}: {error}"
    return file, ""
