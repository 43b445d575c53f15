"""The end of --demo: what was found, where to look, what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.config.formatting import format_interval
from las_tune.terminal.tables import print_lines

TESTED = paths.DEMO_DATA_ROOT / paths.DEMO_CATEGORY / "test"


def print_story(summary: dict[str, Any], folder: Path) -> None:
    """Three short paragraphs for someone who sees this for the first time."""
    where = shlex.join(["--study", summary["study"], "--results", str(folder.parent)])
    model = shlex.quote(str(folder / paths.model_file(summary["category"])))
    print_lines(
        [
            "",
            "What was found",
            *(f"  {line}" for line in (*_search(summary), *_again(summary), *_sealed(summary))),
            "",
            "Where to look",
            f"  every trial, to hover over: {folder / 'figures' / 'study.html'}",
            "  trials side by side, painted defects, anomaly maps:",
            f"    python -m las_tune ui {where}",
            "  the detector at work:",
            f"    python -m las_tune predict --model {model} --out marked {TESTED}",
            "",
            "What to do next",
            "  your own parts, from loose images; textures to paint defects with; what a study of them will take:",
            "    python -m las_tune data init parts/bolt --good 'IMAGES/*.png'",
            "    python -m las_tune data fetch dtd",
            "    python -m las_tune --category bolt --data-root parts --validation synthetic --dry-run",
        ]
    )


def _search(summary: dict[str, Any]) -> list[str]:
    trials, best, splits = summary["trials"], summary["best_trial"], summary["splits"]
    return [
        f"{trials['total']} sets of hyperparameters were tried on {splits['fit']} good brackets with painted defects; "
        f"trial 0, the baseline, was the usual set. {trials['pruned']} were stopped early, being behind.",
        f"The best was trial {best['trial']}: {summary['objective']} {best['validation']['objective']:.3f} on "
        f"{splits['validation']} validation images. One training proves little: another seed gives another number.",
    ]


def _again(summary: dict[str, Any]) -> list[str]:
    promotion, baseline = summary["promotion"], summary["validation_mean"]["baseline"]
    if promotion["best"] == "baseline":
        return ["No other was better than the baseline when both were trained again with new seeds: it stays."]
    mean = baseline + promotion["gain"]["mean"]
    return [
        f"So {promotion['best']} and the baseline were trained again with new seeds: {mean:.3f} and {baseline:.3f} on "
        f"average, a gain of {format_interval(promotion['gain'])}.",
        _what_that_proves(promotion),
        f"In short: {promotion['reason']}.",
    ]


def _what_that_proves(promotion: dict[str, Any]) -> str:
    if promotion["promoted"]:
        return "All of the interval lies above zero: the gain is more than noise."
    if promotion["gain"]["mean"] < 0:
        return "What looked best after one training is not better over new seeds: that is what they are for."
    return "That is not enough to be sure: so few epochs, seeds and images prove small gains seldom."


def _sealed(summary: dict[str, Any]) -> list[str]:
    if summary["test_selected"]:
        return []
    means = {role: numbers["image_auroc"] for role, numbers in summary["test_mean"].items()}
    return [
        f"Only then the {summary['splits']['sealed_test']} images of the {summary['test_name']} were looked at: "
        f"image AUROC {means['champion']:.3f}; a memory bank, which learns nothing, has {means['memory_bank']:.3f}.",
    ]
