"""The description of a study: every number in its place, and Markdown that cannot be broken by names."""

from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt

from las_tune.reporting.description import describe_start, describe_study

RANGES = {"alpha": "0 to 0.5", "adaptor_lr": "1e-05 to 0.001, log", "foreground": "otsu or none"}
PLAN = {
    "study": "s", "category": "plate|x", "demo": True, "trials": 32, "epochs": 20, "objective": "combined",
    "sampler": "tpe", "scheduler": "asha", "validation": "labelled", "protocol": "sealed",
}  # fmt: skip


@pytest.fixture
def summary() -> dict[str, Any]:
    metrics = {"image_auroc": 0.9, "pixel_aupro": 0.8, "recall": 0.7, "f1": 0.6, "false_reject_rate": 0.1}
    return {
        "category": "plate|x", "objective": "combined", "demo": False, "test_selected": False, "test_watched": False,
        "test_name": "sealed test", "painted": [], "splits": {"fit": 43, "sealed_test": 22}, "test_openings": 2,
        "trials": {"total": 6, "completed": 3, "pruned": 2, "failed": 1},
        "baseline": {"finalist": "baseline", "seed": 1, "params": {}},
        "champion": {"finalist": "trial 3", "seed": 2, "params": {"alpha": 0.123456, "foreground": "otsu"}},
        "validation_mean": {"baseline": 0.5, "champion": 0.75, "memory_bank": 0.625},
        "validation_gain": {"mean": 0.25, "low": 0.125, "high": 0.375},
        "test_mean": {"baseline": metrics, "champion": metrics | {"image_auroc": 0.95}, "memory_bank": metrics},
        "test_gain": {
            "image_auroc": {"mean": 0.05, "low": -0.01, "high": 0.11},
            "combined": {"mean": 0.025, "low": 0.01, "high": 0.04},
        },
        "promotion": {"reason": "the gain exceeds the noise", "best": "trial 3", "tied": ["trial 4"]},
        "reference": {"memory_bank": 0.85, "champion": 0.875, "memory_bank_wins": False},
    }  # fmt: skip


def tables(text: str) -> list[list[list[str]]]:
    """The cells of every table, as a reader sees them."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level > 2:
            found[-1][-1].append(token.content.replace("\\|", "|"))
    return found


def test_what_was_found(summary: dict[str, Any]) -> None:
    results, knobs = tables(describe_study(summary, RANGES, "python -m las_tune"))
    assert results[0] == [
        "means over seeds", "baseline (baseline)", "champion (trial 3)", "gain (95% interval)", "memory bank",
    ]  # fmt: skip
    assert results[1:4] == [
        ["validation combined, selected on", "0.5000", "0.7500", "+0.2500 (+0.1250 to +0.3750)", "0.6250"],
        ["sealed test combined", "0.8500", "0.8750", "+0.0250 (+0.0100 to +0.0400)", "0.8500"],
        ["sealed test image_auroc", "0.9000", "0.9500", "+0.0500 (-0.0100 to +0.1100)", "0.9000"],
    ]
    assert [row[0] for row in results[4:]] == [
        f"sealed test {n}" for n in ("pixel_aupro", "recall", "f1", "false_reject_rate")
    ]
    assert [row[1] for row in knobs[1:]] == list(RANGES.values())


def test_everything_else_is_said(summary: dict[str, Any]) -> None:
    text = describe_study(summary, RANGES, "python -m las_tune --trials 6")
    for phrase in (
        "the gain exceeds the noise.", "Tied with trial 3 within the noise: trial 4.", "opened 2 times",
        "43 fit, 22 sealed test",
        "3 completed, 2 pruned, 1 failed", "trial 3, seed 2 (alpha 0.123, foreground otsu)",
        "```bash\npython -m las_tune --trials 6\n```", "models:/las-plate|x@champion",
    ):  # fmt: skip
        assert phrase in text, phrase
    assert "memory bank, which learns nothing" not in text and "DEMO" not in text and "TEST-SELECTED" not in text


def test_warnings_come_first(summary: dict[str, Any]) -> None:
    summary |= {"demo": True, "test_selected": True, "test_watched": True, "painted": ["validation", "sealed_test"]}
    summary["reference"]["memory_bank_wins"] = True
    text = describe_study(summary, RANGES, "")
    found = text[: text.index("### What was found")]
    for phrase in ("**DEMO", "**TEST-SELECTED", "--leakage-gap", "**SYNTHETIC: validation and sealed test: good"):
        assert phrase in found
    assert "does better on the sealed test" in text


def test_an_unknown_noise(summary: dict[str, Any]) -> None:
    summary["test_gain"] = {"image_auroc": {"mean": 0.05, "low": None, "high": None}}
    results, _ = tables(describe_study(summary, RANGES, ""))
    assert [row[3] for row in results[2:4]] == ["+0.0250", "+0.0500 (noise unknown: too few images or seeds)"]


def test_a_baseline_that_stays_has_no_gain(summary: dict[str, Any]) -> None:
    summary |= {"validation_gain": None, "test_gain": {}, "test_mean": summary["test_mean"]}
    summary["test_mean"]["champion"] = summary["test_mean"]["baseline"]
    results, _ = tables(describe_study(summary, RANGES, ""))
    assert {row[3] for row in results[1:]} == {"baseline kept"}


def test_recall_has_the_interval_of_its_objective(summary: dict[str, Any]) -> None:
    summary |= {"objective": "recall_at_fpr", "test_gain": {"recall_at_fpr": {"mean": 0.5, "low": 0.25, "high": 0.75}}}
    rows = tables(describe_study(summary, RANGES, ""))[0]
    assert rows[2][0] == "sealed test recall" and rows[2][3] == "+0.5000 (+0.2500 to +0.7500)"


def test_what_was_chosen_by_the_test_has_no_alias(summary: dict[str, Any]) -> None:
    text = describe_study(summary | {"test_selected": True}, RANGES, "")
    assert "@champion" not in text and "without the alias `champion`" in text


def test_a_command_with_backticks_stays_one_block() -> None:
    command = "python -m las_tune --study '```' --category a"
    blocks = [token for token in MarkdownIt().parse(describe_start(PLAN, RANGES, command)) if token.type == "fence"]
    assert [block.content for block in blocks] == [command + "\n"]


def test_a_name_with_a_bar_breaks_no_table() -> None:
    text = describe_start(PLAN, {"a|b": "1 to 2|3"}, "")
    assert tables(text)[0][1] == ["`a|b`", "1 to 2|3"] and "**DEMO" in text
