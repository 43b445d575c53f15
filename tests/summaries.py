"""The summary of a small study, for tests of what is made from it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from las_tune.config.interval import Interval
from las_tune.reporting.summary import (
    ByRole,
    CostSummary,
    Promotion,
    Reference,
    Splits,
    Summary,
    TieBreaks,
    TrialCounts,
    TrialSummary,
)

METRICS = {"image_auroc": 0.9, "pixel_aupro": 0.8, "recall": 0.7, "f1": 0.6, "false_reject_rate": 0.1}
VALIDATION = {"epoch": 2, "objective": 0.75, "image_auroc": 0.8, "pixel_aupro": 0.7}


def make_trial_summary(number: int = 3, finalist: str = "", **fields: Any) -> TrialSummary:
    """Summarize a completed trial."""
    usual = {"seed": None, "status": "completed", "params": {}, "validation": VALIDATION, "test": None}
    return TrialSummary(number=number, finalist=finalist, **(usual | fields))


def make_summary(**fields: Any) -> Summary:
    """Summarize a study of 6 trials in which trial 3 was promoted. `fields` replace those of the summary."""
    gain = Interval(0.25, 0.125, 0.375)
    summary = Summary(
        study="s",
        category="part",
        demo=False,
        objective="combined",
        validation="labelled",
        protocol="sealed",
        is_test_selected=False,
        test_name="sealed test",
        is_test_monitored=False,
        synthetic_parts=(),
        splits=Splits(43, 5, 22, 21),
        skipped=(),
        masks_missing=0,
        trials=TrialCounts(total=6, completed=3, pruned=2, failed=1),
        tracking_uri="sqlite:////r/mlflow.db",
        experiment="las_tune",
        experiment_id="1",
        parent_run_id="0123",
        best_trial=make_trial_summary(3),
        baseline=make_trial_summary(100_000, "baseline", seed=1, test=METRICS),
        champion=make_trial_summary(
            100_001, "trial 3", seed=2, test=METRICS, params={"alpha": 0.123456, "foreground": "otsu"}
        ),
        validation_mean=ByRole(baseline=0.5, champion=0.75, memory_bank=0.625),
        validation_gain=gain,
        test_mean=ByRole(baseline=METRICS, champion=METRICS | {"image_auroc": 0.95}, memory_bank=METRICS),
        test_gain={"image_auroc": Interval(0.05, -0.01, 0.11), "combined": Interval(0.025, 0.01, 0.04)},
        reference=Reference(memory_bank=0.85, champion=0.875, memory_bank_wins=False),
        promotion=Promotion(
            champion="trial 3",
            best="trial 3",
            promoted=True,
            gain=gain,
            gain_over_registered=None,
            tied=("trial 4",),
            reason="the gain exceeds the noise",
            tie_break="",
        ),
        tie_break=TieBreaks(search="", finalists=""),
        test_openings=2,
        rank_correlation=None,
        leakage_gap=None,
        cost=CostSummary("cpu", 12.6, 25.2, 1.5, 3.0, 1.0),
        seconds=94.3,
        model_uri="models:/las-part@champion",
    )
    return replace(summary, **fields)
