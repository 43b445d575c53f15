"""summary.json: what a study found, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from las_tune.tracking.record import TrialRecord


def count_trials(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """Trials by how they ended."""
    by_status = {status: sum(t.status == status for t in trials) for status in ("completed", "pruned", "failed")}
    return {"total": len(trials), **by_status}


def describe_trial(trial: TrialRecord, test: dict[str, float] | None) -> dict[str, Any]:
    """A trial with its hyperparameters, its best epoch on validation pictures, and the sealed test."""
    return {
        "trial": trial.number,
        "finalist": trial.finalist,
        "status": trial.status,
        "params": trial.params,
        "validation": trial.best,
        "test": test,
    }


def describe_cost(trials: Sequence[TrialRecord], gain: float) -> dict[str, float | None]:
    """Seconds in epochs, of all trials and of failed ones, and for each point (0.01 of the objective) gained."""
    spent = sum(trial.seconds for trial in trials)
    return {
        "trial_seconds": round(spent, 1),
        "lost_seconds": round(sum(trial.seconds for trial in trials if trial.status == "failed"), 1),
        "seconds_per_point": round(spent / (100 * gain), 1) if gain > 0 else None,
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
