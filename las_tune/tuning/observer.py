"""What Ray Tune tells the driver, as TrialRecords: handed to the listeners, event by event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.study_spec import StudySpec
from las_tune.tracking.journal import PANELS_NAME
from las_tune.tracking.panel import PANEL_NAME
from las_tune.tracking.record import ROW, SYSTEM, Listener, TrialRecord
from las_tune.tuning.space import Space
from las_tune.tuning.trainable import CHECKPOINT_SCORE, SharedStudy


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


class Observer(tune.Callback):  # type: ignore[misc]  # ray ships no types for it
    """Turns Ray's events into TrialRecords and passes them on, on the driver."""

    def __init__(self, studies: Sequence[TunedStudy], identify: Callable[[Any], tuple[int, TrialRecord]]) -> None:
        """identify: one of Ray's trials, as the index of its study and a new record."""
        self._studies = studies
        self._identify = identify
        self._study_of: dict[str, int] = {}
        self.trials: dict[str, TrialRecord] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray pickles callbacks into its snapshot; what this one holds belongs to the living driver."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial starts, or starts again after a fault."""
        self._record_of(trial)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """An epoch ended. One that was repeated after a fault gave the same numbers and is not counted twice."""
        record = self._record_of(trial)
        record.worker = f"{result['hostname']}:{result['pid']}"
        if result["epoch"] > len(record.epochs):
            measured = (name for name in result if name.startswith(SYSTEM))
            record.add_epoch({name: result[name] for name in (*ROW, *measured) if name in result})
            for listener in self._listeners_of(trial.trial_id):
                listener.epoch_ended(record)
        else:
            record.repeated_seconds += result["seconds"]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial came to its last epoch, or was stopped before."""
        record = self._record_of(trial)
        self._keep_panel(trial, record)
        if len(record.epochs) == self._studies[self._study_of[trial.trial_id]].spec.train.epochs:
            self._end(trial.trial_id, "completed", "")
        else:
            self._end(trial.trial_id, "pruned", f"stopped after epoch {len(record.epochs)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial failed for good."""
        self._keep_panel(trial, self._record_of(trial))
        self._end(trial.trial_id, "failed", _last_line(Path(trial.error_file)))

    def end_rest(self) -> dict[str, TrialRecord]:
        """End the trials that Ray let go of without a word, as it does where the time budget ends; returns them."""
        rest = {trial_id: record for trial_id, record in self.trials.items() if record.status == "running"}
        for trial_id, record in rest.items():
            reason = f"the trials ended after its epoch {len(record.epochs)}"
            self._end(trial_id, "pruned" if record.epochs else "failed", reason)
        return rest

    def ran(self, results: Any) -> list[Ran]:
        """What ran, study by study."""
        ran = [Ran([], {}) for _ in self._studies]
        for trial_id, record in sorted(self.trials.items(), key=lambda item: item[1].number):
            ran[self._study_of[trial_id]].records.append(record)
        for result in results:
            name = result.metrics["trial_id"] if result.metrics else None
            if name in self.trials and result.best_checkpoints:
                best = max(result.best_checkpoints, key=lambda pair: pair[1][CHECKPOINT_SCORE])[0]
                ran[self._study_of[name]].checkpoints[self.trials[name].number] = best
        return ran

    def _record_of(self, trial: Any) -> TrialRecord:
        """The record of a trial, made when it is first heard of: one whose worker cannot start only ever fails."""
        if trial.trial_id not in self.trials:
            self._study_of[trial.trial_id], record = self._identify(trial)
            record.started = time.time()
            self.trials[trial.trial_id] = record
            for listener in self._listeners_of(trial.trial_id):
                listener.trial_started(record)
        return self.trials[trial.trial_id]

    def _listeners_of(self, trial_id: str) -> Sequence[Listener]:
        return self._studies[self._study_of[trial_id]].listeners

    def _keep_panel(self, trial: Any, record: TrialRecord) -> None:
        """Copy the panel of the best epoch out of the checkpoint: Ray may delete that."""
        best = trial.run_metadata.checkpoint_manager.best_checkpoint_result
        if best is not None:
            folder = self._studies[self._study_of[trial.trial_id]].spec.folder
            record.panel, record.no_panel = copy_panel(
                best.checkpoint, folder / PANELS_NAME / f"trial_{record.number:04d}.npz"
            )

    def _end(self, trial_id: str, status: Any, reason: str) -> None:
        record = self.trials[trial_id]
        record.status, record.reason, record.ended = status, reason, time.time()
        for listener in self._listeners_of(trial_id):
            listener.trial_ended(record)


def _last_line(error_file: Path) -> str:
    """What a traceback ends with: the kind of error and its text."""
    lines = error_file.read_text(encoding="utf-8").split("\n") if error_file.is_file() else []
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "unknown")


def copy_panel(checkpoint: tune.Checkpoint, file: Path) -> tuple[Path | None, str]:
    """Copy the panel alone out of a checkpoint, wherever that is stored; None, and why, where it cannot be had."""
    try:
        with checkpoint.filesystem.open_input_stream(f"{checkpoint.path}/{PANEL_NAME}") as stream:
            content = stream.read()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except Exception as error:  # each kind of storage has errors of its own, and pictures are not worth a search
        return None, f"{type(error).__name__}: {error}"
    return file, ""
