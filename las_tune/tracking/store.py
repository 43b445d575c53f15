"""Read studies back from MLflow: a study by its name, its trials ranked, the files of its runs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from las_tune.config import TIE_BREAKS, ranking
from las_tune.errors import UserError, without_password
from las_tune.tracking.connection import require_store, store_errors, use_store

Kind = Literal["tags", "metrics", "params"]
RESULT_COLUMNS: tuple[tuple[Kind, str], ...] = (
    ("tags", "status"),
    ("metrics", "best/objective"),
    ("metrics", "best/image_auroc"),
    ("metrics", "best/pixel_aupro"),
)
COST_COLUMN: tuple[Kind, str] = ("metrics", "total_seconds")
MAX_LISTED_STUDIES = 10
"""Number of study names that an error lists."""


@dataclass(frozen=True)
class StudyRuns:
    """The MLflow runs of a study: the parent run, and one child run for each training run."""

    parent: Run
    children: tuple[Run, ...]

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.parent.data.tags["study"])

    @property
    def trials(self) -> list[Run]:
        """Runs of the search, best first."""
        return sorted((run for run in self.children if "finalist_seed" not in run.data.tags), key=_rank)

    @property
    def finalists(self) -> list[Run]:
        """Runs of the finalists, retrained with new seeds, best first."""
        return sorted((run for run in self.children if "finalist_seed" in run.data.tags), key=_rank)

    @property
    def columns(self) -> list[tuple[Kind, str]]:
        """Columns that compare trials: status, best metrics, the hyperparameters searched, seconds."""
        results = [(kind, key) for kind, key in RESULT_COLUMNS if any(cell(run, kind, key) for run in self.children)]
        return [*results, *(("params", name) for name in self.searched_params), COST_COLUMN]

    @property
    def searched_params(self) -> list[str]:
        """Names of the hyperparameters that differ between trials, or of all of them for a single trial."""
        by_number = sorted(self.children, key=_number)
        names = dict.fromkeys(name for run in by_number for name in run.data.params)
        if len(by_number) < 2:
            return list(names)
        return [name for name in names if len({run.data.params.get(name) for run in by_number}) > 1]


def cell(run: Run, kind: Kind, key: str) -> Any:
    """Return a tag, metric or parameter of a run, None if the run lacks it."""
    return getattr(run.data, kind).get(key)


def roles_of(run: Run) -> str:
    """Return the roles of a run apart from being a trial, comma-separated: baseline, champion, tied."""
    return ", ".join(role for role in ("baseline", "champion", "tied") if run.data.tags.get(role) == "true")


def _number(run: Run) -> int:
    return int(run.data.tags.get("trial", -1))


def _rank(run: Run) -> tuple[float | int, ...]:
    """Sort key: the ranking of the search. Runs without a finished epoch come last."""
    best = {name: run.data.metrics[f"best/{name}"] for name in TIE_BREAKS if f"best/{name}" in run.data.metrics}
    objective = run.data.metrics.get("best/objective", run.data.metrics.get("objective"))
    if objective is None:
        return (1, _number(run))
    return (0, *(-value for value in ranking({"objective": objective, **best})), _number(run))


@dataclass(frozen=True)
class Store:
    """An experiment of a store, opened for reading."""

    uri: str
    client: MlflowClient
    experiment_id: str

    def find(self, study: str | None) -> StudyRuns:
        """Return a study with its trials, see find_study."""
        with store_errors(self.uri):
            return find_study(self.client, self.experiment_id, study)


def open_to_read(tracking_uri: str, experiment: str) -> Store:
    """Open an existing experiment of an existing store.

    Raises: UserError if either does not exist. Nothing is created.
    """
    require_store(tracking_uri)
    with store_errors(tracking_uri):
        client = use_store(tracking_uri)
        found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage == "deleted":
        raise UserError(
            f"--experiment {experiment} does not exist in {without_password(tracking_uri)}",
            remedy="Run a study first, or give the --results or --tracking-uri of an existing one",
        )
    return Store(tracking_uri, client, str(found.experiment_id))


def find_study(client: MlflowClient, experiment_id: str, study: str | None) -> StudyRuns:
    """Return the newest study of a name, or the newest of all without a name, with its trials.

    Raises: UserError if there is none.
    """
    parents = search_all(client, experiment_id, "tags.kind = 'study'")
    matching = [run for run in parents if study in (None, run.data.tags.get("study"))]
    if not matching:
        raise _no_study(study, list(dict.fromkeys(run.data.tags.get("study", run.info.run_name) for run in parents)))
    parent_id = matching[0].info.run_id
    children = search_all(client, experiment_id, f"tags.`mlflow.parentRunId` = '{parent_id}'")
    return StudyRuns(matching[0], tuple(run for run in children if run.data.tags.get("kind") == "trial"))


def _no_study(study: str | None, names: list[str]) -> UserError:
    if not names:
        return UserError("The experiment has no study" + (f" {study}" if study else ""), remedy="Run a study first")
    num_more = len(names) - MAX_LISTED_STUDIES
    known = ", ".join(names[:MAX_LISTED_STUDIES]) + (f" and {num_more} more" if num_more > 0 else "")
    return UserError(f"Study {study} does not exist in the store", remedy=f"Known studies: {known}")


def search_all(client: MlflowClient, experiment_id: str, query: str) -> list[Run]:
    """Return the runs of every page of a search, newest first."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return sorted(runs, key=lambda run: run.info.start_time, reverse=True)


@dataclass(frozen=True)
class Artifacts:
    """Read access to the files of one run."""

    client: MlflowClient
    run_id: str

    def names(self, folder: str = "") -> list[str]:
        """Return the sorted paths of the files in a folder; empty if it is missing or cannot be read."""
        try:
            files = self.client.list_artifacts(self.run_id, folder or None)
        except (MlflowException, OSError):
            return []
        return sorted(file.path for file in files if not file.is_dir)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None if it is missing or cannot be read."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                return Path(self.client.download_artifacts(self.run_id, path, folder)).read_bytes()
            except (MlflowException, OSError):
                return None

    def read_text(self, path: str) -> str | None:
        """Return the content of a text file, None if it is missing or cannot be read."""
        content = self.read(path)
        return None if content is None else content.decode(errors="replace")
