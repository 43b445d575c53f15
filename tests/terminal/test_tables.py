from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from las_tune.reporting.run_summary import FailedStudy, RunSummary, SharedConfiguration
from las_tune.reporting.summary import CostSummary, LeakageGap, RankCorrelation, TieBreaks, UnsentWrites
from las_tune.terminal.tables import print_overview, print_summary
from tests.summaries import make_summary

FOLDER = Path("/r/s")


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_summary_shows_results_cost_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    cost = CostSummary("gpu", 90.0, 45.0, 3.0, 1.5, 12.0)
    print_summary(make_summary(cost=cost, seconds=120.0, model_uri="models:/las-part@champion"), FOLDER)
    text = printed(capsys)
    for line in (
        "validation combined (used for selection)",
        "trials:   6 (3 completed, 2 pruned, 1 failed)",
        "time:     120 s in total, 90 s of training including retraining, 3 s lost to faults",
        "cost:     45 GPU seconds, 12 per 0.01 gained",
        "model:    models:/las-part@champion",
        "files:    /r/s",
        "python -m las_tune ui --study s --results /r",
    ):
        assert line in text
    assert "MLflow has not received" not in text and "MLflow rejected" not in text and "tie in" not in text


def test_summary_shows_ties_monitored_scores_omissions_and_unsent_writes(capsys: pytest.CaptureFixture[str]) -> None:
    summary = make_summary(
        tie_break=TieBreaks("image_auroc", ""),
        rank_correlation=RankCorrelation(0.5, -0.25, 0.75, 4, None),
        leakage_gap=LeakageGap(0.9, 0.875, 0.025, {}),
        skipped=("a.png is broken",),
        masks_missing=2,
        unsent_writes=UnsentWrites(waiting=3, refused=1),
    )
    print_summary(summary, FOLDER)
    text = printed(capsys)
    for line in (
        "tie in combined (search): decided by image_auroc",
        "validation over 4 trials: +0.50 (95% interval -0.25 to +0.75)",
        "optimistic bias of selecting on the test set (combined): +0.0250 (0.9000 if",
        "unreadable images, skipped (1):\n  a.png is broken",
        "pixel metrics are not available: no mask for 2 of the defective images",
        "MLflow has not received 3 of the writes of this study",
        "python -m las_tune sync s --results /r",
        "MLflow rejected 1 of the writes. See /r/s/ledger.jsonl.refused.",
    ):
        assert line in text


def test_overview_shows_finished_studies_and_the_shared_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    bolt, nut = replace(make_summary(), category="bolt"), replace(make_summary(), category="nut")
    shared = SharedConfiguration("best of bolt", {"alpha": 0.5}, 0.125, {"bolt": 0.0, "nut": 0.25}, {})
    print_overview(RunSummary((bolt, FailedStudy("x", "screw", "no images"), nut), shared))
    text = printed(capsys)
    rows = {name: line for line in text.splitlines() for name in ("bolt", "nut") if f"│ {name} " in line}
    assert "0.0000" in rows["bolt"] and "0.2500" in rows["nut"] and "screw" not in text
    assert "Shared configuration: best of bolt, mean regret 0.1250 on validation images (alpha 0.5)" in text
