"""MLflow's model registry: who holds the alias champion, and how a new version gets it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from las_tune.config.study_spec import model_name
from las_tune.config.train_spec import known_hyperparameters
from las_tune.tracking.packaging import log_model

CHAMPION = "champion"


@dataclass(frozen=True)
class Holder:
    """The version that has the alias champion: its number and tags; both empty where there is none."""

    version: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def hyperparameters(self, demo: bool) -> dict[str, Any] | None:
        """Of a rival for the finalists; None where there is none, or it is the baseline.

        Demos and studies of real images are no rivals of each other.
        """
        if "hyperparameters" not in self.tags or self.tags.get("demo") != str(demo).lower():
            return None
        return known_hyperparameters(json.loads(self.tags["hyperparameters"]))


def champion_of(client: MlflowClient, model_name: str) -> Holder:
    """Who holds the alias now."""
    try:
        version = client.get_model_version_by_alias(model_name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):  # no model, no alias
            raise
        return Holder()
    return Holder(str(version.version), dict(version.tags))


def register(
    client: MlflowClient,
    tracking_uri: str,
    run_id: str,
    *,
    detector: str,
    example: str,
    category: str,
    tags: Mapping[str, str],
    version: bool,
    promote: bool,
    holder: str,
) -> str:
    """Log a detector as a model of a run and register it; done twice, it is done once.

    Args:
        client: of the store.
        tracking_uri: of the store.
        run_id: the run that the detector was trained in.
        detector: file of the detector.
        example: .npy of two images (2, H, W, 3) uint8 RGB.
        category: the model's name is las-<category>.
        tags: of the version.
        version: whether it becomes a version; else it is a logged model only.
        promote: whether that gets the alias.
        holder: the version that had the alias when this was decided. If another study's has it by now, it stays.

    Returns: the URI by which people load it.
    """
    model_id = log_model(tracking_uri, run_id, Path(detector), np.load(example, allow_pickle=False), category)
    name = model_name(category)
    if not version:
        return f"models:/{name}@{CHAMPION}"
    ours = [one for one in client.search_model_versions(f"run_id = '{run_id}'") if one.name == name]
    number = str(ours[0].version) if ours else _new_version(client, name, model_id, run_id, tags)
    if promote:
        now = champion_of(client, name).version
        if now == holder:
            client.set_registered_model_alias(name, CHAMPION, number)
        elif now != number:
            client.set_model_version_tag(name, number, "alias", f"kept by version {now}, promoted in the meantime")
    is_champion = champion_of(client, name).version == number
    return f"models:/{name}@{CHAMPION}" if is_champion else f"models:/{name}/{number}"


def _new_version(client: MlflowClient, name: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> str:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id)
    return str(made.version)
