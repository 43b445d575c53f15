"""The library: what the command line does, as functions that return what they found."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from las_tune.cli.flags import make_specs, store_of
from las_tune.config import paths
from las_tune.config.study_spec import BY_LIBRARY, ELSEWHERE, StudySpec, model_name
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.inference.predictor import Predictor
from las_tune.results import StudyResult, TrainingResult
from las_tune.terminal.session import search, train_once
from las_tune.tracking.connection import undisturbed
from las_tune.tracking.packaging import fetch_detector

SETTINGS = {field.name for spec in (TrainSpec, StudySpec) for field in fields(spec)} - {
    "category", "train", "data_root", "textures", "results", "study", "run", "demo", "command", "extend",
}  # fmt: skip


def tune(
    category: str,
    *,
    data_root: str | Path = paths.DATA_ROOT,
    textures: str | Path = paths.TEXTURES,
    results: str | Path = paths.RESULTS,
    study: str | None = None,
    demo: bool = False,
    **settings: Any,
) -> StudyResult:
    """Search the hyperparameters of a category, as `python -m las_tune` does; the champion goes to MLflow.

    Args:
        category: a folder in data_root.
        data_root: folder of categories in the layout of MPDD.
        textures: folder of images that defects are painted with.
        results: folder of all studies; without tracking_uri also of the MLflow store.
        study: its name; that of a study that was cut off goes on with it. None: category and time.
        demo: render a small bracket_black, and search it with small settings.
        settings: fields of StudySpec (trials=16, gpus_per_trial=0.5, ...) and TrainSpec (epochs=20, ...).

    Raises: UserError, a ValueError, with one line for what is wrong.
    """
    spec = _spec(category, data_root, textures, results, study, demo, settings)
    with undisturbed():
        (summary,) = search([spec])["studies"]
    return StudyResult(summary, spec.folder)


def train(
    category: str,
    *,
    data_root: str | Path = paths.DATA_ROOT,
    textures: str | Path = paths.TEXTURES,
    results: str | Path = paths.RESULTS,
    study: str | None = None,
    demo: bool = False,
    **settings: Any,
) -> TrainingResult:
    """Train one detector without Ray and MLflow, as `python -m las_tune train` does.

    Args: as those of tune; settings are also the hyperparameters: adaptor_lr, discriminator_lr, alpha, beta_mean, ...
    """
    spec = _spec(category, data_root, textures, results, study, demo, settings)
    return TrainingResult(train_once(spec), spec.folder)


def load_champion(
    category: str, *, results: str | Path = paths.RESULTS, tracking_uri: str | Path = "", device: str = "cpu"
) -> Predictor:
    """The champion of a category, from MLflow's model registry.

    Args:
        category: of its studies.
        results: their folder, whose MLflow store is asked where tracking_uri is empty.
        tracking_uri: another store.
        device: cpu, cuda, or auto.

    Raises: UserError where there is none.
    """
    uri = store_of(os.fspath(tracking_uri), Path(results))
    with undisturbed():
        return Predictor(fetch_detector(f"models:/{model_name(category)}@champion", uri), device)


def _spec(
    category: str, data_root: str | Path, textures: str | Path, results: str | Path, study: str | None, demo: bool,
    settings: dict[str, Any],
) -> StudySpec:  # fmt: skip
    if unknown := sorted(settings.keys() - SETTINGS):
        known = f"Known: {', '.join(sorted(SETTINGS))}"
        raise UserError("settings must be fields of TrainSpec or StudySpec", ", ".join(unknown), known)
    if category == "all":
        raise UserError(
            "a call is about one category", "all", "python -m las_tune --category all searches them together"
        )
    if str(settings.get("address", "")).startswith(ELSEWHERE):
        raise UserError("address must be auto or HOST:6379", settings["address"], "use python -m las_tune submit")
    for name in settings.keys() & {"space", "storage", "tracking_uri"}:
        settings = settings | {name: os.fspath(settings[name])}
    if isinstance(settings.get("warm_start"), str):
        settings = settings | {"warm_start": (settings["warm_start"],)}
    (spec,) = make_specs(
        [category], Path(data_root), Path(textures), Path(results), study, demo, command=BY_LIBRARY, **settings
    )
    return spec
