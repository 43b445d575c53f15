"""Explanation of the results of `--demo` for first-time users."""

from __future__ import annotations

import shlex
from pathlib import Path

from las_tune.config import format_interval, paths
from las_tune.reporting import Promotion, Summary
from las_tune.terminal.tables import print_lines

TEST_IMAGES = paths.DEMO_DATA_ROOT / paths.DEMO_CATEGORY / "test"


def print_story(summary: Summary, folder: Path) -> None:
    """Print the results, where to find them, and the next steps.

    Args:
        summary: summary of the demo study.
        folder: folder of the study.
    """
    study = shlex.join(["--study", summary.study, "--results", str(folder.parent)])
    model = shlex.quote(str(folder / paths.model_file(summary.category)))
    results = (*_search(summary), *_retraining(summary), *_sealed_test(summary))
    print_lines(
        [
            "",
            "Results",
            *(f"  {line}" for line in results),
            "",
            "Explore",
            f"  interactive figures of all trials: {folder / 'figures' / 'study.html'}",
            "  trials side by side, with synthetic defects and anomaly maps:",
            f"    python -m las_tune ui {study}",
            "  predictions of the champion:",
            f"    python -m las_tune predict --model {model} --out marked {TEST_IMAGES}",
            "",
            "Next steps",
            "  Create a category from your own images, download textures for the synthetic defects, estimate the cost:",
            "    python -m las_tune data init parts/bolt --good 'IMAGES/*.png'",
            "    python -m las_tune data fetch dtd",
            "    python -m las_tune --category bolt --data-root parts --validation synthetic --dry-run",
        ]
    )


def _search(summary: Summary) -> list[str]:
    trials, best, splits = summary.trials, summary.best_trial, summary.splits
    return [
        f"{trials.total} configurations were evaluated, each trained on {splits.fit} good images with synthetic "
        f"defects. Trial 0, the baseline, is the reference configuration. {trials.pruned} trials were stopped early.",
        f"The best was trial {best.number}, with {summary.objective} {best.validation['objective']:.3f} on "
        f"{splits.validation} validation images. This is the result of a single seed.",
    ]


def _retraining(summary: Summary) -> list[str]:
    promotion, baseline = summary.promotion, summary.validation_mean.baseline
    if promotion.best == "baseline":
        return [
            "After retraining with new seeds, no configuration outperformed the baseline, so the baseline was kept."
        ]
    mean = baseline + promotion.gain.mean
    return [
        f"Retrained with new seeds, {promotion.best} scored {mean:.3f} on average and the baseline {baseline:.3f}: "
        f"a gain of {format_interval(promotion.gain)}.",
        _significance(promotion),
        f"Decision: {promotion.reason}.",
    ]


def _significance(promotion: Promotion) -> str:
    if promotion.promoted:
        return "The whole 95% interval is above zero, so the gain is larger than the noise."
    if promotion.gain.mean < 0:
        return "The apparent gain did not hold up with new seeds."
    return "The gain is not significant: with so few epochs, seeds and images, small gains can rarely be detected."


def _sealed_test(summary: Summary) -> list[str]:
    if summary.is_test_selected:
        return []
    champion, memory_bank = (
        means["image_auroc"] for means in (summary.test_mean.champion, summary.test_mean.memory_bank)
    )
    return [
        f"The {summary.test_name} ({summary.splits.sealed_test} images) was opened last: image AUROC {champion:.3f} "
        f"for the champion, {memory_bank:.3f} for a memory bank (PatchCore-style nearest neighbor).",
    ]
