"""The ledger: what MLflow holds of a study. The driver alone writes it: one parent run, one child a trial."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from las_tune.errors import UserError
from las_tune.spec import known_hyperparameters
from las_tune.tracking.provenance import without_password
from las_tune.tracking.record import METRICS, TrialRecord


class Ledger:
    """Writes a study to MLflow: a Listener with a run for the study and one for each trial."""

    def __init__(self, tracking_uri: str, experiment: str, artifact_root: Path, tags: Mapping[str, str]) -> None:
        """Opens the store, creating database and experiment where they are missing.

        Args:
            tracking_uri: MLflow store, absolute.
            experiment: name of the MLflow experiment.
            artifact_root: where a new experiment keeps its artifacts, unless a server keeps them.
            tags: tags that every run of the study carries.
        """
        self.tracking_uri = tracking_uri
        self._tags = dict(tags)
        self._runs: dict[int, str] = {}
        self._cost_unit = ("cpu_seconds", 1.0)
        self._has_ended = False
        self.parent_run_id = ""
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # MLflow's own 7 are four silent minutes
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        mlflow.set_tracking_uri(tracking_uri)
        try:
            self._client = MlflowClient(tracking_uri)
            self.experiment_id = self._open_experiment(experiment, artifact_root)
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            raise UserError(
                "--tracking-uri must be an MLflow store that can be written to",
                without_password(f"{tracking_uri} ({' '.join(str(error).split())})")[:300],
                "give a database (sqlite:///FILE) or a server (http://HOST:PORT)",
            ) from error

    def _open_experiment(self, name: str, artifact_root: Path) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise UserError("--experiment must not be one that was deleted", name, "restore it, or choose another name")
        if found is not None:
            return str(found.experiment_id)
        server = self.tracking_uri.startswith(("http://", "https://"))  # a server has its own artifact store
        return str(self._client.create_experiment(name, None if server else str(artifact_root)))

    def start_study(self, study: str, params: Mapping[str, Any], cost_unit: tuple[str, float]) -> None:
        """Make the parent run. cost_unit: name and number of what a second of a trial costs, as gpu_seconds and 1."""
        self._cost_unit = cost_unit
        run = self._client.create_run(self.experiment_id, tags={**self._tags, "kind": "study"}, run_name=study)
        self.parent_run_id = run.info.run_id
        self._client.log_batch(self.parent_run_id, params=[Param(k, str(v)) for k, v in params.items()])

    def trial_started(self, trial: TrialRecord) -> None:
        """Make the child run, with its hyperparameters."""
        tags = {
            **self._tags,
            "mlflow.parentRunId": self.parent_run_id,
            "kind": "trial",
            "trial": str(trial.number),
            "status": "running",
            "baseline": str(trial.is_baseline).lower(),
        }
        if trial.finalist:
            tags |= {"finalist": trial.finalist, "finalist_seed": str(trial.seed)}
        run_id = self._client.create_run(self.experiment_id, tags=tags, run_name=trial.title).info.run_id
        self._runs[trial.number] = run_id
        self._client.log_batch(run_id, params=[Param(k, str(v)) for k, v in trial.params.items()])

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Log an epoch's numbers, the epoch as step."""
        row = trial.epochs[-1]
        self._log(self._runs[trial.number], {name: row[name] for name in row if name != "epoch"}, int(row["epoch"]))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Log the best numbers under their own names, tag the status, end the run."""
        run_id = self._runs[trial.number]
        best = {f"best/{name}": trial.best[name] for name in METRICS if name in trial.best}
        if best:
            best["best/epoch"] = trial.best["epoch"]
        unit, each = self._cost_unit
        spent = trial.seconds + trial.repeated_seconds
        cost = {"total_seconds": spent, f"cost/{unit}": spent * each, f"cost/lost_{unit}": trial.lost_seconds * each}
        self._log(run_id, best | cost)
        self.tag_run(run_id, {"status": trial.status} | ({"reason": trial.reason} if trial.reason else {}))
        self._client.set_terminated(run_id, "FAILED" if trial.status == "failed" else "FINISHED")

    def run_of(self, number: int) -> str:
        """The run of a trial."""
        return self._runs[number]

    def tag_run(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        self._client.log_batch(run_id, tags=[RunTag(key, value[:5000]) for key, value in tags.items()])

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log final numbers."""
        self._log(run_id, metrics)

    def log_artifacts(self, run_id: str, files: Iterable[Path]) -> None:
        """Copy files into the run."""
        for file in files:
            self._client.log_artifact(run_id, str(file))

    def champion_tags(self, model_name: str) -> dict[str, str]:
        """Tags of the version that has the alias champion; empty where there is none."""
        try:
            version = self._client.get_model_version_by_alias(model_name, "champion")
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no model, no alias
                raise
            return {}
        return dict(version.tags)

    def current_champion(self, model_name: str, demo: bool) -> dict[str, Any] | None:
        """Hyperparameters of an earlier study's champion, for a rival; None without one, or where it is the baseline.

        Demos and studies of real pictures are no rivals of each other.
        """
        tags = self.champion_tags(model_name)
        if "hyperparameters" not in tags or tags.get("demo") != str(demo).lower():
            return None
        return known_hyperparameters(json.loads(tags["hyperparameters"]))

    def register(self, model_name: str, model_id: str, run_id: str, tags: Mapping[str, str], promote: bool) -> str:
        """Register a logged model as the next version, with alias champion if it is promoted. Returns its URI."""
        try:
            self._client.create_registered_model(model_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self._client.create_model_version(
            model_name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
        ).version
        if not promote:
            return f"models:/{model_name}/{version}"
        self._client.set_registered_model_alias(model_name, "champion", version)
        return f"models:/{model_name}@champion"

    def end_study(self, status: str) -> None:
        """End the parent run and every child that is still open: FINISHED, FAILED or KILLED. Only once."""
        if self._has_ended:
            return
        self._has_ended = True
        for run_id in self._runs.values():
            if self._client.get_run(run_id).info.status == "RUNNING":
                self.tag_run(run_id, {"status": "failed", "reason": "the study ended first"})
                self._client.set_terminated(run_id, "KILLED")
        self._client.set_terminated(self.parent_run_id, status)

    def _log(self, run_id: str, metrics: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        self._client.log_batch(run_id, [Metric(name, float(value), now, step) for name, value in metrics.items()])


def default_tracking_uri(results: Path) -> str:
    """A database beside the results."""
    return f"sqlite:///{results / 'mlflow.db'}"
