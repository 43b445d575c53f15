"""The ledger: a study's record in MLflow, with one parent run and one child run for each trial.

Only the driver writes it. Events are appended to the journal, and a sender thread writes them to MLflow, so that no
study waits for MLflow.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from las_tune.config import METRICS, Listener, Progress, TrialRecord, model_name
from las_tune.errors import without_password
from las_tune.reporting import Array, UnsentWrites
from las_tune.tracking.connection import CONNECTION_ERRORS, open_store, store_error
from las_tune.tracking.journal import EXAMPLE_NAME, EXTENDED, STUDY_RUN, Journal, JournalIndex, Write
from las_tune.tracking.registry import RegisteredChampion, get_registered_champion
from las_tune.tracking.sender import Sender

CLOSE_TIMEOUT_S = 5.0
START_TIMEOUT_S = 60.0
MAX_TAG_LENGTH = 8000
"""MLflow's limit for the value of a tag, in characters."""


class Ledger(Listener):
    """Listener that writes a study to MLflow."""

    def __init__(self, tracking_uri: str, experiment: str, artifact_root: Path, tags: Mapping[str, str]) -> None:
        """Open the store, and create database and experiment if they are missing.

        Args:
            tracking_uri: URI of the MLflow store, with an absolute path if it is a file.
            experiment: name of the MLflow experiment.
            artifact_root: artifact folder of a new experiment; a server uses its own.
            tags: tags of every run of the study.

        Raises: UserError if the store cannot be opened.
        """
        self.tracking_uri = tracking_uri
        self._experiment = experiment
        self._tags = dict(tags)
        self._cost_unit = ("cpu_seconds", 1.0)
        self._index = JournalIndex()
        self._registered: dict[str, RegisteredChampion] = {}
        self.parent_run_id = ""
        self.client, self.experiment_id = open_store(tracking_uri, experiment, artifact_root)

    def start_study(
        self,
        folder: Path,
        study: str,
        params: Mapping[str, Any],
        cost_unit: tuple[str, float],
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Create the parent run, or resume the one that the journal in the study's folder belongs to.

        Args:
            folder: the study's folder.
            study: name of the study.
            params: parameters of the parent run.
            cost_unit: unit and amount of the cost of one second of a trial, such as ("gpu_seconds", 1.0).
            notify: called with a sentence when MLflow becomes unreachable or reachable again, and for refused writes.

        Raises: UserError if the study is running already, or MLflow does not accept the parent run in time.
        """
        self._cost_unit = cost_unit
        store = {"tracking_uri": without_password(self.tracking_uri), "experiment": self._experiment}
        self.journal = Journal(folder, store)
        self._index = JournalIndex.from_writes(self.journal.earlier)
        self._sender = Sender(self.client, self.tracking_uri, self.experiment_id, self.journal, notify)
        tags = self._tags | {"kind": "study", "status": "running"}
        if STUDY_RUN not in self._index.num_epochs:
            self._index.num_epochs[STUDY_RUN] = 0
            self._append(Write(STUDY_RUN, study, _now_ms(), params=_as_strings(params), tags=_shorten(tags)))
        elif STUDY_RUN in self._index.ended:
            del self._index.ended[STUDY_RUN]
            self._append(Write(STUDY_RUN, tags=_shorten(tags), end="RUNNING"))
        self._sender.start()
        if not self._sender.flush(START_TIMEOUT_S):
            reason = self._sender.last_error or f"no response within {START_TIMEOUT_S:.0f} s"
            raise store_error(self.tracking_uri, reason)
        self.parent_run_id = self._sender.run_id(STUDY_RUN)

    def extend(self, num_trials: int) -> None:
        """Extend a finished study to a total of `num_trials`; its conclusion and champion will be written again."""
        self._index.reset_conclusion()
        self._append(Write(STUDY_RUN, tags={EXTENDED: f"to {num_trials} trials"}))

    def trial_started(self, trial: TrialRecord) -> None:
        """Create the child run with its hyperparameters, or resume that of an earlier driver."""
        run = str(trial.number)
        if run in self._index.num_epochs:
            if self._index.ended.get(run) == "KILLED":
                del self._index.ended[run]
                self._append(Write(run, tags={"status": "running"}, end="RUNNING"))
            return
        tags = {
            **self._tags,
            "mlflow.parentRunId": self.parent_run_id,
            "kind": "trial",
            "trial": run,
            "status": "running",
            "baseline": str(trial.is_baseline).lower(),
        }
        if trial.finalist:
            tags |= {"finalist": trial.finalist, "finalist_seed": str(trial.seed)}
        self._index.num_epochs[run] = 0
        started_ms = int(trial.started * 1000) or _now_ms()
        self._append(Write(run, trial.title, started_ms, params=_as_strings(trial.params), tags=_shorten(tags)))

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Log the metrics of the latest epoch, unless an earlier driver has. The step is the epoch."""
        row, run = trial.epochs[-1], str(trial.number)
        epoch = int(row["epoch"])
        if self._index.add_epoch(run, epoch):
            self._append(Write(run, metrics=_as_metrics({name: row[name] for name in row if name != "epoch"}, epoch)))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Log best metrics, cost, status and panel, and end the run."""
        run = str(trial.number)
        if run in self._index.ended:
            return
        notes = {"reason": trial.reason, "worker": trial.worker, "no_panel": trial.no_panel}
        tags = {"status": trial.status} | {name: note for name, note in notes.items() if note}
        category = self._tags.get("category", "")
        panel = [str(trial.panel), f"{category}, {trial.title}".strip(", ")] if trial.panel else []
        end = "FAILED" if trial.status == "failed" else "FINISHED"
        ended_ms = int(trial.ended * 1000) or _now_ms()
        self._index.ended[run] = end
        metrics = _as_metrics(_best_metrics(trial) | self._cost_metrics(trial))
        self._append(Write(run, metrics=metrics, tags=_shorten(tags), panel=panel, end=end, end_ms=ended_ms))

    def _cost_metrics(self, trial: TrialRecord) -> dict[str, float]:
        unit, amount = self._cost_unit
        seconds = trial.seconds + trial.repeated_seconds
        cost, lost = seconds * amount, trial.lost_seconds * amount
        return {"total_seconds": seconds, f"cost/{unit}": cost, f"cost/lost_{unit}": lost}

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run, given by its key: STUDY_RUN, or a trial's number."""
        self._append(Write(run, tags=_shorten(tags)))

    def log_metrics(self, run: str, metrics: Mapping[str, float]) -> None:
        """Log final metrics of a run. Metrics that were logged before, also by an earlier driver, are kept."""
        new = self._index.add_final(run, metrics)
        if new:
            self._append(Write(run, metrics=_as_metrics(new)))

    def log_artifacts(self, run: str, files: Iterable[Path], folder: str = "") -> None:
        """Copy files into an artifact folder of a run. The files must exist until they are sent."""
        self._append(Write(run, files=[[str(file), folder] for file in files]))

    def registered_champion(self, model_name: str) -> RegisteredChampion:
        """Return the version with the alias `champion`: the last known one if MLflow is unreachable."""
        with contextlib.suppress(*CONNECTION_ERRORS):
            self._registered[model_name] = get_registered_champion(self.client, model_name)
        return self._registered.get(model_name, RegisteredChampion())

    def champion_tags(self, model_name: str) -> dict[str, str]:
        """Return the tags of the registered champion; empty if there is none."""
        return self.registered_champion(model_name).tags

    def register_champion(
        self,
        run: str,
        detector: Path,
        images: Array,
        category: str,
        tags: Mapping[str, str],
        *,
        version: bool,
        promote: bool,
    ) -> None:
        """Log a detector as the model of a run and register it, unless an earlier driver has.

        Args:
            run: key of the trial that the detector was trained in.
            detector: file of the detector.
            images: (2, H, W, 3) uint8 RGB, the input example.
            category: category; the model is named las-<category>.
            tags: tags of the version.
            version, promote: see registry.register.
        """
        if self._index.has_champion:
            return
        example = self.journal.path.with_name(EXAMPLE_NAME)
        np.save(example, images)
        registered = self._registered.get(model_name(category), RegisteredChampion()).version
        model = {"detector": str(detector), "example": str(example), "category": category, "tags": dict(tags)}
        self._append(Write(run, model=model | {"holder": registered, "version": version, "promote": promote}))

    def end_study(self, status: str) -> None:
        """End the open child runs and then the parent run, unless that was done before.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        if STUDY_RUN in self._index.ended or not self.parent_run_id:
            return
        for run in self._index.num_epochs.keys() - self._index.ended.keys() - {STUDY_RUN}:
            tags = {"status": "failed", "reason": "the study ended first"}
            self._append(Write(run, tags=tags, end="KILLED", end_ms=_now_ms()))
            self._index.ended[run] = "KILLED"
        self._index.ended[STUDY_RUN] = status
        tags = {"status": "completed" if status == "FINISHED" else "failed"}
        self._append(Write(STUDY_RUN, tags=tags, end=status, end_ms=_now_ms()))

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent. Returns False after a timeout."""
        return self._sender.flush(timeout_s)

    def deliver(self, progress: Progress, timeout_s: float) -> UnsentWrites:
        """Wait until everything is sent, see Sender.deliver. Returns the numbers of waiting and refused writes."""
        self._sender.deliver(progress, timeout_s)
        return UnsentWrites(self.num_waiting, self.num_refused)

    @property
    def num_waiting(self) -> int:
        """Number of writes that have not been sent yet."""
        return self.journal.num_waiting

    @property
    def num_refused(self) -> int:
        """Number of writes that MLflow refused. They are kept in a file next to the journal."""
        return self._sender.num_refused

    @property
    def model_uri(self) -> str:
        """URI of the study's champion, once it is registered."""
        return self._sender.model_uri

    def close(self) -> None:
        """Stop sending. Waiting writes stay in the journal."""
        self._sender.close()
        self._sender.join(CLOSE_TIMEOUT_S)
        self.journal.clean_up()
        self.journal.close()

    def _append(self, write: Write) -> None:
        self.journal.append(write)
        self._sender.wake()


def _best_metrics(trial: TrialRecord) -> dict[str, float]:
    best = {f"best/{name}": trial.best[name] for name in METRICS if name in trial.best}
    return best | {"best/epoch": trial.best["epoch"]} if best else {}


def _as_metrics(values: Mapping[str, float], step: int = 0) -> list[list[Any]]:
    now_ms = _now_ms()
    return [[name, float(value), step, now_ms] for name, value in values.items()]


def _as_strings(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}


def _shorten(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:MAX_TAG_LENGTH] for name, value in tags.items()}


def _now_ms() -> int:
    return int(time.time() * 1000)
