"""The description of a study: the numbers of the summary, in Markdown that no name can break."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from las_tune.config.interval import Interval
from las_tune.reporting.description import describe_start, describe_study
from las_tune.reporting.summary import Summary
from tests.parts import TRAIN, part_spec
from tests.summaries import make_summary

RANGES = {"alpha": "0 to 0.5", "adaptor_lr": "1e-05 to 0.001, log", "foreground": "otsu or none"}
SPEC = part_spec(Path("/data"), TRAIN, category="plate|x", demo=True)


@pytest.fixture
def summary() -> Summary:
    return make_summary(category="plate|x")


def tables(text: str) -> list[list[list[str]]]:
    """Return the cells of every table, as Markdown renders them."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 2:
            found[-1][-1].append(token.content.replace("\\|", "|"))
    return found


def test_results_and_search_space_are_tables(summary: Summary) -> None:
    results, ranges = tables(describe_study(summary, RANGES, "python -m las_tune"))
    assert results[0] == [
        "mean over seeds", "baseline (baseline)", "champion (trial 3)", "gain (95% interval)", "memory bank",
    ]  # fmt: skip
    assert results[1:4] == [
        ["validation combined, used for selection", "0.5000", "0.7500", "+0.2500 (+0.1250 to +0.3750)", "0.6250"],
        ["sealed test combined", "0.8500", "0.8750", "+0.0250 (+0.0100 to +0.0400)", "0.8500"],
        ["sealed test image_auroc", "0.9000", "0.9500", "+0.0500 (-0.0100 to +0.1100)", "0.9000"],
    ]
    assert [row[0] for row in results[4:]] == [
        f"sealed test {n}" for n in ("pixel_aupro", "recall", "f1", "false_reject_rate")
    ]
    assert [row[1] for row in ranges[1:]] == list(RANGES.values())


def test_description_names_promotion_trials_and_command(summary: Summary) -> None:
    text = describe_study(summary, RANGES, "python -m las_tune --trials 6")
    for phrase in (
        "the gain exceeds the noise.", "Tied with trial 3 within the noise: trial 4.", "opened 2 times",
        "43 fit, 5 calibration, 22 validation, 21 sealed test",
        "3 completed, 2 pruned, 1 failed", "trial 3, seed 2 (alpha 0.123, foreground otsu)",
        "```bash\npython -m las_tune --trials 6\n```", "models:/las-plate|x@champion",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "memory bank outperforms" not in text and "DEMO" not in text and "TEST-SELECTED" not in text


def test_warnings_come_first(summary: Summary) -> None:
    summary = replace(
        summary,
        demo=True,
        is_test_selected=True,
        is_test_monitored=True,
        synthetic_parts=("validation", "sealed_test"),
        reference=replace(summary.reference, memory_bank_wins=True),
    )
    text = describe_study(summary, RANGES, "")
    before_results = text[: text.index("### Results")]
    for phrase in ("**DEMO", "**TEST-SELECTED", "--leakage-gap", "**SYNTHETIC: the defects of validation and sealed"):
        assert phrase in before_results
    assert "The memory bank outperforms the champion on the sealed test" in text


def test_unknown_noise_is_stated(summary: Summary) -> None:
    summary = replace(summary, test_gain={"image_auroc": Interval(0.05, -math.inf, math.inf)})
    results, _ = tables(describe_study(summary, RANGES, ""))
    assert [row[3] for row in results[2:4]] == ["+0.0250", "+0.0500 (noise unknown: too few images or seeds)"]


def test_kept_baseline_has_no_gain(summary: Summary) -> None:
    means = replace(summary.test_mean, champion=summary.test_mean.baseline)
    summary = replace(summary, validation_gain=None, test_gain={}, test_mean=means)
    results, _ = tables(describe_study(summary, RANGES, ""))
    assert {row[3] for row in results[1:]} == {"baseline kept"}


def test_recall_has_the_interval_of_its_objective(summary: Summary) -> None:
    summary = replace(summary, objective="recall_at_fpr", test_gain={"recall_at_fpr": Interval(0.5, 0.25, 0.75)})
    rows = tables(describe_study(summary, RANGES, ""))[0]
    assert rows[2][0] == "sealed test recall" and rows[2][3] == "+0.5000 (+0.2500 to +0.7500)"


def test_test_selected_model_has_no_alias(summary: Summary) -> None:
    text = describe_study(replace(summary, is_test_selected=True), RANGES, "")
    assert "@champion" not in text and "without the alias `champion`" in text


def test_command_with_backticks_stays_one_block() -> None:
    command = "python -m las_tune --study '```' --category a"
    blocks = [token for token in MarkdownIt().parse(describe_start(SPEC, RANGES, command)) if token.type == "fence"]
    assert [block.content for block in blocks] == [command + "\n"]


def test_long_command_is_cut() -> None:
    text = describe_start(SPEC, RANGES, "x" * 5000)
    assert len(text) < 3000 and "the complete command is in command.txt" in text


def test_name_with_a_bar_does_not_break_a_table() -> None:
    text = describe_start(SPEC, {"a|b": "1 to 2|3"}, "")
    assert tables(text)[0][1] == ["`a|b`", "1 to 2|3"] and "**DEMO" in text
