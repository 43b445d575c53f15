from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.interval import Interval
from las_tune.reporting.summary import Promotion
from las_tune.terminal.demo_story import print_story
from tests.summaries import make_summary

LOSS = Interval(-0.01, -0.2, 0.2)
NOISY, SIGNIFICANT = Interval(0.1, -0.2, 0.4), Interval(0.1, 0.05, 0.15)


def make_promotion(**fields: Any) -> Promotion:
    usual: dict[str, Any] = {
        "champion": "baseline", "best": "trial 3", "promoted": False, "gain": NOISY, "gain_over_registered": None,
        "tied": (), "reason": "why", "tie_break": "",
    }  # fmt: skip
    return Promotion(**(usual | fields))


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        (
            {},
            ["trial 3 scored 0.600 on average and the baseline 0.500", "The gain is not significant", "Decision: why."],
        ),
        (
            {"promoted": True, "gain": SIGNIFICANT},
            ["a gain of +0.1000 (+0.0500 to +0.1500)", "The whole 95% interval is above zero"],
        ),
        ({"gain": LOSS}, ["a gain of -0.0100 (-0.2000", "The apparent gain did not hold up with new seeds."]),
        ({"gain": Interval(0.0, -math.inf, math.inf)}, ["The gain is not significant"]),
        ({"best": "baseline"}, ["no configuration outperformed the baseline"]),
        ({"gain": Interval(0.1, -math.inf, math.inf)}, ["+0.1000 (noise unknown: too few images or seeds)"]),
    ],
)
def test_story_explains_each_outcome(
    fields: dict[str, Any], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    print_story(make_summary(promotion=make_promotion(**fields)), Path("/r/s"))
    printed = " ".join(capsys.readouterr().out.split())
    always = ("6 configurations were evaluated", "trial 3, with combined 0.750", "image AUROC 0.950", "ui --study s")
    for line in (*lines, *always):
        assert line in printed
