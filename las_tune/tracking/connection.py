"""Where MLflow keeps its record: a database or a server, opened with one clear line for whatever is wrong."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from las_tune.errors import UserError, without_password

QUIETED = {
    "mlflow": logging.WARNING,
    "mlflow.store.db": logging.CRITICAL,  # what it raises is told in a line
    "urllib3.connectionpool": logging.ERROR,  # the sender tells of a server that is away
}


def use_store(tracking_uri: str) -> MlflowClient:
    """A client of a store, for this process; MLflow's own patience and chatter are cut."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # the sender tries again, and looks a run up before
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name, level in QUIETED.items():
        logging.getLogger(name).setLevel(level)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return MlflowClient(tracking_uri, tracking_uri)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whatever else this process does with MLflow finds it afterwards as it was: store, environment, levels of logs."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    uri, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    is_set = mlflow.is_tracking_uri_set() and uri != environment.get("MLFLOW_TRACKING_URI")
    levels = {name: logging.getLogger(name).level for name in QUIETED}
    try:
        yield
    finally:
        mlflow.set_tracking_uri(uri if is_set else None)  # None: as the environment says
        mlflow.set_registry_uri("" if registry == uri else registry)  # "": as the tracking URI
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            del os.environ[name]
        os.environ.update(environment)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def open_store(tracking_uri: str, experiment: str, artifact_root: Path) -> tuple[MlflowClient, str]:
    """A client of a store, and the experiment's id; UserError where the store cannot be written to."""
    try:
        client = use_store(tracking_uri)
        return client, _open_experiment(client, tracking_uri, experiment, artifact_root)
    except ImportError as error:
        raise bad_store(tracking_uri, str(error), "install its driver: pip install 'las-tune[postgresql]'") from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise bad_store(tracking_uri, str(error)) from error


def bad_store(
    tracking_uri: str, reason: str, do: str = "give a database (sqlite:///FILE) or a server (http://HOST:PORT)"
) -> UserError:
    """The one line for a store that does not work."""
    return UserError(
        "--tracking-uri must be an MLflow store that can be written to",
        without_password(f"{tracking_uri} ({' '.join(reason.split())})")[:300],
        do,
    )


def _open_experiment(client: MlflowClient, tracking_uri: str, name: str, artifact_root: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise UserError("--experiment must not be one that was deleted", name, "restore it, or choose another name")
    if found is not None:
        return str(found.experiment_id)
    server = tracking_uri.startswith(("http://", "https://"))  # a server has its own artifact store
    return str(client.create_experiment(name, None if server else str(artifact_root)))
