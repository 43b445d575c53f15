"""The description of a study, in Markdown: what was searched, what was found, how to repeat it. MLflow shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from las_tune.objectives import METRIC_OF, objective_value
from las_tune.study_spec import model_name
from las_tune.tracking.summary import WARNINGS

LONGEST_COMMAND = 2000
"""Characters; MLflow cuts descriptions at 8000."""
SHOWN = ("image_auroc", "pixel_aupro", "recall", "false_reject_rate", "f1")
"""Metrics of the test that a reader compares."""
OBJECTIVE_OF = {metric: objective for objective, metric in METRIC_OF.items()}
"""Gains are kept by objective."""


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
        f"Objective: {plan['objective']} on {plan['validation']} validation pictures; sampler {plan['sampler']}, "
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
    promotion, counts = summary["promotion"], summary["trials"]
    lines = [f"**{text}**" for key, text in WARNINGS.items() if summary[key]]
    if summary["painted"]:
        parts = " and ".join(part.replace("_", " ") for part in summary["painted"])
        lines.append(f"**Synthetic**: {parts}: good pictures and defects painted on them.")
    lines += ["### What was found", _table(_results(summary)), f"Promotion: {_sentence(promotion['reason'])}"]
    if promotion["tied"]:
        lines.append(f"Tied with {promotion['best']} within the noise: {', '.join(promotion['tied'])}.")
    if summary["reference"]["memory_bank_wins"]:
        lines.append(f"**The memory bank, which learns nothing, does better on the {summary['test_name']}.**")
    name = model_name(summary["category"])
    lines.append(
        f"Model: `{name}` in the registry, without the alias `champion`: it was chosen by the test pictures."
        if summary["test_selected"]
        else f"Model: `models:/{name}@champion` is what is promoted now."
    )
    settings = ", ".join(f"{name} {_number(value)}" for name, value in summary["champion"]["params"].items())
    lines.append(f"Handed over: {summary['champion']['finalist']}, seed {summary['champion']['seed']} ({settings}).")
    splits = ", ".join(f"{number} {part.replace('_', ' ')}" for part, number in summary["splits"].items())
    lines += [
        "### What was searched",
        f"{counts['total']} trials on **{_cell(summary['category'])}**: {counts['completed']} completed, "
        f"{counts['pruned']} pruned, {counts['failed']} failed. Pictures: {splits}. "
        f"The {summary['test_name']} was opened {_times(summary['test_openings'])} so far.",
    ]
    return "\n\n".join([*lines, *_searched(ranges)[1:], *_repeat(command)]) + "\n"


def _results(summary: Mapping[str, Any]) -> list[Sequence[str]]:
    """Rows: what, baseline, champion, gain with its interval, memory bank."""
    validation, gain = summary["validation_mean"], summary["validation_gain"]
    names = [str(summary[role]["finalist"]) for role in ("baseline", "champion")]
    rows: list[Sequence[str]] = [
        ("means over seeds", f"baseline ({names[0]})", f"champion ({names[1]})", "gain, 95% interval", "memory bank"),
        (
            f"validation {summary['objective']}, selected on",
            *(_number(validation[role]) for role in ("baseline", "champion")),
            _interval(gain),
            _number(validation["memory_bank"]),
        ),
    ]
    objective, means = summary["objective"], summary["test_mean"]
    if METRIC_OF.get(objective, objective) not in SHOWN:  # what was searched for is told first
        means = {role: {objective: objective_value(objective, of_role)} | of_role for role, of_role in means.items()}
    for name in dict.fromkeys((objective, *SHOWN)):
        if name in means["champion"]:
            interval = _interval(summary["test_gain"].get(OBJECTIVE_OF.get(name, name)))
            values = [_number(means[role][name]) for role in ("baseline", "champion")]
            rows.append((f"{summary['test_name']} {name}", *values, interval, _number(means["memory_bank"][name])))
    return rows


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
        "Versions are in `constraints.txt`, the pictures of every part in `splits.json`, both among the artifacts.",
    ]


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ([_cell(cell) for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _interval(interval: Mapping[str, Any] | None) -> str:
    if not interval:
        return ""
    low, high = interval["low"], interval["high"]
    if low is None or high is None or high == float("inf"):
        return f"{interval['mean']:+.4f}, noise unknown"
    return f"{interval['mean']:+.4f}, {low:+.4f} to {high:+.4f}"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
