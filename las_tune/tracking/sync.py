"""Compare MLflow's runs of a study with its journal, and send the writes that are missing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from las_tune.config import Progress, paths
from las_tune.errors import require
from las_tune.tracking.connection import open_store
from las_tune.tracking.journal import STUDY_RUN, Journal, Write
from las_tune.tracking.runs import KEY_TAG
from las_tune.tracking.sender import Sender
from las_tune.tracking.store import search_all

EPOCH_METRIC = "loss"
"""A metric that every epoch of every trial logs."""
TIMEOUT_S = 600.0
"""Time without a single accepted write after which sync gives up."""


@dataclass(frozen=True)
class SyncResult:
    """Numbers of writes that were sent, are waiting and were refused; URI of the champion if it was among them."""

    sent: int
    waiting: int
    refused: int
    model_uri: str


def sync_study(folder: Path, tracking_uri: str, progress: Progress) -> SyncResult:
    """Send the waiting writes of a study, and end the runs that a killed driver left open.

    Args:
        folder: the study's folder.
        tracking_uri: the study's store; empty: the one that the journal records.
        progress: called with (what, done, total).

    Raises: UserError if there is no journal, the study is running, or the store is a different one or cannot be opened.
    """
    has_journal = (folder / paths.LEDGER).is_file()
    require(has_journal, f"{folder} has no {paths.LEDGER}", remedy="Check the name of the study and --results")
    with closing(Journal(folder)) as journal:
        uri = journal.resolve_store(tracking_uri)
        client, experiment_id = open_store(uri, journal.header["experiment"], folder.parent / "mlartifacts")
        for write in _end_open_runs(journal):
            journal.append(write)
        num_waiting = journal.num_waiting
        sender = Sender(client, uri, experiment_id, journal, lambda sentence: progress(sentence, 1, 1))
        sender.start()
        sender.deliver(progress, TIMEOUT_S)
        sender.close()
        sender.join()
        journal.clean_up()
        sent = num_waiting - journal.num_waiting
        return SyncResult(sent, journal.num_waiting, sender.num_refused, sender.model_uri)


def _end_open_runs(journal: Journal) -> list[Write]:
    """Return writes that end the open runs, the study's own last. No driver is alive: this process holds the lock."""
    ends = {write.run: "" for write in journal.earlier}
    for write in journal.earlier:
        ends[write.run] = write.end or ends[write.run]
    now_ms, tags = int(time.time() * 1000), {"status": "failed", "reason": "the study was killed"}
    open_runs = [run for run, end in ends.items() if end in ("", "RUNNING")]
    in_order = sorted(open_runs, key=lambda run: run == STUDY_RUN)
    return [Write(run, tags=tags, end="KILLED", end_ms=now_ms) for run in in_order]


@dataclass(frozen=True)
class Audit:
    """The MLflow runs of a study by their journal keys; duplicates of a key in the order of their creation."""

    client: MlflowClient
    runs: dict[str, list[Run]]

    @classmethod
    def load(cls, journal: Journal, tracking_uri: str, artifact_root: Path) -> Audit:
        """Read the runs from the store.

        Raises: UserError if the store cannot be opened.
        """
        client, experiment_id = open_store(tracking_uri, journal.header["experiment"], artifact_root)
        prefix = f"{journal.study_id}/"
        found = search_all(client, experiment_id, f"tags.{KEY_TAG} LIKE '{prefix}%'")
        runs: dict[str, list[Run]] = {}
        for run in sorted(found, key=lambda run: (run.info.start_time, run.info.run_id)):
            runs.setdefault(run.data.tags[KEY_TAG].removeprefix(prefix), []).append(run)
        return cls(client, runs)

    def epochs(self, key: str) -> list[int]:
        """Return the sorted epochs of a run; an epoch that was logged twice occurs twice."""
        history = self.client.get_metric_history(self.runs[key][0].info.run_id, EPOCH_METRIC)
        return sorted(int(metric.step) for metric in history)

    def delete(self, run_ids: Sequence[str]) -> None:
        """Delete runs. MLflow can restore them."""
        for run_id in run_ids:
            self.client.delete_run(run_id)


def resend_run(journal: Journal, key: str) -> None:
    """Append all writes of a run again, apart from files that were deleted after they had been sent."""
    for write in journal.earlier:
        if write.run == key:
            files = [[file, folder] for file, folder in write.files if Path(file).is_file()]
            journal.append(replace(write, files=files, model={}))


def resend_end(journal: Journal, key: str) -> None:
    """Append the write that ended a run again."""
    ends = [write for write in journal.earlier if write.run == key and write.end not in ("", "RUNNING")]
    if ends:
        journal.append(Write(key, tags=ends[-1].tags, end=ends[-1].end, end_ms=ends[-1].end_ms))
