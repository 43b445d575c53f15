"""Studies and their trials as tables of text: the same for the terminal and for the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from mlflow import MlflowClient
from mlflow.entities import Run

from las_tune.config import paths
from las_tune.config.objectives import Objective, objective_value
from las_tune.reporting.gains import GAIN, gain_on_test
from las_tune.tracking.artifacts import Artifacts
from las_tune.tracking.store import Kind, StudyRuns, cell, mark

ROLES = ("baseline", "champion", "memory_bank")
NOTHING = "–"


@dataclass(frozen=True)
class TextTable:
    """A head, and rows with as many cells."""

    head: list[str]
    rows: list[list[str]]


def trial_table(study: StudyRuns, runs: Sequence[Run]) -> TextTable:
    """One row a run, in the columns of the study."""
    columns = study.columns
    head = ["trial", "role", *(key for _, key in columns)]
    rows = [[run.info.run_name or "", mark(run), *(_shown(run, *column) for column in columns)] for run in runs]
    return TextTable(head, rows)


def _shown(run: Run, kind: Kind, key: str) -> str:
    value = cell(run, kind, key)
    if value is None:
        return NOTHING
    if kind == "metrics":
        return f"{value:.0f}" if key.endswith("seconds") else f"{value:.4f}"
    return _short(value) if kind == "params" else str(value)


def _short(text: str) -> str:
    """A hyperparameter, with three digits where it is no whole number."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.3g}"
    except ValueError:
        return text


def sealed_tests(study: StudyRuns) -> dict[str, dict[str, float]]:
    """Metrics of the sealed test by role, means over seeds; empty until it is opened."""
    found = {role: _named(study.parent.data.metrics, f"{role}/test_") for role in ROLES}
    return {role: metrics for role, metrics in found.items() if metrics}


def sealed_table(study: StudyRuns, summary: Mapping[str, Any]) -> TextTable:
    """One row a metric of the sealed test, the objective first."""
    objective, tests = study.parent.data.tags.get("objective", ""), sealed_tests(study)
    values = {role: {objective: objective_of(study, role), **metrics} for role, metrics in tests.items()}
    names = [name for name in dict.fromkeys(n for of_role in values.values() for n in of_role) if name]
    rows = []
    for name in names:
        of_role = {role: metrics.get(name) for role, metrics in values.items()}
        gain = _gain(summary, name, of_role.get("baseline"), of_role.get("champion"))
        if any(value is not None for value in of_role.values()):
            rows.append([name, *map(_four, of_role.values()), gain])
    return TextTable(["metric", *(role.replace("_", " ") for role in tests), GAIN], rows)


def study_table(client: MlflowClient, studies: Sequence[StudyRuns]) -> TextTable:
    """One row a study: its objective on the sealed test, for baseline, champion and the memory bank, and the gain."""
    head = ["study", "category", "trials", "objective", "baseline", "champion", GAIN, "memory bank"]
    return TextTable(head, [_study_row(client, study) for study in studies])


def _study_row(client: MlflowClient, study: StudyRuns) -> list[str]:
    tags = study.parent.data.tags
    objective = tags.get("objective", NOTHING)
    baseline, champion, bank = (objective_of(study, role) for role in ROLES)
    gain = _gain(read_summary(client, study), objective, baseline, champion)
    if champion is None:
        gain = f"no sealed test: {study.parent.info.status.lower()}"
    numbers = [_four(baseline), _four(champion), gain, _four(bank)]
    return [study.name, tags.get("category", NOTHING), str(len(study.trials)), objective, *numbers]


def objective_of(study: StudyRuns, role: str) -> float | None:
    """The objective on the sealed test; None until that is opened."""
    metrics, objective = sealed_tests(study).get(role, {}), study.parent.data.tags.get("objective")
    known = next((one for one in get_args(Objective) if one == objective), None)
    try:
        return objective_value(known, metrics) if known else None
    except KeyError:  # it is not opened yet, or masks are missing
        return None


def _gain(summary: Mapping[str, Any], name: str, baseline: float | None, champion: float | None) -> str:
    if baseline is None or champion is None:
        return NOTHING
    return gain_on_test(summary, name, champion - baseline)


def read_summary(client: MlflowClient, study: StudyRuns) -> dict[str, Any]:
    """summary.json of a study; empty where there is none."""
    text = Artifacts(client, study.parent.info.run_id).read_text(paths.SUMMARY)
    return json.loads(text) if text else {}


def _named(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


def _four(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"
