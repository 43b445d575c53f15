"""What MLflow holds of studies, read back: a study by its name, its trials, best first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from las_tune.config.objectives import TIE_BREAKS, ranking
from las_tune.errors import UserError, without_password
from las_tune.tracking.connection import use_store

Kind = Literal["tags", "metrics", "params"]
RESULTS: tuple[tuple[Kind, str], ...] = (
    ("tags", "status"),
    ("metrics", "best/objective"),
    ("metrics", "best/image_auroc"),
    ("metrics", "best/pixel_aupro"),
)
COST: tuple[Kind, str] = ("metrics", "total_seconds")
NEWEST = 10
"""Of the known studies, how many an error lists."""


@dataclass(frozen=True)
class StudyRuns:
    """A study as MLflow has it: its run, and a run for each training."""

    parent: Run
    children: tuple[Run, ...]

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.parent.data.tags["study"])

    @property
    def trials(self) -> list[Run]:
        """Trials of the search, best first."""
        return sorted((run for run in self.children if "finalist_seed" not in run.data.tags), key=_best_first)

    @property
    def again(self) -> list[Run]:
        """What was trained again over new seeds, best first."""
        return sorted((run for run in self.children if "finalist_seed" in run.data.tags), key=_best_first)

    @property
    def columns(self) -> list[tuple[Kind, str]]:
        """What trials are compared by: status, best numbers, the hyperparameters searched, seconds."""
        results = [(kind, key) for kind, key in RESULTS if any(cell(run, kind, key) for run in self.children)]
        return [*results, *(("params", name) for name in self.searched), COST]

    @property
    def searched(self) -> list[str]:
        """Hyperparameters that differ between trials; all of them where there is one trial."""
        by_number = sorted(self.children, key=_number)
        names = dict.fromkeys(name for run in by_number for name in run.data.params)
        if len(by_number) < 2:
            return list(names)
        return [name for name in names if len({run.data.params.get(name) for run in by_number}) > 1]


def cell(run: Run, kind: Kind, key: str) -> Any:
    """A value of a run; None where it has none."""
    return getattr(run.data, kind).get(key)


def mark(run: Run) -> str:
    """What a run became beside a trial: baseline, champion, tied with it."""
    return ", ".join(role for role in ("baseline", "champion", "tied") if run.data.tags.get(role) == "true")


def _number(run: Run) -> int:
    return int(run.data.tags.get("trial", -1))


def _best_first(run: Run) -> tuple[float | int, ...]:
    """As the search ranks them; those without an epoch last."""
    best = {name: run.data.metrics[f"best/{name}"] for name in TIE_BREAKS if f"best/{name}" in run.data.metrics}
    objective = run.data.metrics.get("best/objective", run.data.metrics.get("objective"))
    if objective is None:
        return (1, _number(run))
    return (0, *(-value for value in ranking({"objective": objective, **best})), _number(run))


@dataclass(frozen=True)
class Store:
    """An experiment of a store, to be read."""

    uri: str
    client: MlflowClient
    experiment_id: str

    def find(self, study: str | None) -> StudyRuns:
        """A study with its trials, see find_study."""
        with told_as_user_error(self.uri):
            return find_study(self.client, self.experiment_id, study)


def open_to_read(tracking_uri: str, experiment: str) -> Store:
    """Open a store that is there, and an experiment in it; nothing is made where there is none."""
    with told_as_user_error(tracking_uri):
        _require_store(tracking_uri)
        client = use_store(tracking_uri)
        found = client.get_experiment_by_name(experiment)
    if found is None or found.lifecycle_stage == "deleted":
        raise UserError(
            "--experiment must be in the store",
            f"{experiment} ({without_password(tracking_uri)})",
            "run a study first, or give --results or --tracking-uri of one that has run",
        )
    return Store(tracking_uri, client, str(found.experiment_id))


@contextmanager
def told_as_user_error(tracking_uri: str) -> Iterator[None]:
    """What a store may refuse, as one line."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        raise UserError(
            "--tracking-uri must be an MLflow store that can be read",
            without_password(f"{tracking_uri} ({' '.join(str(error).split())})")[:300],
            "give a database (sqlite:///FILE) or a server (http://HOST:PORT)",
        ) from error


def _require_store(tracking_uri: str) -> None:
    """MLflow makes a database where there is none; a command that reads must not."""
    if is_server(tracking_uri):
        return
    if "://" in tracking_uri and not tracking_uri.startswith("file://"):
        address = sqlalchemy.make_url(tracking_uri)
        is_file = address.get_backend_name() == "sqlite"
        if not is_file or Path(address.database or "").is_file():
            engine = sqlalchemy.create_engine(address)
            try:
                if sqlalchemy.inspect(engine).has_table("experiments"):
                    return
            finally:
                engine.dispose()
    elif Path(tracking_uri.removeprefix("file://")).is_dir():
        return
    raise UserError(
        "there must be an MLflow store",
        without_password(tracking_uri),
        "run a study first, or give --results or --tracking-uri of one that has run",
    )


def is_server(tracking_uri: str) -> bool:
    """Whether an MLflow server keeps the store."""
    return tracking_uri.startswith(("http://", "https://"))


def find_study(client: MlflowClient, experiment_id: str, study: str | None) -> StudyRuns:
    """A study with its trials: the newest of that name, without a name the newest of all."""
    parents = search_all(client, experiment_id, "tags.kind = 'study'")
    named = [run for run in parents if study in (None, run.data.tags.get("study"))]
    if not named:
        names = list(dict.fromkeys(run.data.tags.get("study", run.info.run_name) for run in parents))
        known = ", ".join(names[:NEWEST]) + (f" and {len(names) - NEWEST} more" if len(names) > NEWEST else "")
        if study is None:
            raise UserError("there must be a study in the experiment", "none", "run one first")
        raise UserError("the study must be in the store", study, f"Known: {known or 'none'}")
    parent_id = named[0].info.run_id
    children = search_all(client, experiment_id, f"tags.`mlflow.parentRunId` = '{parent_id}'")
    return StudyRuns(named[0], tuple(run for run in children if run.data.tags.get("kind") == "trial"))


def search_all(client: MlflowClient, experiment_id: str, wanted: str) -> list[Run]:
    """Every page of a search, newest first."""
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], wanted, max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            return sorted(runs, key=lambda run: run.info.start_time, reverse=True)
