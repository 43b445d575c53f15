"""What MLflow has of one study, for whoever compares it with what was done, and the mending of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from las_tune.tracking.connection import open_store
from las_tune.tracking.journal import Journal, Write
from las_tune.tracking.runs import KEY_TAG
from las_tune.tracking.store import search_all

EPOCHS_BY = "loss"
"""A number that every epoch of every trial has."""


@dataclass(frozen=True)
class Audit:
    """A study's runs by their keys in the journal, of one key the first that was made first."""

    client: MlflowClient
    runs: dict[str, list[Run]]

    @classmethod
    def of(cls, journal: Journal, tracking_uri: str, artifact_root: Path) -> Audit:
        """Read the store; UserError where it does not answer."""
        client, experiment_id = open_store(tracking_uri, journal.header["experiment"], artifact_root)
        start = f"{journal.study_id}/"
        found = search_all(client, experiment_id, f"tags.{KEY_TAG} LIKE '{start}%'")
        runs: dict[str, list[Run]] = {}
        for run in sorted(found, key=lambda run: (run.info.start_time, run.info.run_id)):
            runs.setdefault(run.data.tags[KEY_TAG].removeprefix(start), []).append(run)
        return cls(client, runs)

    def epochs(self, key: str) -> list[int]:
        """The epochs that the run of a trial has numbers of, as often as it has them."""
        history = self.client.get_metric_history(self.runs[key][0].info.run_id, EPOCHS_BY)
        return sorted(int(metric.step) for metric in history)

    def delete(self, run_ids: Sequence[str]) -> None:
        """Delete runs, as MLflow does: they can be restored."""
        for run_id in run_ids:
            self.client.delete_run(run_id)


def write_again(journal: Journal, key: str) -> None:
    """Have everything of a run sent once more, but what was for the sending alone and is gone."""
    for write in journal.earlier:
        if write.run == key:
            there = [one for one in write.files if Path(one[0]).is_file()]
            journal.append(replace(write, files=there, model={}))


def end_again(journal: Journal, key: str) -> None:
    """Have the end of a run sent once more."""
    ends = [write for write in journal.earlier if write.run == key and write.end not in ("", "RUNNING")]
    if ends:
        journal.append(Write(key, tags=ends[-1].tags, end=ends[-1].end, end_ms=ends[-1].end_ms))
