"""The journal: a file of everything that is to be written to MLflow, so that no study waits for a server.

The first line names the store and the experiment; each further line is one write. A second file counts the writes that
MLflow has received. The rest is sent by the next process that opens the journal. A write carries its own timestamps, so
sending it twice changes nothing. A process holds a lock on the journal as long as it has it open.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import socket
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from las_tune.config import atomic_path, paths, whole_lines
from las_tune.errors import UserError, without_password

EXAMPLE_NAME, PANELS_NAME = "input_example.npy", "panels"
"""Names, in the study's folder, of data that is needed until it is sent: the model's input example, panel arrays."""
STUDY_RUN = "study"
"""Key of the study's own run. The key of a trial's run is the trial's number."""
EXTENDED = "extended"
"""Tag of a study that was extended with more trials."""


@dataclass(frozen=True)
class Write:
    """One change of one run.

    run      key of the run: STUDY_RUN, or a trial's number
    name     name of the run, only in the write that creates it; start_ms, since 1970, goes with it
    metrics  [name, value, step, milliseconds since 1970] each
    files    [file, artifact folder] each
    panel    [file with a trial's panel arrays, title]; the images are drawn when it is sent, then the file is deleted
    model    arguments of registry.register, in the write that registers the champion
    end      FINISHED, FAILED or KILLED, in the write that ends the run at end_ms; RUNNING when the run resumes
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
    """The writes of one study, in the order in which they were appended."""

    def __init__(self, folder: Path, store: Mapping[str, str] | None = None) -> None:
        """Open the journal in a study's folder, or create it.

        Args:
            folder: the study's folder.
            store: tracking_uri (without password) and experiment; needed to create a journal.

        Raises: UserError if another process has it open.
        """
        self.path = folder / paths.LEDGER
        self._count_path = folder / f"{paths.LEDGER}.sent"
        self._lock = threading.Lock()
        self._file = self.path.open("a", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise _running_error(folder) from error
        _owner_path(folder).write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        lines = whole_lines(self.path)
        if not lines:
            lines = [json.dumps({"study_id": uuid.uuid4().hex, **(store or {})})]
            self._file.write(lines[0] + "\n")
            self._file.flush()
        self.header: dict[str, str] = json.loads(lines[0])
        """study_id, which distinguishes studies of the same name; tracking_uri; experiment."""
        self.earlier = [_parse(line) for line in lines[1:]]
        """Writes that were there when the journal was opened."""
        self._num_sent = int(self._count_path.read_text() or 0) if self._count_path.is_file() else 0
        self._waiting = deque(self.earlier[self._num_sent :])

    @property
    def study_id(self) -> str:
        """Unique id of the study."""
        return self.header["study_id"]

    def resolve_store(self, tracking_uri: str) -> str:
        """Return the URI of the study's store: the given one, or, if that is empty, the recorded one.

        Raises: UserError if the study uses a different store.
        """
        recorded = self.header["tracking_uri"]
        given = without_password(tracking_uri or recorded)
        if given != recorded:
            problem = f"--tracking-uri {given} is not the store of study {self.path.parent.name}"
            raise UserError(problem, remedy=f"Use {recorded}, with its password if it has one")
        return tracking_uri or recorded

    def append(self, write: Write) -> None:
        """Append a write. It is in the file when this returns."""
        content = {name: value for name, value in vars(write).items() if value}
        with self._lock:
            self._file.write(json.dumps(content) + "\n")
            self._file.flush()
            self._waiting.append(write)

    def waiting(self, max_writes: int) -> list[Write]:
        """Return the oldest writes that have not been sent yet."""
        with self._lock:
            return list(itertools.islice(self._waiting, max_writes))

    @property
    def num_waiting(self) -> int:
        """Number of writes that have not been sent yet."""
        with self._lock:
            return len(self._waiting)

    def mark_sent(self, num_writes: int) -> None:
        """Mark the oldest waiting writes as done: sent, or refused by MLflow for good."""
        with self._lock:
            for _ in range(num_writes):
                self._waiting.popleft()
            self._num_sent += num_writes
            with atomic_path(self._count_path) as temporary:
                temporary.write_text(str(self._num_sent))

    def clean_up(self) -> None:
        """Delete the files that only sending needs, once everything is sent."""
        if not self.num_waiting:
            self.path.with_name(EXAMPLE_NAME).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there is no folder, or it holds panels that could not be drawn
                self.path.with_name(PANELS_NAME).rmdir()

    def close(self) -> None:
        """Close the file and release the lock."""
        if not self._file.closed:
            _owner_path(self.path.parent).unlink(missing_ok=True)
        self._file.close()


def is_running(folder: Path) -> bool:
    """Return whether a process has the journal in a study's folder open."""
    with (folder / paths.LEDGER).open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def require_idle(folder: Path) -> None:
    """Raise a UserError if a process has the journal in a study's folder open."""
    if (folder / paths.LEDGER).is_file() and is_running(folder):
        raise _running_error(folder)


