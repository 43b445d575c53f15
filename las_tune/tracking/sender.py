"""A thread that sends the journal to MLflow, every write exactly once, however often MLflow is unreachable."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from las_tune.config import Progress, paths
from las_tune.errors import type_and_message, without_password
from las_tune.reporting import PanelDrawer, PanelDrawingError
from las_tune.tracking.connection import CONNECTION_ERRORS
from las_tune.tracking.journal import Journal, Write, merge
from las_tune.tracking.registry import register
from las_tune.tracking.runs import RefusedError, Runs

MAX_WRITES = 200
"""Number of writes that are merged and sent together."""
MIN_DELAY_S, MAX_DELAY_S = 0.5, 15.0
"""First and longest pause after a failed attempt; it doubles from one attempt to the next."""
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100
"""MLflow's limits for one call of log_batch."""
REFUSED_CODES = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
"""Error codes of MLflow for a write that it will never accept."""
MAX_ATTEMPTS = 10
"""Attempts for a write that fails with an unknown error: an unreachable artifact store, or a bug."""


class Sender(threading.Thread):
    """Sends the waiting writes of a journal. Writes that MLflow refuses for good are moved to a file."""

    def __init__(
        self,
        client: MlflowClient,
        tracking_uri: str,
        experiment_id: str,
        journal: Journal,
        notify: Callable[[str], None],
    ) -> None:
        """Prepare a sender; `start` starts it.

        Args:
            client: client of the store.
            tracking_uri: URI of the store.
            experiment_id: experiment of the study.
            journal: the study's journal.
            notify: called with a sentence when MLflow becomes unreachable or reachable again, and for refused writes.
        """
        super().__init__(name="ledger", daemon=True)
        self._client = client
        self._tracking_uri = tracking_uri
        self._journal = journal
        self._runs = Runs(client, experiment_id, journal.study_id)
        self._notify = notify
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._panel_drawer = PanelDrawer()
        self._attempts: Counter[str] = Counter()
        self._refused_path = journal.path.with_name(f"{paths.LEDGER}.refused")
        self.num_refused = 0
        self.last_error = ""
        """Why nothing can be sent at the moment; empty while sending works."""
        self.model_uri = ""
        """URI of the champion, once it is registered."""

    def run_id(self, run: str) -> str:
        """Return the MLflow run id of a key, whose run must exist."""
        return self._runs.find_or_create(Write(run))

    def wake(self) -> None:
        """Wake the thread, because there is something to send."""
        with self._changed:
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is sent. Returns False after a timeout."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            self._changed.notify_all()
            while self._journal.num_waiting and (left_s := deadline - time.monotonic()) > 0 and self.is_alive():
                self._changed.wait(min(left_s, 1.0))
        return not self._journal.num_waiting

    def deliver(self, progress: Progress, timeout_s: float) -> None:
        """Wait until everything is sent, as long as MLflow accepts writes.

        Args:
            progress: called with (what, done, total).
            timeout_s: time without an accepted write after which waiting ends.
        """
        waiting = total = self._journal.num_waiting
        deadline = time.monotonic() + timeout_s
        while not self.flush(1.0) and self.is_alive() and time.monotonic() < deadline:
            still_waiting = self._journal.num_waiting
            if still_waiting < waiting:
                deadline = time.monotonic() + timeout_s
            waiting, total = still_waiting, max(total, still_waiting)
            progress("writing to MLflow", total - waiting, total)

    def close(self) -> None:
        """Stop sending."""
        self._closed.set()
        self.wake()

    def run(self) -> None:
        """Send until the sender is closed."""
        with contextlib.closing(self._panel_drawer):
            self._send_until_closed()

    def _send_until_closed(self) -> None:
        delay_s = MIN_DELAY_S
        while not self._closed.is_set():
            writes = self._journal.waiting(MAX_WRITES)
            if not writes:
                with self._changed:
                    if not self._journal.num_waiting:
                        self._changed.wait(1.0)
                continue
            try:
                self._send_all(writes)
                self._journal.mark_sent(len(writes))
            except Exception as error:  # of any type: the writes stay in the journal, and the next attempt may succeed
                self._report_error(error)
                self._closed.wait(delay_s)
                delay_s = min(2 * delay_s, MAX_DELAY_S)
                continue
            if self.last_error:
                self._report("MLflow is reachable again")
            self.last_error, delay_s = "", MIN_DELAY_S
            self.wake()

    def _report_error(self, error: BaseException) -> None:
        reason = type_and_message(error)
        if not self.last_error:
            self._report(f"MLflow is unreachable; writes are kept in {self._journal.path} ({reason})")
        self.last_error = reason

    def _report(self, sentence: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal is closed, or the disk is full
            self._notify(sentence)

    def _send_all(self, writes: list[Write]) -> None:
        """Send the writes of each run merged, or one by one if MLflow refuses them, to set aside only the bad ones."""
        for merged in merge(writes):
            try:
                self._send(merged)
            except RefusedError:
                for write in writes:
                    if write.run == merged.run:
                        self._send_or_set_aside(write)

    def _send_or_set_aside(self, write: Write) -> None:
        try:
            self._send(write)
        except RefusedError as error:
            self.num_refused += 1
            with self._refused_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"reason": str(error), **asdict(write)}) + "\n")
            self._report(f"MLflow refused a write; it is kept in {self._refused_path} ({error})")

    def _send(self, write: Write) -> None:
        """Send a write. Sending it twice changes nothing: runs are looked up first, all else is set to the same value.

        Raises: RefusedError if MLflow will never accept it; other errors if another attempt may succeed.
        """
        try:
            self._apply(write)
        except RefusedError:
            raise
        except Exception as error:
            code = error.error_code if isinstance(error, MlflowException) else ""
            if code in REFUSED_CODES:
                raise RefusedError(type_and_message(error)) from error
            self._attempts[write.run] += code == "BAD_REQUEST" or not isinstance(error, CONNECTION_ERRORS)
            if self._attempts[write.run] >= MAX_ATTEMPTS:
                raise RefusedError(without_password(traceback.format_exc(limit=-3))) from error
            raise
        self._attempts.pop(write.run, None)

    def _apply(self, write: Write) -> None:
        run_id = self._runs.find_or_create(write)
        metrics = [Metric(name, value, time_ms, step) for name, value, step, time_ms in write.metrics]
        params = [Param(name, value) for name, value in write.params.items()]
        tags = [RunTag(name, value) for name, value in write.tags.items()]
        while metrics or params or tags:
            self._client.log_batch(run_id, metrics[:MAX_METRICS], params[:MAX_PARAMS], tags[:MAX_TAGS])
            metrics, params, tags = metrics[MAX_METRICS:], params[MAX_PARAMS:], tags[MAX_TAGS:]
        if write.end == "RUNNING":
            self._client.update_run(run_id, "RUNNING")
        elif write.end:
            self._client.set_terminated(run_id, write.end, write.end_ms)
            self._runs.delete_duplicates(write.run)
        self._log_files(run_id, write)

    def _log_files(self, run_id: str, write: Write) -> None:
        """Log files, panel and model. Missing files are reported last, so that the rest is logged anyway."""
        missing = [file for file, _ in write.files if not Path(file).is_file()]
        for file, folder in write.files:
            if file not in missing:
                self._client.log_artifact(run_id, file, folder or None)
        if write.panel and Path(write.panel[0]).is_file():  # else it was drawn and sent before
            self._log_panel(run_id, Path(write.panel[0]), write.panel[1])
        if write.model:
            missing += [write.model[name] for name in ("detector", "example") if not Path(write.model[name]).exists()]
            if not missing:
                arguments = dict(write.model)
                registered = arguments.pop("holder")  # the key that journals use for it
                self.model_uri = register(
                    self._client, self._tracking_uri, run_id, registered_version=registered, **arguments
                )
        if missing:
            raise RefusedError(f"missing files: {', '.join(missing)}")

    def _log_panel(self, run_id: str, file: Path, title: str) -> None:
        """Draw and log the images of a panel, then delete its arrays."""
        folder = file.with_suffix("")
        try:
            self._panel_drawer.draw(file, title, folder)
        except PanelDrawingError as error:
            raise RefusedError(str(error)) from error
        self._client.log_artifacts(run_id, str(folder), "panel")
        shutil.rmtree(folder)
        file.unlink()
