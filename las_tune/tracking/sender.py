"""The sender: a thread that brings the journal to MLflow, every write exactly once, however often MLflow is away."""

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
from sqlalchemy.exc import SQLAlchemyError

from las_tune.config import paths
from las_tune.errors import one_line, without_password
from las_tune.reporting.panel_process import Painter, PaintingError
from las_tune.tracking.journal import Journal, Write, merge
from las_tune.tracking.registry import register
from las_tune.tracking.runs import RefusedError, Runs

MOST_AT_ONCE = 200
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 15.0
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 1000, 100, 100
"""Of one call of log_batch, by MLflow's rules."""
AWAY = (MlflowException, SQLAlchemyError, OSError)
"""What comes of an MLflow that is not there, or cannot just now."""
REFUSED = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS")
"""Answers of an MLflow that is there and will not take a write, ever."""
MOST_ATTEMPTS = 10
"""For a write that fails in a way that is not known: an artifact store that is away, or a mistake of ours."""


class Sender(threading.Thread):
    """Sends what waits in a journal, with growing pauses; what MLflow refuses for good is set aside in a file."""

    def __init__(
        self,
        client: MlflowClient,
        tracking_uri: str,
        experiment_id: str,
        journal: Journal,
        notify: Callable[[str], None],
    ) -> None:
        """notify: told in a sentence when MLflow goes away, when it is back, and what it refused."""
        super().__init__(name="ledger", daemon=True)
        self._client = client
        self._tracking_uri = tracking_uri
        self._journal = journal
        self._runs = Runs(client, experiment_id, journal.study_id)
        self._notify = notify
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._painter = Painter()
        self._attempts: Counter[str] = Counter()
        self._refused_path = journal.path.with_name(f"{paths.LEDGER}.refused")
        self.num_refused = 0
        self.away: str = ""
        """Why nothing can be sent now; empty where it can."""
        self.model_uri = ""
        """Of the champion, once it is registered."""

    def run_id(self, run: str) -> str:
        """The MLflow run of a key, which must be there."""
        return self._runs.id_of(Write(run))

    def wake(self) -> None:
        """There is something to send."""
        with self._changed:
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> bool:
        """Wait until MLflow has everything. Returns whether it has."""
        ends = time.monotonic() + timeout_s
        with self._changed:
            self._changed.notify_all()
            while self._journal.num_waiting and (left := ends - time.monotonic()) > 0 and self.is_alive():
                self._changed.wait(min(left, 1.0))
        return not self._journal.num_waiting

    def deliver(self, progress: Callable[[str, int, int], None], wait_s: float) -> None:
        """Wait until MLflow has everything, as long as it takes any.

        Args:
            progress: called with (what, done, total).
            wait_s: how long it may take none.
        """
        left = most = self._journal.num_waiting
        ends = time.monotonic() + wait_s
        while not self.flush(1.0) and self.is_alive() and time.monotonic() < ends:
            now = self._journal.num_waiting
            if now < left:
                ends = time.monotonic() + wait_s
            left, most = now, max(most, now)
            progress("writing to MLflow", most - left, most)

    def close(self) -> None:
        """Send nothing more."""
        self._closed.set()
        self.wake()

    def run(self) -> None:
        """Send, wait, send."""
        with contextlib.closing(self._painter):
            self._run()

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._closed.is_set():
            writes = self._journal.waiting(MOST_AT_ONCE)
            if not writes:
                with self._changed:
                    if not self._journal.num_waiting:
                        self._changed.wait(1.0)
                continue
            try:
                self._send_all(writes)
                self._journal.mark_sent(len(writes))
            except Exception as error:  # whatever it is: the writes stay in the journal, and the next try may do
                self._went_away(error)
                self._closed.wait(delay_s)
                delay_s = min(2 * delay_s, LONGEST_DELAY_S)
                continue
            if self.away:
                self._say("MLflow answers again")
            self.away, delay_s = "", FIRST_DELAY_S
            self.wake()

    def _went_away(self, error: BaseException) -> None:
        reason = one_line(error)
        if not self.away:
            self._say(f"MLflow does not answer; its writes wait in {self._journal.path} ({reason})")
        self.away = reason

    def _say(self, sentence: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more, or the disk is full
            self._notify(sentence)

    def _send_all(self, writes: list[Write]) -> None:
        """Many at once; one by one where one of them is refused, so that it alone is set aside."""
        for write in merge(writes):
            try:
                self._send(write)
            except RefusedError:
                for single in (one for one in writes if one.run == write.run):
                    self._send_or_set_aside(single)

    def _send_or_set_aside(self, write: Write) -> None:
        try:
            self._send(write)
        except RefusedError as error:
            self.num_refused += 1
            with self._refused_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"reason": str(error), **asdict(write)}) + "\n")
            self._say(f"MLflow refused a write, which is in {self._refused_path} ({error})")

    def _send(self, write: Write) -> None:
        """Sent twice, it changes nothing more: runs are looked up, all else is set to the same again."""
        try:
            self._apply(write)
        except RefusedError:
            raise
        except Exception as error:
            code = error.error_code if isinstance(error, MlflowException) else ""
            if code in REFUSED:
                raise RefusedError(one_line(error)) from error
            self._attempts[write.run] += code == "BAD_REQUEST" or not isinstance(error, AWAY)
            if self._attempts[write.run] >= MOST_ATTEMPTS:
                raise RefusedError(without_password(traceback.format_exc(limit=-3))) from error
            raise
        self._attempts.pop(write.run, None)

    def _apply(self, write: Write) -> None:
        run_id = self._runs.id_of(write)
        metrics = [Metric(name, value, time_ms, step) for name, value, step, time_ms in write.metrics]
        params = [Param(name, value) for name, value in write.params.items()]
        tags = [RunTag(name, value) for name, value in write.tags.items()]
        while metrics or params or tags:
            self._client.log_batch(run_id, metrics[:MOST_METRICS], params[:MOST_PARAMS], tags[:MOST_TAGS])
            metrics, params, tags = metrics[MOST_METRICS:], params[MOST_PARAMS:], tags[MOST_TAGS:]
        if write.end == "RUNNING":
            self._client.update_run(run_id, "RUNNING")
        elif write.end:
            self._client.set_terminated(run_id, write.end, write.end_ms)
            self._runs.keep_one(write.run)
        self._log_files(run_id, write)

    def _log_files(self, run_id: str, write: Write) -> None:
        """Files, images and model; what is missing of them holds up nothing else."""
        missing = [file for file, _ in write.files if not Path(file).is_file()]
        for file, folder in write.files:
            if file not in missing:
                self._client.log_artifact(run_id, file, folder or None)
        if write.panel and Path(write.panel[0]).is_file():
            self._log_panel(run_id, Path(write.panel[0]), write.panel[1])
        if write.model:
            missing += [write.model[what] for what in ("detector", "example") if not Path(write.model[what]).exists()]
            if not missing:
                self.model_uri = register(self._client, self._tracking_uri, run_id, **write.model)
        if missing:
            raise RefusedError(f"gone: {', '.join(missing)}")

    def _log_panel(self, run_id: str, file: Path, title: str) -> None:
        """Draw and log; the arrays are not needed any more then."""
        folder = file.with_suffix("")
        try:
            self._painter.draw(file, title, folder)
        except PaintingError as error:
            raise RefusedError(str(error)) from error
        self._client.log_artifacts(run_id, str(folder), "panel")
        shutil.rmtree(folder)
        file.unlink()
