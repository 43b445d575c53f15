"""summary.json: what a study found, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from las_tune.config.trial_record import TrialRecord

WARNINGS = {
    "demo": "DEMO: rendered images and a short search. These are demo results.",
    "test_selected": "TEST-SELECTED (--protocol paper): epochs and trials were chosen by the very test images that "
    "these numbers are of, as in published tables. They flatter; compare them with such tables only.",
    "test_watched": "--leakage-gap: the sealed test was scored in every epoch of every trial, and never chosen by.",
}
"""What a reader must know first: by key of the summary; the tag of a run has a hyphen where that has a line."""


def warnings(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know before the numbers."""
    lines = [text for key, text in WARNINGS.items() if summary[key]]
    if summary["painted"]:
        parts = " and ".join(part.replace("_", " ") for part in summary["painted"])
        lines.append(f"SYNTHETIC: {parts}: good images and defects painted on them.")
    return lines


def remarks(summary: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside them: why this champion, who is tied with it, and whether learning paid."""
    promotion, reference = summary["promotion"], summary["reference"]
    lines = [f"promotion: {promotion['reason']}"]
    if promotion["tied"]:
        lines.append(f"tied with {promotion['best']} within the noise: {', '.join(promotion['tied'])}")
    if reference["memory_bank_wins"]:
        lines.append(
            f"the memory bank, which learns nothing, does better on the {summary['test_name']}: "
            f"{summary['objective']} {reference['memory_bank']:.4f} against {reference['champion']:.4f}"
        )
    return lines


def count_trials(trials: Sequence[TrialRecord]) -> dict[str, int]:
    """Trials by how they ended."""
    by_status = {status: sum(t.status == status for t in trials) for status in ("completed", "pruned", "failed")}
    return {"total": len(trials), **by_status}


def describe_trial(trial: TrialRecord, test: dict[str, float] | None) -> dict[str, Any]:
    """A trial with its hyperparameters, its best epoch on validation images, and the sealed test."""
    return {
        "trial": trial.number,
        "finalist": trial.finalist,
        "seed": trial.seed,
        "status": trial.status,
        "params": trial.params,
        "validation": trial.best,
        "test": test,
    }


def describe_cost(trials: Sequence[TrialRecord], gain: float, unit: str, each: float) -> dict[str, float | None]:
    """What a study's trainings cost: seconds in epochs, device seconds, what was lost, and the price of a point.

    Args:
        trials: all of them, finalists included.
        gain: of the objective on validation images, 0 where the baseline stays; a point is 0.01 of it.
        unit: gpu_seconds or cpu_seconds.
        each: devices of one trial.
    """
    spent = sum(trial.seconds + trial.repeated_seconds for trial in trials)
    lost = sum(trial.lost_seconds for trial in trials)
    return {
        "trial_seconds": round(spent, 1),
        unit: round(spent * each, 1),
        "lost_seconds": round(lost, 1),
        f"lost_{unit}": round(lost * each, 1),
        f"{unit}_per_point": round(spent * each / (100 * gain), 1) if gain > 0 else None,
    }
