"""The champion as an MLflow model: pictures in, a table with score and verdict out.

MLflow stores this file itself (models from code), so no pickle is loaded with the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature, infer_signature, set_model
from mlflow.types import Schema, TensorSpec
from PIL import Image

from las_tune.data.pictures import square_picture
from las_tune.las.checkpoint import load_detector


class LasModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A detector behind MLflow's predict."""

    def load_context(self, context: Any) -> None:
        """Load the detector that was logged with the model."""
        self.detector, self.spec, self.about = load_detector(Path(context.artifacts["detector"]))

    def predict(
        self,
        context: Any,
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Score pictures.

        Args:
            context: MLflow's.
            model_input: pictures as an array (N, H, W, 3) uint8 RGB, of any size.
            params: none.

        Returns: a row a picture: score in [0, 1], threshold, is_defective.
        """
        rows = [self.score(picture) for picture in model_input]
        threshold = self.about["threshold"]
        return pd.DataFrame(
            {"score": rows, "threshold": threshold, "is_defective": [score > threshold for score in rows]}
        )

    def score(self, picture: Any) -> float:
        """The score of one picture."""
        square = square_picture(Image.fromarray(np.asarray(picture, dtype=np.uint8)), self.spec.image_size)
        scores, _ = self.detector(torch.from_numpy(square).unsqueeze(0).float() / 255)
        return float(scores[0])


def log_model(run_id: str, detector_file: Path, picture: np.ndarray[Any, Any]) -> str:
    """Log the detector as a model of a run, with signature and input example. Returns the id of the logged model.

    Args:
        run_id: the champion's run.
        detector_file: what save_detector wrote.
        picture: (H, W, 3) uint8 RGB, the input example.
    """
    example = np.stack([picture, picture])
    any_size = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    output = pd.DataFrame({"score": [0.5], "threshold": [0.5], "is_defective": [False]})
    signature = ModelSignature(any_size, infer_signature(model_output=output).outputs)
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="detector",
            python_model=__file__,
            artifacts={"detector": str(detector_file)},
            code_paths=[str(Path(__file__).parents[1])],
            signature=signature,
            input_example=example,
            pip_requirements=["torch", "torchvision", "numpy", "pandas", "pillow", "scikit-learn", "mlflow"],
        )
    return str(info.model_id)


set_model(LasModel())
