"""Bring to MLflow what a study could not: its journal waits in the study's folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from las_tune.errors import UserError
from las_tune.tracking.connect import open_store
from las_tune.tracking.journal import JOURNAL_NAME, Journal
from las_tune.tracking.sender import Sender

TIMEOUT_S = 600.0


def sync_study(
    folder: Path, tracking_uri: str, experiment: str, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Send what waits: {"sent", "waiting", "refused", "model_uri"}.

    Args:
        folder: the study's folder.
        tracking_uri: the store that the study was told to write to.
        experiment: and the experiment.
        progress: called with (what, done, total).

    Raises: UserError where there is no journal, or the store does not answer.
    """
    if not (folder / JOURNAL_NAME).is_file():
        raise UserError(
            "A study must be in --results to be sent", f"{folder} without {JOURNAL_NAME}", "check both names"
        )
    client, experiment_id = open_store(tracking_uri, experiment, folder.parent / "mlartifacts")
    journal = Journal(folder)
    most = journal.num_waiting
    sender = Sender(client, tracking_uri, experiment_id, journal, lambda sentence: progress(sentence, 1, 1))
    sender.start()
    ends = time.monotonic() + TIMEOUT_S
    while not sender.flush(1.0) and time.monotonic() < ends:
        progress("writing to MLflow", most - journal.num_waiting, most)
    sender.close()
    waiting = journal.num_waiting
    return {"sent": most - waiting, "waiting": waiting, "refused": sender.num_refused, "model_uri": sender.model_uri}
