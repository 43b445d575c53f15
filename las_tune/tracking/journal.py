"""The journal: what is to be written to MLflow, first to a file, so that nothing waits for a server or dies with it.

One JSON line a write, after one that says which store and experiment they are for. A second file counts the lines that
MLflow has; the others are sent (again) by whoever opens the journal next. A write carries the time at which it
happened, so sending it twice changes nothing. Whoever has a journal open holds its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.config.files import whole_lines
from las_tune.errors import UserError

EXAMPLE_NAME, PANELS_NAME = "input_example.npy", "panels"
"""What waits beside it to be sent: the example of the model, the arrays that images are drawn from."""
STUDY_RUN = "study"
"""Key of the study's own run; a trial's key is its number."""


@dataclass(frozen=True)
class Write:
    """Something about one run.

    run      key of the run: STUDY_RUN, or a trial's number
    name     the run's name, in the write that makes it; with start_ms, since 1970
    metrics  [name, value, step, milliseconds since 1970] each
    files    [file, folder among the artifacts] each
    panel    [file of a trial's Panel, title], to be drawn; one that is gone when its turn comes was sent before
    model    what registry.register takes, in the write that hands a champion over
    end      FINISHED, FAILED or KILLED, in the write that ends the run, with end_ms; RUNNING where it goes on
    """

    run: str
    name: str = ""
    start_ms: int = 0
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[list[Any]] = field(default_factory=list)
    files: list[list[str]] = field(default_factory=list)
    panel: list[str] = field(default_factory=list)
    model: dict[str, Any] = field(default_factory=dict)
    end: str = ""
    end_ms: int = 0


class Journal:
    """The writes of one study, in the order in which they happened."""

    def __init__(self, folder: Path, store: Mapping[str, str] | None = None) -> None:
        """Open the journal of a study's folder, or begin one.

        Args:
            folder: the study's folder.
            store: tracking_uri (without password) and experiment, for a journal that begins.

        Raises: UserError where another process has it open.
        """
        self.path = folder / paths.LEDGER
        self._count_path = folder / f"{paths.LEDGER}.sent"
        self._lock = threading.Lock()
        self._file = self.path.open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise UserError("A study must not be running", f"{folder.name}, which is", "wait for its end") from error
        lines = whole_lines(self.path)
        if not lines:
            lines = [json.dumps({"study_id": uuid.uuid4().hex, **(store or {})})]
            self._file.write(lines[0] + "\n")
            self._file.flush()
        self.header: dict[str, str] = json.loads(lines[0])
        """study_id, which tells this study from another of the same name; tracking_uri; experiment."""
        self.earlier = [_read(line) for line in lines[1:]]
        """What was written before it was opened."""
        self._num_sent = int(self._count_path.read_text() or 0) if self._count_path.is_file() else 0
        self._waiting = deque(self.earlier[self._num_sent :])

    @property
    def study_id(self) -> str:
        """Tells this study from another of the same name."""
        return self.header["study_id"]

    def tidy(self) -> None:
        """Remove what was needed for the sending alone, once everything is sent."""
        if not self.num_waiting:
            self.path.with_name(EXAMPLE_NAME).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is none, or what could not be drawn is left for its user
                self.path.with_name(PANELS_NAME).rmdir()

    def close(self) -> None:
        """Let others open it."""
        self._file.close()

    def append(self, write: Write) -> None:
        """Note a write. It is in the file when this returns."""
        content = {name: value for name, value in vars(write).items() if value}
        with self._lock:
            self._file.write(json.dumps(content) + "\n")
            self._file.flush()
            self._waiting.append(write)

    def waiting(self, most: int) -> list[Write]:
        """The oldest writes that MLflow does not have."""
        with self._lock:
            return list(itertools.islice(self._waiting, most))

    @property
    def num_waiting(self) -> int:
        """Writes that MLflow does not have."""
        with self._lock:
            return len(self._waiting)

    def mark_sent(self, number: int) -> None:
        """MLflow has that many more, or will never take them."""
        with self._lock:
            for _ in range(number):
                self._waiting.popleft()
            self._num_sent += number
            temporary = self._count_path.with_name(self._count_path.name + ".part")
            temporary.write_text(str(self._num_sent))
            temporary.replace(self._count_path)


def is_running(folder: Path) -> bool:
    """Whether a process has the journal of a study's folder open."""
    with (folder / paths.LEDGER).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def merge(writes: Sequence[Write]) -> list[Write]:
    """One write a run for many: fewer requests, and in the end the same."""
    merged: dict[str, Write] = {}
    for write in writes:
        before = merged.get(write.run)
        merged[write.run] = _together(before, write) if before else write
    return list(merged.values())


def _together(first: Write, then: Write) -> Write:
    return Write(
        run=first.run,
        name=first.name or then.name,
        start_ms=first.start_ms or then.start_ms,
        params=first.params | then.params,
        tags=first.tags | then.tags,
        metrics=first.metrics + then.metrics,
        files=first.files + then.files,
        panel=then.panel or first.panel,
        model=then.model or first.model,
        end=then.end or first.end,
        end_ms=then.end_ms or first.end_ms,
    )


def _read(line: str) -> Write:
    content = json.loads(line)
    known = {one.name for one in fields(Write)}
    return Write(**{name: value for name, value in content.items() if name in known})
