"""What a study has done so far, in its folder, so that a driver that died is followed by one that goes on.

trials.jsonl has one line when a trial starts (or starts again), one when it ends, one that lists the finalists' jobs,
one when the search is over or fails, and one where trials are added to it. The epochs of a trial that still runs are
kept beside its checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.config.files import whole_lines
from las_tune.config.trial_record import TrialRecord
from las_tune.selection.finalists import Job

_FIELDS = {field.name for field in fields(TrialRecord)}


class History:
    """A Listener that writes the file, and what was in it."""

    def __init__(self, folder: Path) -> None:
        """folder: the study's; the file is read where it is there."""
        self.path = folder / paths.TRIALS
        self.records: dict[int, TrialRecord] = {}
        """By number, in the order in which they ended, then those that did not."""
        self.folders: dict[int, list[str]] = {}
        """Where the checkpoints of a trial lie, relative to the storage, the latest last."""
        self.jobs: list[Job] = []
        self.is_searched = False
        self.given_up: list[int] = []
        """Trials that failed when most did, and the search stopped: they do not count."""
        for line in whole_lines(self.path) if self.path.exists() else []:
            self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        if event["event"] == "searched":
            self.is_searched = True
        elif event["event"] == "failing":
            self.given_up = event["given_up"]
        elif event["event"] == "extended":
            self.is_searched, self.jobs = False, []
        elif event["event"] == "jobs":
            self.jobs = [Job(**job) for job in event["jobs"]]
        else:
            record = TrialRecord(**{name: value for name, value in event["trial"].items() if name in _FIELDS})
            record.panel = Path(record.panel) if record.panel else None
            self.records.pop(record.number, None)
            self.records[record.number] = record
            if event["event"] == "started":
                self.folders.setdefault(record.number, []).append(record.folder)

    @property
    def ended(self) -> list[TrialRecord]:
        """Trials and finalists that have ended, in this order."""
        return [record for record in self.records.values() if record.status != "running"]

    @property
    def unfinished(self) -> list[TrialRecord]:
        """Those that had started, by number, without their epochs."""
        running = [record for record in self.records.values() if record.status == "running"]
        return sorted(running, key=lambda record: record.number)

    def trial_started(self, trial: TrialRecord) -> None:
        """A line: where its checkpoints will lie."""
        self._append({"event": "started", "trial": asdict(trial) | {"epochs": [], "seconds": 0.0}})

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Nothing: it is beside the checkpoint."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """A line with all that is known of it."""
        self._append({"event": "ended", "trial": asdict(trial)})

    def keep_jobs(self, jobs: Sequence[Job]) -> list[Job]:
        """The jobs of the finalists: those chosen now, or those that an earlier driver has chosen."""
        if not self.jobs:
            self._append({"event": "jobs", "jobs": [asdict(job) for job in jobs]})
        return self.jobs

    def search_is_over(self) -> None:
        """No more trials are proposed."""
        if not self.is_searched:
            self._append({"event": "searched"})

    def search_is_failing(self) -> None:
        """The search stopped because most of its first trials failed."""
        failed = [n for n, record in self.records.items() if record.status == "failed" and not record.finalist]
        self._append({"event": "failing", "given_up": failed})

    def extend(self) -> None:
        """The study gets more trials: its search and its finalists are to be concluded again."""
        self._append({"event": "extended"})

    def _append(self, event: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, default=str) + "\n")
        self._take(event)
