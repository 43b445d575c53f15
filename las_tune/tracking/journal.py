"""The journal: what is to be written to MLflow, first to a file, so that nothing waits for a server or dies with it.

One JSON line a write. A second file counts the lines that MLflow has; the others are sent (again) by whoever opens
the journal next. A write carries the time at which it happened, so sending it twice changes nothing.
"""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

JOURNAL_NAME = "ledger.jsonl"
STUDY_RUN = "study"
"""Key of the study's own run; a trial's key is its number."""


@dataclass(frozen=True)
class Write:
    """Something about one run.

    run      key of the run: STUDY_RUN, or a trial's number
    name     the run's name, in the write that makes it; with start_ms, since 1970
    metrics  [name, value, step, milliseconds since 1970] each
    files    [file, folder among the artifacts] each; those that are gone when their turn comes were sent before
    panel    file of a trial's Panel, to be drawn
    model    what Registry.register takes, in the write that hands a champion over
    end      FINISHED, FAILED or KILLED, in the write that ends the run, with end_ms; RUNNING where it goes on
    """

    run: str
    name: str = ""
    start_ms: int = 0
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: list[list[Any]] = field(default_factory=list)
    files: list[list[str]] = field(default_factory=list)
    panel: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    end: str = ""
    end_ms: int = 0


class Journal:
    """The writes of one study, in the order in which they happened."""

    def __init__(self, folder: Path) -> None:
        """Open the journal of a study's folder, or begin one."""
        self.path = folder / JOURNAL_NAME
        self._count_path = folder / f"{JOURNAL_NAME}.sent"
        self._lock = threading.Lock()
        lines = self._whole_lines()
        if not lines:
            lines = [json.dumps({"study_id": uuid.uuid4().hex})]
            self.path.write_text(lines[0] + "\n", encoding="utf-8")
        self.study_id: str = json.loads(lines[0])["study_id"]
        """Tells this study from another of the same name."""
        self.earlier = [_read(line) for line in lines[1:]]
        """What was written before it was opened."""
        self._num_sent = int(self._count_path.read_text()) if self._count_path.is_file() else 0
        self._waiting = deque(self.earlier[self._num_sent :])
        self._file = self.path.open("a", encoding="utf-8")

    def _whole_lines(self) -> list[str]:
        """What was written before; half a line at the end is cut off."""
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self.path.write_bytes(whole)
        return whole.decode("utf-8").splitlines()

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


def merge(writes: Sequence[Write]) -> list[Write]:
    """One write a run for many: same effect, fewer requests."""
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
