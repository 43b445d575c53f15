"""Markdown description of a study, which MLflow shows: what is searched, the results, and how to reproduce them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from las_tune.config import StudySpec, format_params, model_name
from las_tune.reporting.gains import GAIN, Row, gain_rows
from las_tune.reporting.summary import Summary

MAX_COMMAND = 2000
"""Characters of the command line; MLflow cuts descriptions at 8000."""
SHOWN = ("image_auroc", "pixel_aupro", "recall", "false_reject_rate", "f1")
"""Metrics of the test that are listed next to the objective."""
WARNINGS = {
    "demo": "DEMO: rendered images and a short search. These are demo results.",
    "test_selected": "TEST-SELECTED (--protocol paper): epochs and trials were selected on the test images that are "
    "reported here, as in published tables. The results are optimistic; compare them with such tables only.",
    "test_watched": "--leakage-gap: the sealed test was scored in every epoch of every trial, but not used for "
    "selection.",
}
"""Caveats by the tag that marks a run; MLflow's tags have a hyphen instead of the underscore."""


def warnings(summary: Summary) -> list[str]:
    """Return the caveats that a reader must know before the numbers."""
    applies = {
        "demo": summary.demo,
        "test_selected": summary.is_test_selected,
        "test_watched": summary.is_test_monitored,
    }
    lines = [text for name, text in WARNINGS.items() if applies[name]]
    if summary.synthetic_parts:
        parts = " and ".join(part.replace("_", " ") for part in summary.synthetic_parts)
        lines.append(f"SYNTHETIC: the defects of {parts} images are synthetic, on good images.")
    return lines


def remarks(summary: Summary) -> list[str]:
    """Return the sentences that explain the numbers: the promotion, ties, and a memory bank that outperforms."""
    promotion, reference = summary.promotion, summary.reference
    lines = [f"promotion: {promotion.reason}"]
    if promotion.tied:
        lines.append(f"tied with {promotion.best} within the noise: {', '.join(promotion.tied)}")
    if reference.memory_bank_wins:
        lines.append(
            f"the memory bank outperforms the champion on the {summary.test_name}: "
            f"{summary.objective} {reference.memory_bank:.4f} against {reference.champion:.4f}"
        )
    return lines


def describe_start(spec: StudySpec, ranges: Mapping[str, str], command: str) -> str:
    """Describe a study that is running.

    Args:
        spec: settings of the study.
        ranges: range of each searched hyperparameter, as text.
        command: the command line.
    """
    lines = [f"Search of {spec.trials} trials of {spec.train.epochs} epochs on **{_cell(spec.category)}** is running."]
    lines += [f"**{WARNINGS['demo']}**"] if spec.demo else []
    lines.append(
        f"Objective: {spec.train.objective} on {spec.validation} validation images; sampler {spec.sampler}, "
        f"scheduler {spec.scheduler}."
    )
    return "\n\n".join([*lines, "### Search space", _ranges_table(ranges), *_reproduction(command)]) + "\n"


def describe_study(summary: Summary, ranges: Mapping[str, str], command: str) -> str:
    """Describe a finished study.

    Args:
        summary: summary of the study.
        ranges: range of each searched hyperparameter, as text.
        command: the command line.
    """
    lines = [f"**{text}**" for text in warnings(summary)]
    lines += ["### Results", _table(_results(summary)), *map(_sentence, remarks(summary)), _model(summary)]
    champion = summary.champion
    lines.append(f"Champion: {champion.finalist}, seed {champion.seed} ({format_params(champion.params)}).")
    splits = ", ".join(f"{size} {part.replace('_', ' ')}" for part, size in summary.splits.to_json().items())
    counts = summary.trials
    lines += [
        "### Search space",
        f"{counts.total} trials on **{_cell(summary.category)}**: {counts.completed} completed, "
        f"{counts.pruned} pruned, {counts.failed} failed. Images: {splits}. "
        f"The {summary.test_name} has been opened {_times(summary.test_openings)}.",
        _ranges_table(ranges),
    ]
    return "\n\n".join([*lines, *_reproduction(command)]) + "\n"


def _model(summary: Summary) -> str:
    name = model_name(summary.category)
    if summary.is_test_selected:
        return f"Model: `{name}` in the registry, without the alias `champion`: it was selected on the test images."
    return f"Model: `{name}` in the registry; `models:/{name}@champion` is the registered champion."


def _results(summary: Summary) -> list[Sequence[str]]:
    names = (summary.baseline.finalist, summary.champion.finalist)
    head = ("mean over seeds", f"baseline ({names[0]})", f"champion ({names[1]})", GAIN, "memory bank")
    selected, objective, *others = gain_rows(summary)
    rows = [selected, objective, *(row for row in others if row.metric in SHOWN)]
    return [head, *(_cells(row, ", used for selection" if row is selected else "") for row in rows)]


def _cells(row: Row, remark: str) -> Sequence[str]:
    numbers = (f"{row.baseline:.4f}", f"{row.champion:.4f}", row.gain, f"{row.memory_bank:.4f}")
    return (f"{row.images} {row.metric}{remark}", *numbers)


def _ranges_table(ranges: Mapping[str, str]) -> str:
    return _table([("hyperparameter", "range"), *((f"`{name}`", text) for name, text in ranges.items())])


def _reproduction(command: str) -> list[str]:
    if len(command) > MAX_COMMAND:
        command = f"{command[:MAX_COMMAND]} ...  # the complete command is in command.txt"
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))  # longer than any in the command
    return [
        "### Reproduction",
        f"{fence}bash\n{command}\n{fence}",
        "The artifacts contain the package versions (`constraints.txt`) and the images of every part (`splits.json`).",
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
