"""The description of a study, in Markdown: what was searched, what was found, how to repeat it. MLflow shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from las_tune.config.formatting import format_params
from las_tune.config.study_spec import model_name
from las_tune.reporting.gains import GAIN, Row, gain_rows
from las_tune.reporting.summary import WARNINGS, remarks, warnings

LONGEST_COMMAND = 2000
"""Characters; MLflow cuts descriptions at 8000."""
SHOWN = ("image_auroc", "pixel_aupro", "recall", "false_reject_rate", "f1")
"""Metrics of the test that a reader compares, beside the objective."""


def describe_start(plan: Mapping[str, Any], ranges: Mapping[str, str], command: str) -> str:
    """While a study runs.

    Args:
        plan: category, demo, trials, epochs, objective, sampler, scheduler, validation, protocol.
        ranges: of each hyperparameter searched, as people write it.
        command: the command line.
    """
    lines = [
        f"Search of {plan['trials']} trials of {plan['epochs']} epochs on **{_cell(plan['category'])}** is running."
    ]
    lines += [f"**{WARNINGS['demo']}**"] if plan["demo"] else []
    lines.append(
        f"Objective: {plan['objective']} on {plan['validation']} validation images; sampler {plan['sampler']}, "
        f"scheduler {plan['scheduler']}."
    )
    return "\n\n".join([*lines, *_searched(ranges), *_repeat(command)]) + "\n"


def describe_study(summary: Mapping[str, Any], ranges: Mapping[str, str], command: str) -> str:
    """When it has ended.

    Args:
        summary: see tuning/conclude.py.
        ranges: of each hyperparameter searched, as people write it.
        command: the command line.
    """
    lines = [f"**{text}**" for text in warnings(summary)]
    lines += ["### What was found", _table(_results(summary)), *map(_sentence, remarks(summary))]
    name = model_name(summary["category"])
    lines.append(
        f"Model: `{name}` in the registry, without the alias `champion`: it was chosen by the test images."
        if summary["test_selected"]
        else f"Model: `models:/{name}@champion` is what is promoted now."
    )
    settings = format_params(summary["champion"]["params"])
    lines.append(f"Handed over: {summary['champion']['finalist']}, seed {summary['champion']['seed']} ({settings}).")
    splits = ", ".join(f"{number} {part.replace('_', ' ')}" for part, number in summary["splits"].items())
    counts = summary["trials"]
    lines += [
        "### What was searched",
        f"{counts['total']} trials on **{_cell(summary['category'])}**: {counts['completed']} completed, "
        f"{counts['pruned']} pruned, {counts['failed']} failed. Images: {splits}. "
        f"The {summary['test_name']} was opened {_times(summary['test_openings'])} so far.",
    ]
    return "\n\n".join([*lines, *_searched(ranges)[1:], *_repeat(command)]) + "\n"


def _results(summary: Mapping[str, Any]) -> list[Sequence[str]]:
    """The objective, and what a reader compares."""
    names = [str(summary[role]["finalist"]) for role in ("baseline", "champion")]
    head = ("means over seeds", f"baseline ({names[0]})", f"champion ({names[1]})", GAIN, "memory bank")
    selected, objective, *others = gain_rows(summary)
    rows = [selected, objective, *(row for row in others if row.metric in SHOWN)]
    return [head, *(_cells(row, ", selected on" if row is selected else "") for row in rows)]


def _cells(row: Row, remark: str) -> Sequence[str]:
    numbers = (f"{row.baseline:.4f}", f"{row.champion:.4f}", row.gain, f"{row.memory_bank:.4f}")
    return (f"{row.where} {row.metric}{remark}", *numbers)


def _searched(ranges: Mapping[str, str]) -> list[str]:
    rows = [("hyperparameter", "range"), *((f"`{name}`", text) for name, text in ranges.items())]
    return ["### What is searched", _table(rows)]


def _repeat(command: str) -> list[str]:
    if len(command) > LONGEST_COMMAND:
        command = f"{command[:LONGEST_COMMAND]} ...  # all of it is in command.txt"
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))  # longer than any in the command
    return [
        "### How to repeat it",
        f"{fence}bash\n{command}\n{fence}",
        "Versions are in `constraints.txt`, the images of every part in `splits.json`, both among the artifacts.",
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ([_cell(cell) for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].removesuffix('.')}."


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
