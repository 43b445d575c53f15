"""The ledger: what MLflow holds of a study. The driver alone writes it: one parent run, one child a trial.

Nothing here waits for MLflow once a study runs: events become lines of the journal, and the sender brings them there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from las_tune.config.study_spec import model_name
from las_tune.config.trial_record import METRICS, TrialRecord
from las_tune.errors import without_password
from las_tune.reporting.panel import Array
from las_tune.tracking.connection import bad_store, open_store
from las_tune.tracking.journal import EXAMPLE_NAME, STUDY_RUN, Journal, Write
from las_tune.tracking.journal_index import EXTENDED, Written
from las_tune.tracking.registry import Holder, champion_of
from las_tune.tracking.sender import AWAY, Sender

CLOSING_S = 5.0
START_TIMEOUT_S = 60.0
MOST_OF_A_TAG = 8000
"""Characters of a tag's value, by MLflow's rules."""


class Ledger:
    """Writes a study to MLflow: a Listener with a run for the study and one for each trial."""

    def __init__(self, tracking_uri: str, experiment: str, artifact_root: Path, tags: Mapping[str, str]) -> None:
        """Opens the store, creating database and experiment where they are missing.

        Args:
            tracking_uri: MLflow store, absolute.
            experiment: name of the MLflow experiment.
            artifact_root: where a new experiment keeps its artifacts, unless a server keeps them.
            tags: tags that every run of the study carries.
        """
        self.tracking_uri = tracking_uri
        self._experiment = experiment
        self._tags = dict(tags)
        self._cost_unit = ("cpu_seconds", 1.0)
        self._written = Written()
        self._holders: dict[str, Holder] = {}
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
        """Make the parent run, or go on with the one that the journal in the study's folder is of.

        Args:
            folder: the study's folder.
            study: its name.
            params: what the search was asked for.
            cost_unit: name and number of what a second of a trial costs, as gpu_seconds and 1.
            notify: told, in a sentence, what becomes of the writes.
        """
        self._cost_unit = cost_unit
        store = {"tracking_uri": without_password(self.tracking_uri), "experiment": self._experiment}
        self.journal = Journal(folder, store)
        self._written = Written.of(self.journal.earlier)
        self._sender = Sender(self.client, self.tracking_uri, self.experiment_id, self.journal, notify)
        tags = self._tags | {"kind": "study", "status": "running"}
        if STUDY_RUN not in self._written.num_epochs:
            self._written.num_epochs[STUDY_RUN] = 0
            self._append(Write(STUDY_RUN, study, _now_ms(), params=_strings(params), tags=_cut(tags)))
        elif STUDY_RUN in self._written.ended:
            del self._written.ended[STUDY_RUN]
            self._append(Write(STUDY_RUN, tags=_cut(tags), end="RUNNING"))
        self._sender.start()
        if not self._sender.flush(START_TIMEOUT_S):
            raise bad_store(self.tracking_uri, self._sender.away or f"no answer within {START_TIMEOUT_S:.0f} s")
        self.parent_run_id = self._sender.run_id(STUDY_RUN)

    def extend(self, num_trials: int) -> None:
        """A finished study gets more trials, that many in all: what it found is found and handed over again."""
        self._written.conclude_again()
        self._append(Write(STUDY_RUN, tags={EXTENDED: f"to {num_trials} trials"}))

    def trial_started(self, trial: TrialRecord) -> None:
        """Make the child run, with its hyperparameters."""
        run = str(trial.number)
        if run in self._written.num_epochs:  # it goes on where an earlier driver left it
            if self._written.ended.get(run) == "KILLED":
                del self._written.ended[run]
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
        self._written.num_epochs[run] = 0
        started_ms = int(trial.started * 1000) or _now_ms()
        self._append(Write(run, trial.title, started_ms, params=_strings(trial.params), tags=_cut(tags)))

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Log an epoch's numbers, the epoch as step; one that was logged before is passed over."""
        row, run = trial.epochs[-1], str(trial.number)
        epoch = int(row["epoch"])
        if self._written.is_new_epoch(run, epoch):
            self._append(Write(run, metrics=_metrics({name: row[name] for name in row if name != "epoch"}, epoch)))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Log the best numbers under their own names, tag the status, draw the panel, end the run."""
        run = str(trial.number)
        if run in self._written.ended:
            return
        best = {f"best/{name}": trial.best[name] for name in METRICS if name in trial.best}
        if best:
            best["best/epoch"] = trial.best["epoch"]
        unit, each = self._cost_unit
        spent = trial.seconds + trial.repeated_seconds
        cost = {"total_seconds": spent, f"cost/{unit}": spent * each, f"cost/lost_{unit}": trial.lost_seconds * each}
        notes = {"reason": trial.reason, "worker": trial.worker, "no_pictures": trial.no_panel}
        tags = {"status": trial.status} | {name: note for name, note in notes.items() if note}
        category = self._tags.get("category", "")
        panel = [str(trial.panel), f"{category}, {trial.title}".strip(", ")] if trial.panel else []
        end = "FAILED" if trial.status == "failed" else "FINISHED"
        ended_ms = int(trial.ended * 1000) or _now_ms()
        self._written.ended[run] = end
        metrics = _metrics(best | cost)
        self._append(Write(run, metrics=metrics, tags=_cut(tags), panel=panel, end=end, end_ms=ended_ms))

    def tag(self, run: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run: STUDY_RUN, or a trial's number."""
        self._append(Write(run, tags=_cut(tags)))

    def log_metrics(self, run: str, metrics: Mapping[str, float]) -> None:
        """Log final numbers, each once: those that are logged already, by an earlier driver too, stay as they are."""
        new = self._written.new_final(run, metrics)
        if new:
            self._append(Write(run, metrics=_metrics(new)))

    def log_artifacts(self, run: str, files: Iterable[Path], folder: str = "") -> None:
        """Copy files into the run; they must stay until they are sent."""
        self._append(Write(run, files=[[str(file), folder] for file in files]))

    def holder(self, model_name: str) -> Holder:
        """Who has the alias champion; what was known at the start, where MLflow does not answer."""
        with contextlib.suppress(*AWAY):
            self._holders[model_name] = champion_of(self.client, model_name)
        return self._holders.get(model_name, Holder())

    def champion_tags(self, model_name: str) -> dict[str, str]:
        """Tags of the version that has the alias; empty where there is none."""
        return self.holder(model_name).tags

    def hand_over(
        self, run: str, detector: Path, images: Array, category: str, tags: Mapping[str, str], **how: Any
    ) -> None:
        """Log a detector as the model of a run, and register it, unless an earlier driver has.

        Args:
            run: the trial that the detector was trained in.
            detector: its file.
            images: (2, H, W, 3) uint8 RGB, the input example.
            category: the model's name is las-<category>.
            tags: of the version.
            how: version, promote: see registry.register.
        """
        if self._written.has_handed_over:
            return
        example = self.journal.path.with_name(EXAMPLE_NAME)
        np.save(example, images)
        holder = self._holders.get(model_name(category), Holder()).version
        model = {"detector": str(detector), "example": str(example), "category": category, "tags": dict(tags)}
        self._append(Write(run, model=model | {"holder": holder} | how))

    def end_study(self, status: str) -> None:
        """End the parent run and every child that is still open: FINISHED, FAILED or KILLED. Only once."""
        if STUDY_RUN in self._written.ended or not self.parent_run_id:
            return
        for run in self._written.num_epochs.keys() - self._written.ended.keys() - {STUDY_RUN}:
            tags = {"status": "failed", "reason": "the study ended first"}
            self._append(Write(run, tags=tags, end="KILLED", end_ms=_now_ms()))
            self._written.ended[run] = "KILLED"
        self._written.ended[STUDY_RUN] = status
        tags = {"status": "completed" if status == "FINISHED" else "failed"}
        self._append(Write(STUDY_RUN, tags=tags, end=status, end_ms=_now_ms()))

    def flush(self, timeout_s: float) -> bool:
        """Wait until MLflow has everything; whether it has."""
        return self._sender.flush(timeout_s)

    def deliver(self, progress: Callable[[str, int, int], None], wait_s: float) -> dict[str, int]:
        """See Sender.deliver; writes that MLflow does not have, and that it refused."""
        self._sender.deliver(progress, wait_s)
        return {"waiting": self.num_waiting, "refused": self.num_refused}

    @property
    def num_waiting(self) -> int:
        """Writes that MLflow does not have yet."""
        return self.journal.num_waiting

    @property
    def num_refused(self) -> int:
        """Writes that MLflow will never take; they are in a file beside the journal."""
        return self._sender.num_refused

    @property
    def model_uri(self) -> str:
        """Of the model that was handed over, once MLflow has it."""
        return self._sender.model_uri

    def close(self) -> None:
        """Send nothing more; what waits stays in the journal, and so do the files that only it needs."""
        self._sender.close()
        self._sender.join(CLOSING_S)
        self.journal.tidy()
        self.journal.close()

    def _append(self, write: Write) -> None:
        self.journal.append(write)
        self._sender.wake()


def _metrics(numbers: Mapping[str, float], step: int = 0) -> list[list[Any]]:
    now = _now_ms()
    return [[name, float(value), step, now] for name, value in numbers.items()]


def _strings(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}


def _cut(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: value[:MOST_OF_A_TAG] for name, value in tags.items()}


def _now_ms() -> int:
    return int(time.time() * 1000)
