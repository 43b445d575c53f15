"""Studies and their trials as tables of text, for the terminal and the HTML report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from mlflow import MlflowClient
from mlflow.entities import Run

from las_tune.config import Interval, Objective, objective_value, paths
from las_tune.reporting import GAIN, format_test_gain, parse_summary
from las_tune.tracking.store import Artifacts, Kind, StudyRuns, cell, roles_of

ROLES = ("baseline", "champion", "memory_bank")
EMPTY = "–"


@dataclass(frozen=True)
class TextTable:
    """Column names, and rows with one cell for each column."""

    head: list[str]
    rows: list[list[str]]


def trial_table(study: StudyRuns, runs: Sequence[Run]) -> TextTable:
    """Return a table with one row for each run, in the columns of the study."""
    columns = study.columns
    head = ["trial", "role", *(key for _, key in columns)]
    rows = [[run.info.run_name or "", roles_of(run), *(_format(run, *column) for column in columns)] for run in runs]
    return TextTable(head, rows)


def _format(run: Run, kind: Kind, key: str) -> str:
    value = cell(run, kind, key)
    if value is None:
        return EMPTY
    if kind == "metrics":
        return f"{value:.0f}" if key.endswith("seconds") else f"{value:.4f}"
    return _format_param(value) if kind == "params" else str(value)


def _format_param(text: str) -> str:
    """Shorten a decimal number to three significant digits."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.3g}"
    except ValueError:
        return text


def sealed_tests(study: StudyRuns) -> dict[str, dict[str, float]]:
    """Return the metrics on the sealed test by role, means over seeds; empty until the study ends."""
    tests = {role: _without_prefix(study.parent.data.metrics, f"{role}/test_") for role in ROLES}
    return {role: metrics for role, metrics in tests.items() if metrics}


def sealed_table(study: StudyRuns, gains: Mapping[str, Interval] | None) -> TextTable:
    """Return a table with one row for each metric on the sealed test, the objective first; gains: see read_gains."""
    objective, tests = study.parent.data.tags.get("objective", ""), sealed_tests(study)
    values = {role: {objective: sealed_objective(study, role), **metrics} for role, metrics in tests.items()}
    names = [name for name in dict.fromkeys(n for by_name in values.values() for n in by_name) if name]
    rows = []
    for name in names:
        by_role = {role: metrics.get(name) for role, metrics in values.items()}
        gain = _format_gain(gains, name, by_role.get("baseline"), by_role.get("champion"))
        if any(value is not None for value in by_role.values()):
            rows.append([name, *map(_format_metric, by_role.values()), gain])
    return TextTable(["metric", *(role.replace("_", " ") for role in tests), GAIN], rows)


def study_table(client: MlflowClient, studies: Sequence[StudyRuns]) -> TextTable:
    """Return a table with one row for each study: the objective on the sealed test by role, and the gain."""
    head = ["study", "category", "trials", "objective", "baseline", "champion", GAIN, "memory bank"]
    return TextTable(head, [_study_row(client, study) for study in studies])


def _study_row(client: MlflowClient, study: StudyRuns) -> list[str]:
    tags = study.parent.data.tags
    objective = tags.get("objective", EMPTY)
    baseline, champion, memory_bank = (sealed_objective(study, role) for role in ROLES)
    gain = _format_gain(read_gains(client, study), objective, baseline, champion)
    if champion is None:
        gain = f"no sealed test: {study.parent.info.status.lower()}"
    values = [_format_metric(baseline), _format_metric(champion), gain, _format_metric(memory_bank)]
    return [study.name, tags.get("category", EMPTY), str(len(study.trials)), objective, *values]


def sealed_objective(study: StudyRuns, role: str) -> float | None:
    """Return the objective on the sealed test; None until the study ends."""
    metrics, tag = sealed_tests(study).get(role, {}), study.parent.data.tags.get("objective")
    objective = next((known for known in get_args(Objective) if known == tag), None)
    try:
        return objective_value(objective, metrics) if objective else None
    except KeyError:  # the test is still sealed, or masks are missing
        return None


def _format_gain(
    gains: Mapping[str, Interval] | None, name: str, baseline: float | None, champion: float | None
) -> str:
    if baseline is None or champion is None:
        return EMPTY
    return format_test_gain(gains, name, champion - baseline)


def read_gains(client: MlflowClient, study: StudyRuns) -> Mapping[str, Interval] | None:
    """Return the gain of the champion on the sealed test by objective; None until the study ends."""
    text = Artifacts(client, study.parent.info.run_id).read_text(paths.SUMMARY)
    return parse_summary(text, f"{paths.SUMMARY} of study {study.name}").test_gain if text else None


def _without_prefix(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _format_metric(value: float | None) -> str:
    return EMPTY if value is None else f"{value:.4f}"