def _running_error(folder: Path) -> UserError:
    """Name the process that holds the lock. Version 0.1.0 did not record it."""
    try:
        owner = json.loads(_owner_path(folder).read_text())
        driver = f" (driver pid {owner['pid']} on host {owner['host']})"
    except (OSError, ValueError):
        driver = ""
    remedy = "Wait for it to finish, or stop it with Ctrl-C there"
    return UserError(f"Study {folder.name} is already running{driver}", remedy=remedy)


def _owner_path(folder: Path) -> Path:
    """Return the file with the process that holds the lock. Only the lock shows whether it is still alive."""
    return folder / f"{paths.LEDGER}.owner"


def merge(writes: Sequence[Write]) -> list[Write]:
    """Merge the writes of each run into one, which needs fewer requests for the same result."""
    merged: dict[str, Write] = {}
    for write in writes:
        before = merged.get(write.run)
        merged[write.run] = _merge_pair(before, write) if before else write
    return list(merged.values())


def _merge_pair(first: Write, second: Write) -> Write:
    return Write(
        run=first.run,
        name=first.name or second.name,
        start_ms=first.start_ms or second.start_ms,
        params=first.params | second.params,
        tags=first.tags | second.tags,
        metrics=first.metrics + second.metrics,
        files=first.files + second.files,
        panel=second.panel or first.panel,
        model=second.model or first.model,
        end=second.end or first.end,
        end_ms=second.end_ms or first.end_ms,
    )


def _parse(line: str) -> Write:
    content = json.loads(line)
    names = {field.name for field in fields(Write)}
    return Write(**{name: value for name, value in content.items() if name in names})


@dataclass
class JournalIndex:
    """What a journal already contains, so that a resumed study writes nothing twice. Runs are given by their keys.

    num_epochs    number of logged epochs of each run that was created
    ended         status of each run that has ended
    has_champion  whether the journal contains the champion
    """

    num_epochs: dict[str, int] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    has_champion: bool = False
    _final: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def from_writes(cls, writes: Iterable[Write]) -> JournalIndex:
        """Build the index of the writes of earlier drivers."""
        index = cls()
        for write in writes:
            if EXTENDED in write.tags:
                index.reset_conclusion()
            last_epoch = max((step for _, _, step, _ in write.metrics), default=0)
            index.num_epochs[write.run] = max(index.num_epochs.get(write.run, 0), last_epoch)
            index._final |= {(write.run, name) for name, _, step, _ in write.metrics if step == 0}
            index.has_champion |= bool(write.model)
            if write.end:
                index.ended[write.run] = write.end
        index.ended = {run: end for run, end in index.ended.items() if end != "RUNNING"}
        return index

    def reset_conclusion(self) -> None:
        """Forget the final metrics and the champion of a study that is extended: both are determined again."""
        self.has_champion = False
        self._final = {(run, name) for run, name in self._final if run != STUDY_RUN}

    def add_epoch(self, run: str, epoch: int) -> bool:
        """Add an epoch, and return whether it was new."""
        is_new = epoch > self.num_epochs[run]
        self.num_epochs[run] = max(epoch, self.num_epochs[run])
        return is_new

    def add_final(self, run: str, metrics: Mapping[str, float]) -> dict[str, float]:
        """Add final metrics, and return those that were new."""
        new = {name: value for name, value in metrics.items() if (run, name) not in self._final}
        self._final |= {(run, name) for name in new}
        return new
