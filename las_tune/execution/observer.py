"""Turns the events of Ray Tune into trial records and passes them to the listeners, on the driver."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.config import EPOCH_FIELDS, SYSTEM_PREFIX, Listener, Status, StudySpec, TrialRecord
from las_tune.execution.checkpoint_storage import CheckpointStorage
from las_tune.execution.history import History
from las_tune.execution.interrupts import uninterrupted
from las_tune.execution.trainable import MIGRATES, SharedStudy
from las_tune.reporting import PANEL_NAME
from las_tune.search import FAILED, TRACEBACK
from las_tune.space import Space
from las_tune.tracking import PANELS_NAME

FAILURES_NAME = "failures"
"""Folder of a study with the tracebacks of its failed trials."""


@dataclass(frozen=True)
class TuneInput:
    """A study that is ready to be searched."""

    spec: StudySpec
    space: Space
    shared: SharedStudy
    listeners: Sequence[Listener]
    points: tuple[dict[str, Any], ...] = ()
    """Configurations to evaluate right after the baseline."""


@dataclass(frozen=True)
class TuneResult:
    """The trials of one study: records by number, and the checkpoint of the best epoch of each trial that has one."""

    records: list[TrialRecord]
    checkpoints: dict[int, tune.Checkpoint]
    is_failing: bool = False
    """Whether the search was stopped because most of its first trials failed."""


class Observer(tune.Callback):  # type: ignore[misc]  # ray has no type stubs
    """Ray Tune callback that keeps the records of all studies of a run and notifies their listeners."""

    def __init__(
        self,
        studies: Sequence[TuneInput],
        histories: Sequence[History],
        storage: CheckpointStorage,
        experiment: str,
        identify: Callable[[Any], tuple[int, TrialRecord]],
    ) -> None:
        """Start without records.

        Args:
            studies: the studies that the trials belong to.
            histories: their histories, in the same order.
            storage: the storage of the run's checkpoints.
            experiment: name of the Ray experiment, which is its folder in the storage.
            identify: maps a Ray trial to the index of its study and a new record.
        """
        self._studies = studies
        self._histories = histories
        self._storage = storage
        self._experiment = experiment
        self._identify = identify
        self._records: list[dict[int, TrialRecord]] = [{} for _ in studies]
        self._trials: dict[str, tuple[int, TrialRecord]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: Ray pickles callbacks into its snapshot, which a new driver does not read."""
        return {}

    # --- trials of earlier drivers ---

    def replay(self, study: int, record: TrialRecord) -> str:
        """Replay a trial of an earlier driver to the listeners.

        Returns:
            The checkpoint to resume from, relative to the storage; empty if the trial has ended or left none.
        """
        self._records[study][record.number] = record
        if record.status != "running":
            self._replay_events(study, record, record.epochs)
            return ""
        checkpoints = list(self._storage.find(self._histories[study].folders[record.number]))
        rows = checkpoints[0].rows if checkpoints else []
        self._replay_events(study, record, rows)
        best = (stored.path for stored in checkpoints if stored.rows[-1]["epoch"] == record.best["epoch"])
        record.checkpoint = next(best, "")
        if len(rows) == self._studies[study].spec.train.epochs:
            self.end_trial(study, record.number, "completed")
            return ""
        return checkpoints[0].path if checkpoints else ""

    def _replay_events(self, study: int, record: TrialRecord, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send the events of a trial to the listeners. The history is skipped: it has them already."""
        listeners, status = self._studies[study].listeners, record.status
        record.status, record.epochs, record.seconds = "running", [], 0.0
        for listener in listeners:
            listener.trial_started(record)
        for row in rows:
            record.add_epoch(_select_fields(row))
            for listener in listeners:
                listener.epoch_ended(record)
        record.status = status
        if status != "running":
            for listener in listeners:
                listener.trial_ended(record)

    def end_trial(self, study: int, number: int, status: Status) -> None:
        """End a trial whose end an earlier driver reported to Optuna but did not record."""
        record = self._records[study][number]
        self._copy_panel(study, record)
        self._end(study, record, status, f"stopped after epoch {len(record.epochs)}" if status == "pruned" else "")

    # --- Ray's events ---

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the start of a trial, which is repeated after a fault."""
        self._record_of(trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Handle the end of an epoch. An epoch that is repeated after a fault has the same metrics and counts once."""
        study, record = self._record_of(trial)
        if FAILED in result:  # the last report of a failed trial, which is not an epoch
            return
        if result.get(MIGRATES):  # Ray counts the end of the process, which follows, as a failure
            trial.max_failures += 1
        record.worker = f"{result['hostname']}:{result['pid']}"
        if result["epoch"] > len(record.epochs):
            record.add_epoch(_select_fields(result))
            with uninterrupted():
                for listener in self._listeners(study):
                    listener.epoch_ended(record)
        else:
            record.repeated_seconds += result["seconds"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the end of a trial that completed, was pruned, or failed with a permanent error."""
        study, record = self._record_of(trial)
        self._set_checkpoint(study, record, trial)
        if FAILED in trial.last_result:
            self._fail(study, record, trial.last_result[FAILED], trial.last_result[TRACEBACK])
        elif len(record.epochs) == self._studies[study].spec.train.epochs:
            self._end(study, record, "completed")
        else:
            self._end(study, record, "pruned", f"stopped after epoch {len(record.epochs)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the failure of a trial that has no retries left."""
        study, record = self._record_of(trial)
        self._set_checkpoint(study, record, trial)
        file = Path(trial.error_file)
        trace = file.read_text(encoding="utf-8") if file.is_file() else ""
        reason = next((line.strip()[:300] for line in reversed(trace.split("\n")) if line.strip()), "unknown")
        self._fail(study, record, reason, trace)

    # --- the end of a run ---

    def end_unfinished(self) -> dict[str, TrialRecord]:
        """End the trials that Ray stopped without an event, as at the end of a time budget.

        Returns:
            Their records, by Ray's trial id.
        """
        unfinished = {
            trial_id: (study, record)
            for trial_id, (study, record) in self._trials.items()
            if record.status == "running"
        }
        for study, record in unfinished.values():
            reason = f"the search ended after epoch {len(record.epochs)} of this trial"
            self._end(study, record, "pruned" if record.epochs else "failed", reason)
        return {trial_id: record for trial_id, (_, record) in unfinished.items()}

    def results(self) -> list[TuneResult]:
        """Return the trials of each study."""
        results = []
        for records in self._records:
            by_number = sorted(records.values(), key=lambda record: record.number)
            checkpoints = {
                record.number: self._storage.checkpoint(record.checkpoint) for record in by_number if record.checkpoint
            }
            results.append(TuneResult(by_number, checkpoints))
        return results

    # --- records ---

    def _listeners(self, study: int) -> tuple[Listener, ...]:
        """Return the history and the listeners of a study. Notify them in `uninterrupted()`, so that they agree."""
        return (self._histories[study], *self._studies[study].listeners)

    def _record_of(self, trial: Any) -> tuple[int, TrialRecord]:
        """Return the study and record of a trial, made at its first event, which can be its failure."""
        if trial.trial_id not in self._trials:
            study, new_record = self._identify(trial)
            record = self._records[study].setdefault(new_record.number, new_record)
            record.started = record.started or time.time()
            record.folder = f"{self._experiment}/{trial.custom_dirname}"
            self._trials[trial.trial_id] = (study, record)
            if record is new_record:
                with uninterrupted():
                    for listener in self._listeners(study):
                        listener.trial_started(record)
            else:
                self._histories[study].trial_started(record)
        return self._trials[trial.trial_id]

    def _set_checkpoint(self, study: int, record: TrialRecord, trial: Any) -> None:
        """Set the checkpoint of the best epoch, unless that epoch belongs to an earlier driver."""
        best = trial.run_metadata.checkpoint_manager.best_checkpoint_result
        if best is not None and (not record.checkpoint or best.metrics["epoch"] == record.best["epoch"]):
            record.checkpoint = self._storage.relative(best.checkpoint)
        self._copy_panel(study, record)

    def _copy_panel(self, study: int, record: TrialRecord) -> None:
        """Copy the panel of the best epoch out of its checkpoint, which Ray may delete."""
        if record.checkpoint:
            file = self._studies[study].spec.folder / PANELS_NAME / f"trial_{record.number:04d}.npz"
            record.panel, record.no_panel = copy_panel(self._storage.checkpoint(record.checkpoint), file)

    def _fail(self, study: int, record: TrialRecord, reason: str, trace: str) -> None:
        """End a trial as failed and write its traceback into the study's folder."""
        file = self._studies[study].spec.folder / FAILURES_NAME / f"trial_{record.number:04d}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(trace, encoding="utf-8")
        self._end(study, record, "failed", reason)

    def _end(self, study: int, record: TrialRecord, status: Status, reason: str = "") -> None:
        record.status, record.reason, record.ended = status, reason, time.time()
        with uninterrupted():
            for listener in self._listeners(study):
                listener.trial_ended(record)


def _select_fields(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the fields of an epoch that a record stores."""
    system_metrics = (name for name in row if name.startswith(SYSTEM_PREFIX))
    return {name: row[name] for name in (*EPOCH_FIELDS, *system_metrics) if name in row}


def copy_panel(checkpoint: tune.Checkpoint, file: Path) -> tuple[Path | None, str]:
    """Copy the image panel out of a checkpoint, from any kind of storage.

    Returns:
        The file and an empty string, or None and the reason if there is no panel.
    """
    try:
        with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{PANEL_NAME}") as stream:
            content = stream.read()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except Exception as error:  # every storage raises its own errors, and a missing panel must not end the search
        return None, f"{type(error).__name__}: {error}"
    return file, ""
