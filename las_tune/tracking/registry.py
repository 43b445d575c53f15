"""MLflow's model registry: the registered champion of a category, and how a new version replaces it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from las_tune.config import known_hyperparameters, model_name
from las_tune.tracking.packaging import log_model

CHAMPION = "champion"
"""Alias of the registered champion."""
ABSENT_CODES = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's error codes for a missing model and for a missing alias."""


@dataclass(frozen=True)
class RegisteredChampion:
    """The version with the alias `champion`: its number and tags; both are empty if there is none."""

    version: str = ""
    tags: dict[str, str] = field(default_factory=dict)

    def hyperparameters(self, demo: bool) -> dict[str, Any] | None:
        """Return the hyperparameters that differ from the baseline, for retraining alongside the finalists.

        Args:
            demo: whether the new study is a demo; demos and other studies are not compared.

        Returns: None if there is no comparable champion, or it is the baseline.
        """
        if "hyperparameters" not in self.tags or self.tags.get("demo") != str(demo).lower():
            return None
        return known_hyperparameters(json.loads(self.tags["hyperparameters"]))


def get_registered_champion(client: MlflowClient, model_name: str) -> RegisteredChampion:
    """Return the version that has the alias `champion` now."""
    try:
        version = client.get_model_version_by_alias(model_name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ABSENT_CODES:
            raise
        return RegisteredChampion()
    return RegisteredChampion(str(version.version), dict(version.tags))


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
    registered_version: str,
) -> str:
    """Log a detector as a model of a run and register it. A repetition changes nothing.

    Args:
        client: client of the store.
        tracking_uri: URI of the store.
        run_id: the run that the detector was trained in.
        detector: file of the detector.
        example: .npy file of two images, (2, H, W, 3) uint8 RGB.
        category: category; the model is named las-<category>.
        tags: tags of the version.
        version: create a version; otherwise the detector is only logged.
        promote: move the alias `champion` to that version.
        registered_version: the version that had the alias when the promotion was decided. If the alias has moved since,
            it stays there.

    Returns: the URI that loads the model.
    """
    model_id = log_model(tracking_uri, run_id, Path(detector), np.load(example, allow_pickle=False), category)
    name = model_name(category)
    if not version:
        return f"models:/{name}@{CHAMPION}"
    existing = [found for found in client.search_model_versions(f"run_id = '{run_id}'") if found.name == name]
    number = str(existing[0].version) if existing else _create_version(client, name, model_id, run_id, tags)
    if promote:
        _promote(client, name, number, registered_version)
    is_champion = get_registered_champion(client, name).version == number
    return f"models:/{name}@{CHAMPION}" if is_champion else f"models:/{name}/{number}"


def _promote(client: MlflowClient, name: str, number: str, registered_version: str) -> None:
    now = get_registered_champion(client, name).version
    if now == registered_version:
        client.set_registered_model_alias(name, CHAMPION, number)
    elif now != number:
        client.set_model_version_tag(name, number, "alias", f"kept by version {now}, promoted in the meantime")


def _create_version(client: MlflowClient, name: str, model_id: str, run_id: str, tags: Mapping[str, str]) -> str:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=dict(tags), model_id=model_id
    )
    return str(version.version)
