"""The history of a study, stored in its folder. A new driver resumes from it after the previous driver died.

trials.jsonl has one line for each start of a trial (repeated starts included), one for its end, one with the training
jobs of the finalists, one when the search ends or fails, and one when trials are added to the study. The epochs of a
running trial are stored with its checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from las_tune.config import Listener, TrialRecord, paths, whole_lines
from las_tune.selection import Retraining

_FIELDS = {field.name for field in fields(TrialRecord)}


class History(Listener):
    """Listener that appends to trials.jsonl, and the content of that file."""

    def __init__(self, folder: Path) -> None:
        """Read the file if it exists.

        Args:
            folder: the study's folder.
        """
        self.path = folder / paths.TRIALS
        self.records: dict[int, TrialRecord] = {}
        """Records by number: first those that have ended, in the order of their ends, then the others."""
        self.folders: dict[int, list[str]] = {}
        """Checkpoint folders of each trial, relative to the checkpoint storage, the latest last."""
        self.jobs: list[Retraining] = []
        self.is_searched = False
        self.discarded: list[int] = []
        """Failed trials of a search that was stopped because most of its first trials failed. They are not counted."""
        for line in whole_lines(self.path) if self.path.exists() else []:
            self._apply(json.loads(line))

    def _apply(self, event: dict[str, Any]) -> None:
        if event["event"] == "searched":
            self.is_searched = True
        elif event["event"] == "failing":
            self.discarded = event["given_up"]
        elif event["event"] == "extended":
            self.is_searched, self.jobs = False, []
        elif event["event"] == "jobs":
            self.jobs = [Retraining(**job) for job in event["jobs"]]
        else:
            record = TrialRecord(**{name: value for name, value in event["trial"].items() if name in _FIELDS})
            record.panel = Path(record.panel) if record.panel else None
            self.records.pop(record.number, None)
            self.records[record.number] = record
            if event["event"] == "started":
                self.folders.setdefault(record.number, []).append(record.folder)

    @property
    def ended(self) -> list[TrialRecord]:
        """Trials and finalists that have ended, in the order of their ends."""
        return [record for record in self.records.values() if record.status != "running"]

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Trials and finalists that have started but not ended, by number, without their epochs."""
        running = [record for record in self.records.values() if record.status == "running"]
        return sorted(running, key=lambda record: record.number)

    def trial_started(self, trial: TrialRecord) -> None:
        """Append a line with the trial's checkpoint folder."""
        self._append({"event": "started", "trial": asdict(trial) | {"epochs": [], "seconds": 0.0}})

    def trial_ended(self, trial: TrialRecord) -> None:
        """Append a line with the whole record."""
        self._append({"event": "ended", "trial": asdict(trial)})

    def store_jobs(self, jobs: Sequence[Retraining]) -> list[Retraining]:
        """Store the finalists' jobs and return them, or return those that an earlier driver stored."""
        if not self.jobs:
            self._append({"event": "jobs", "jobs": [asdict(job) for job in jobs]})
        return self.jobs

    def mark_searched(self) -> None:
        """Record that the search is complete: no more trials are proposed."""
        if not self.is_searched:
            self._append({"event": "searched"})

    def mark_failing(self) -> None:
        """Record that the search stopped because most of its first trials failed, and discard the failed trials."""
        failed = [n for n, record in self.records.items() if record.status == "failed" and not record.finalist]
        self._append({"event": "failing", "given_up": failed})

    def extend(self) -> None:
        """Record that trials are added: search and finalists are open again."""
        self._append({"event": "extended"})

    def _append(self, event: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")
        self._apply(event)
