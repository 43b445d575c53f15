"""The end of --demo: what was found, where to look, what to do next."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from las_tune.printing import print_lines


def print_story(summary: dict[str, Any], folder: Path) -> None:
    """Three short paragraphs for someone who sees this for the first time."""
    where = shlex.join(["--study", summary["study"], "--results", str(folder.parent)])
    model = shlex.quote(str(folder / f"best_model_{summary['category']}.pth"))
    print_lines(
        [
            "",
            "What was found",
            *(f"  {line}" for line in (*_search(summary), *_again(summary), *_sealed(summary))),
            "",
            "Where to look",
            f"  {folder / 'figures' / 'study.html'}: every trial, to hover over",
            f"  python -m las_tune ui {where}: trials side by side, painted defects, heat maps",
            f"  python -m las_tune predict --model {model} --out marked data/demo: the detector at work",
            "",
            "What to do next",
            "  python -m las_tune data init parts/bolt --good 'PICTURES/*.png': your own parts, from loose pictures",
            "  python -m las_tune data fetch dtd: textures to paint defects with",
            "  python -m las_tune --category bolt --data-root parts --dry-run: what a real search of them will take",
        ]
    )


def _search(summary: dict[str, Any]) -> list[str]:
    trials, best, splits = summary["trials"], summary["best_trial"], summary["splits"]
    return [
        f"{trials['total']} sets of hyperparameters were tried on {splits['fit']} good brackets with painted defects; "
        f"trial 0, the baseline, was the usual set. {trials['pruned']} were stopped early, being behind.",
        f"The best was trial {best['trial']}: {summary['objective']} {best['validation']['objective']:.3f} on "
        f"{splits['validation']} labelled pictures. One training proves little: another seed gives another number.",
    ]


def _again(summary: dict[str, Any]) -> list[str]:
    promotion, baseline = summary["promotion"], summary["validation_mean"]["baseline"]
    gain = promotion["gain"]
    if not gain:
        return ["The baseline itself was the best; it stays."]
    between = f"{gain['low']:+.3f} to {gain['high']:+.3f}" if gain["low"] is not None else "of unknown width"
    told = (
        f"So {promotion['best']} and the baseline were trained again with new seeds: {baseline + gain['mean']:.3f} and "
        f"{baseline:.3f} on average, a gain of {gain['mean']:+.3f}, 95% interval {between}."
    )
    if promotion["promoted"]:
        return [told, "All of the interval lies above zero: it is the champion, in MLflow's model registry."]
    return [
        told,
        "The interval holds zero: so few epochs, seeds and pictures prove no gain, and the baseline stays.",
    ]


def _sealed(summary: dict[str, Any]) -> list[str]:
    means = {role: numbers["image_auroc"] for role, numbers in summary["test_mean"].items()}
    return [
        f"Only then the {summary['splits']['sealed_test']} pictures of the {summary['test_name']} were looked at: "
        f"image AUROC {means['champion']:.3f}; a memory bank, which learns nothing, has {means['memory_bank']:.3f}.",
    ]
