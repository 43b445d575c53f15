"""Which trial is the champion."""

from __future__ import annotations

from collections.abc import Iterable

from las_tune.errors import UserError
from las_tune.tracking.record import TrialRecord


def select_champion(trials: Iterable[TrialRecord]) -> TrialRecord:
    """The trial of the greatest objective on validation pictures; the earlier one of equals.

    Pruned trials count with what they reached. Raises UserError when no trial finished an epoch.
    """
    candidates = [trial for trial in trials if trial.status != "failed" and trial.epochs]
    if not candidates:
        reasons = sorted({trial.reason for trial in trials if trial.reason})
        raise UserError("A study needs a trial that did not fail", "; ".join(reasons) or "none ran", "see the log")
    return max(candidates, key=lambda trial: (trial.best["objective"], -trial.number))
