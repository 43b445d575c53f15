"""Open an MLflow store, a database or a server. Failures are raised as UserErrors."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from las_tune.errors import UserError, without_password

CONNECTION_ERRORS = (MlflowException, SQLAlchemyError, OSError)
"""What MLflow's client raises for a store that is missing, unreachable or read-only."""
LOG_LEVELS = {
    "mlflow": logging.WARNING,
    "mlflow.store.db": logging.CRITICAL,  # it logs a traceback for each error that it raises as well
    "urllib3.connectionpool": logging.ERROR,  # the sender reports an unreachable server itself
}
MAX_ERROR_LENGTH = 300


def use_store(tracking_uri: str) -> MlflowClient:
    """Select a store for this process and return its client. MLflow's retries and most of its logs are turned off."""
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"  # a retry could create a run twice; the sender retries safely
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for name, level in LOG_LEVELS.items():
        logging.getLogger(name).setLevel(level)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return MlflowClient(tracking_uri, tracking_uri)


@contextmanager
def preserve_mlflow_state() -> Iterator[None]:
    """Restore MLflow's global state on exit: tracking and registry URI, environment variables, log levels."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    uri, registry = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    # MLflow takes an empty URI, which resets it, for one that is not set, and still returns it.
    is_set = uri == "" or (mlflow.is_tracking_uri_set() and uri != environment.get("MLFLOW_TRACKING_URI"))
    levels = {name: logging.getLogger(name).level for name in LOG_LEVELS}
    try:
        yield
    finally:
        mlflow.set_tracking_uri(uri if is_set else None)  # None: use the environment variable
        mlflow.set_registry_uri("" if registry == uri else registry)  # "": follow the tracking URI
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            del os.environ[name]
        os.environ.update(environment)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def open_store(tracking_uri: str, experiment: str, artifact_root: Path) -> tuple[MlflowClient, str]:
    """Open a store for writing, and create database and experiment if they are missing.

    Args:
        tracking_uri: URI of the store.
        experiment: name of the experiment.
        artifact_root: artifact folder of a new experiment; a server uses its own.

    Returns: the client and the id of the experiment.

    Raises: UserError if the store cannot be opened, or the experiment was deleted.
    """
    with store_errors(tracking_uri):
        client = use_store(tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            location = None if is_server(tracking_uri) else str(artifact_root)
            return client, str(client.create_experiment(experiment, location))
    if found.lifecycle_stage == "deleted":
        raise UserError(f"--experiment {experiment} was deleted", remedy="Restore it in MLflow, or choose another name")
    return client, str(found.experiment_id)


@contextmanager
def store_errors(tracking_uri: str) -> Iterator[None]:
    """Turn the errors of an unusable store into a UserError."""
    try:
        yield
    except ImportError as error:
        remedy = "Install its database driver, for PostgreSQL: pip install 'las-tune[postgresql]'"
        raise store_error(tracking_uri, str(error), remedy) from error
    except CONNECTION_ERRORS as error:
        raise store_error(tracking_uri, str(error)) from error


def store_error(
    tracking_uri: str,
    reason: str,
    remedy: str = "Set --tracking-uri to a database (sqlite:///FILE) or a server (http://HOST:PORT)",
) -> UserError:
    """Return the error for a store that cannot be used."""
    problem = f"--tracking-uri {tracking_uri} is not a usable MLflow store: {' '.join(reason.split())}"
    return UserError(without_password(problem)[:MAX_ERROR_LENGTH].rstrip("."), remedy=remedy)


def require_store(tracking_uri: str) -> None:
    """Raise a UserError unless a store exists. Without this check, MLflow creates an empty database to read from."""
    with store_errors(tracking_uri):
        if _exists(tracking_uri):
            return
    raise UserError(
        f"--tracking-uri {without_password(tracking_uri)} does not exist or is not an MLflow store",
        remedy="Run a study first, or give the --results or --tracking-uri of an existing one",
    )


def _exists(tracking_uri: str) -> bool:
    """Return whether a database has MLflow's tables, or a folder exists. A server is not contacted yet."""
    if is_server(tracking_uri):
        return True
    if "://" not in tracking_uri or tracking_uri.startswith("file://"):
        return Path(tracking_uri.removeprefix("file://")).is_dir()
    address = sqlalchemy.make_url(tracking_uri)
    if address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file():
        return False
    engine = sqlalchemy.create_engine(address)
    try:
        return sqlalchemy.inspect(engine).has_table("experiments")
    finally:
        engine.dispose()


def is_server(tracking_uri: str) -> bool:
    """Return whether the store is an MLflow server, which also stores the artifacts."""
    return tracking_uri.startswith(("http://", "https://"))
