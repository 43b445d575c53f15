"""The champion as an MLflow model: images in, a table with score and verdict out.

MLflow stores this file itself (models from code), so no pickle is loaded with the model.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import set_model

from las_tune.errors import DataError
from las_tune.inference.predictor import Predictor


class Scoring:
    """predict, outside of MLflow's class: whatever that class defines is wrapped in a check that refuses arrays."""

    predictor: Predictor

    def predict(self, model_input: list[Any], params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score images. MLflow takes the signature from here; what is not a list is taken, too.

        Args:
            model_input: a list of paths, encoded images (bytes, or base64 as JSON has it) or arrays (H, W, 3) uint8
                RGB of any size; an array (N, H, W, 3); a table of one column. Served, a text is never a path.
            params: heat_map, True for that column.

        Returns: a row an image: score in [0, 1], threshold, is_defective, and if asked for heat_map, (S, S) floats in
            [0, 1] of the image as resized to S × S.
        """
        rows = []
        with_map = bool((params or {}).get("heat_map"))
        is_served = os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "").lower() in ("1", "true")
        for prediction in self.predictor.predict(as_list(model_input), reads_paths=not is_served):
            if isinstance(prediction, DataError):
                raise prediction
            row = {"score": prediction.score, "threshold": self.predictor.threshold}
            row |= {"is_defective": prediction.is_defective}
            rows.append(row | ({"heat_map": prediction.heat_map} if with_map else {}))
        columns = ["score", "threshold", "is_defective", *(["heat_map"] if with_map else [])]
        return pd.DataFrame(rows, columns=columns)


class LasModel(Scoring, mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A detector behind MLflow's predict."""

    def load_context(self, context: Any) -> None:
        """Load the detector that was logged with the model; the model's configuration may name another device."""
        device = (context.model_config or {}).get("device", "cpu")
        self.predictor = Predictor(Path(context.artifacts["detector"]), device)


def as_list(model_input: Any) -> Sequence[Any]:
    """The images of whatever predict was given, one by one."""
    if isinstance(model_input, pd.DataFrame):
        if model_input.shape[1] != 1:
            raise DataError("A table of images must have one column", f"{model_input.shape[1]} columns")
        return list(model_input.iloc[:, 0])
    if isinstance(model_input, str | bytes | bytearray | os.PathLike):
        return [model_input]
    if isinstance(model_input, np.ndarray) and model_input.ndim == 3:
        return [model_input]
    if isinstance(model_input, list | tuple | np.ndarray | pd.Series):
        return list(model_input)
    raise DataError("Images must come as a list, an array (N, H, W, 3) or a table", type(model_input).__name__)


set_model(LasModel())
