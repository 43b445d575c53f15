from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from las_tune.terminal.demo_story import print_story


def a_summary(**promotion: Any) -> dict[str, Any]:
    usual = {"best": "trial 3", "promoted": False, "gain": {"mean": 0.1, "low": -0.2, "high": 0.4}, "reason": "why"}
    return {
        "study": "s",
        "category": "bracket_black",
        "objective": "combined",
        "trials": {"total": 6, "pruned": 4},
        "best_trial": {"trial": 3, "validation": {"objective": 0.742}},
        "splits": {"fit": 43, "validation": 22, "sealed_test": 21},
        "validation_mean": {"baseline": 0.545},
        "test_mean": {"champion": {"image_auroc": 0.77}, "memory_bank": {"image_auroc": 0.617}},
        "test_name": "sealed test",
        "test_selected": False,
        "promotion": usual | promotion,
    }


@pytest.mark.parametrize(
    ("promotion", "lines"),
    [
        ({}, ["0.645 and 0.545 on average, a gain of +0.1000 (-0.2000 to +0.4000)", "That is not enough to be sure"]),
        (
            {"promoted": True, "gain": {"mean": 0.1, "low": 0.05, "high": 0.15}},
            ["a gain of +0.1000 (+0.0500 to +0.1500)", "All of the interval lies above zero", "In short: why."],
        ),
        (
            {"gain": {"mean": -0.01, "low": -0.2, "high": 0.2}},
            ["a gain of -0.0100 (-0.2000", "is not better over new seeds"],
        ),
        ({"gain": {"mean": 0.0, "low": None, "high": None}}, ["not enough to be sure"]),
        ({"best": "baseline"}, ["No other was better than the baseline"]),
        ({"gain": {"mean": 0.1, "low": None, "high": None}}, ["+0.1000 (noise unknown: too few images or seeds)"]),
    ],
)
def test_each_end(promotion: dict[str, Any], lines: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    print_story(a_summary(**promotion), Path("/r/s"))
    told = capsys.readouterr().out
    for line in (*lines, "6 sets of hyperparameters", "trial 3: combined 0.742", "image AUROC 0.770", "ui --study s"):
        assert line in told
