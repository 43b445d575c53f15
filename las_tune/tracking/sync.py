"""Bring to MLflow what a study could not: its journal waits in the study's folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.errors import UserError, without_password
from las_tune.tracking.connection import open_store
from las_tune.tracking.journal import STUDY_RUN, Journal, Write
from las_tune.tracking.sender import Sender

TIMEOUT_S = 600.0
"""How long MLflow may take nothing."""


def sync_study(folder: Path, tracking_uri: str, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Send what waits: {"sent", "waiting", "refused", "model_uri"}. Runs that a killed study left open are ended.

    Args:
        folder: the study's folder.
        tracking_uri: the store that the study writes to; empty: as the journal says.
        progress: called with (what, done, total).

    Raises: UserError where there is no journal, the study runs, or the store is another, or does not answer.
    """
    if not (folder / paths.LEDGER).is_file():
        raise UserError(
            "A study must be in --results to be sent", f"{folder} without {paths.LEDGER}", "check both names"
        )
    journal = Journal(folder)
    uri = tracking_uri or journal.header["tracking_uri"]
    if without_password(uri) != journal.header["tracking_uri"]:
        rule, store = "--tracking-uri must be the store that the study writes to", journal.header["tracking_uri"]
        raise UserError(rule, without_password(uri), f"give {store}")
    client, experiment_id = open_store(uri, journal.header["experiment"], folder.parent / "mlartifacts")
    for write in _ends(journal):
        journal.append(write)
    most = journal.num_waiting
    sender = Sender(client, uri, experiment_id, journal, lambda sentence: progress(sentence, 1, 1))
    sender.start()
    sender.deliver(progress, TIMEOUT_S)
    sender.close()
    sender.join()
    journal.tidy()
    journal.close()
    left = journal.num_waiting
    return {"sent": most - left, "waiting": left, "refused": sender.num_refused, "model_uri": sender.model_uri}


def _ends(journal: Journal) -> list[Write]:
    """For every run that is still open; whoever opened it has gone, for the journal is ours."""
    state = {write.run: "" for write in journal.earlier}
    for write in journal.earlier:
        state[write.run] = write.end or state[write.run]
    now_ms, tags = int(time.time() * 1000), {"status": "failed", "reason": "the study was killed"}
    is_open = [run for run, end in state.items() if end in ("", "RUNNING")]
    in_order = sorted(is_open, key=lambda run: run == STUDY_RUN)
    return [Write(run, tags=tags, end="KILLED", end_ms=now_ms) for run in in_order]
