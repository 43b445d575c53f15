"""The champion as an MLflow model: pictures in, a table with score and verdict out.

MLflow stores this file itself (models from code), so no pickle is loaded with the model.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import infer_signature, set_model
from PIL import Image

from las_tune.data.pictures import square_picture
from las_tune.las.checkpoint import load_detector

# MLflow would read type hints of predict as a schema; it has the signature.
warnings.filterwarnings("ignore", message=".*Add type hints to the `predict` method")


class LasModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """A detector behind MLflow's predict."""

    def load_context(self, context: Any) -> None:
        """Load the detector that was logged with the model."""
        self.detector, self.spec, self.about = load_detector(Path(context.artifacts["detector"]))

    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # MLflow reads hints as a schema
        """Score pictures.

        Args:
            context: MLflow's.
            model_input: pictures as an array (N, H, W, 3) uint8 RGB of any size, a list of arrays (H, W, 3) uint8,
                of paths or of encoded bytes, or a table with one of these in its first column.
            params: none.

        Returns: a row a picture: score in [0, 1], threshold, is_defective.
        """
        if isinstance(model_input, pd.DataFrame):
            model_input = model_input.iloc[:, 0].tolist()
        rows = [self.score(picture) for picture in model_input]
        threshold = self.about["threshold"]
        return pd.DataFrame(
            {"score": rows, "threshold": threshold, "is_defective": [score > threshold for score in rows]}
        )

    def score(self, picture: Any) -> float:
        """The score of one picture."""
        square = square_picture(_open(picture), self.spec.image_size)
        scores, _ = self.detector(torch.from_numpy(square).unsqueeze(0).float() / 255)
        return float(scores[0])


def _open(picture: Any) -> Image.Image:
    if isinstance(picture, bytes):
        return Image.open(io.BytesIO(picture))
    if isinstance(picture, (str, Path)):
        return Image.open(picture)
    return Image.fromarray(np.asarray(picture, dtype=np.uint8))


def log_model(run_id: str, detector_file: Path, picture: np.ndarray[Any, Any]) -> str:
    """Log the detector as a model of a run, with signature and input example. Returns the id of the logged model.

    Args:
        run_id: the champion's run.
        detector_file: what save_detector wrote.
        picture: (H, W, 3) uint8 RGB, the input example.
    """
    example = np.stack([picture, picture])
    output = pd.DataFrame({"score": [0.5], "threshold": [0.5], "is_defective": [False]})
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="detector",
            python_model=__file__,
            artifacts={"detector": str(detector_file)},
            code_paths=[str(Path(__file__).parents[1])],
            signature=infer_signature(example, output),
            input_example=example,
            pip_requirements=["torch", "torchvision", "numpy", "pandas", "pillow", "scikit-learn", "mlflow"],
        )
    return str(info.model_id)


set_model(LasModel())
