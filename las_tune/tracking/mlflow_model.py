"""The champion as an MLflow model: takes images, returns a table with score and verdict.

MLflow stores this file with the model ("models from code"), so that loading a model runs no pickle.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import set_model

from las_tune.errors import DataError
from las_tune.inference import Predictor


class Scoring:
    """Base class with `predict`: MLflow wraps a `predict` of the model class itself in a check that rejects arrays."""

    predictor: Predictor

    def predict(self, model_input: list[Any], params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score images. MLflow derives the model's signature from the type hints; inputs other than lists work, too.

        Args:
            model_input: a list of paths, encoded images (bytes, or base64 as in JSON) or arrays (H, W, 3) uint8
                RGB of any size; or an array (N, H, W, 3); or a table of one column. A served model reads no paths.
            params: anomaly_map, True for that column. heat_map, its name in version 0.1.0, is deprecated.

        Returns: one row per image: score in [0, 1], threshold, is_defective and, if requested, anomaly_map, (S, S)
            floats in [0, 1] for the image resized to S × S.
        """
        rows = []
        map_column = _map_column(params or {})
        is_served = os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "").lower() in ("1", "true")
        for prediction in self.predictor.predict(as_list(model_input), reads_paths=not is_served):
            if isinstance(prediction, DataError):
                raise prediction
            row = {"score": prediction.score, "threshold": self.predictor.threshold}
            row |= {"is_defective": prediction.is_defective}
            rows.append(row | dict.fromkeys(map_column, prediction.anomaly_map))
        columns = ["score", "threshold", "is_defective", *map_column]
        return pd.DataFrame(rows, columns=columns)


class LasModel(Scoring, mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """MLflow's wrapper of a detector."""

    def load_context(self, context: Any) -> None:
        """Load the detector that was logged with the model, on the device that the model's configuration names."""
        device = (context.model_config or {}).get("device", "cpu")
        self.predictor = Predictor(Path(context.artifacts["detector"]), device)


def _map_column(params: dict[str, Any]) -> list[str]:
    """Return the column of the anomaly map as a list; empty if it was not requested."""
    if params.get("anomaly_map"):
        return ["anomaly_map"]
    if params.get("heat_map"):
        warnings.warn("The parameter heat_map is deprecated. Use anomaly_map.", DeprecationWarning, stacklevel=3)
        return ["heat_map"]
    return []


def as_list(model_input: Any) -> Sequence[Any]:
    """Return the input of `predict` as a sequence of images.

    Raises: DataError for a type that holds no images.
    """
    if isinstance(model_input, pd.DataFrame):
        if model_input.shape[1] != 1:
            num_columns = model_input.shape[1]
            raise DataError(f"A table of images must have one column, got {num_columns}", remedy="Select the column")
        return list(model_input.iloc[:, 0])
    if isinstance(model_input, str | bytes | bytearray | os.PathLike):
        return [model_input]
    if isinstance(model_input, np.ndarray) and model_input.ndim == 3:
        return [model_input]
    if isinstance(model_input, list | tuple | np.ndarray | pd.Series):
        return list(model_input)
    problem = f"Images must be a list, an array (N, H, W, 3) or a table, got {type(model_input).__name__}"
    raise DataError(problem, remedy="Pass a list of paths, bytes or arrays")


set_model(LasModel())
