"""Small detector files and MLflow models of them, for the tests of prediction, export and serving."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from las_tune.config.train_spec import TrainSpec
from las_tune.las.backbone import Backbone, load_backbone
from las_tune.las.checkpoint import save_detector
from las_tune.las.features import extract_features
from las_tune.las.head import Head
from las_tune.tracking.packaging import log_model
from tests.parts import empty_store

SIZE = 64
THRESHOLD = 0.5


def tiny_head(backbone: Backbone) -> Head:
    """Make a head whose norm is fitted to the features of noise, so that scores differ between images."""
    head = Head(backbone.channels, 16, torch.Generator().manual_seed(0))
    head.norm.momentum = 1.0
    noise = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    head(extract_features(backbone, noise))
    return head.eval()


def make_detector(path: Path, backbone: str = "resnet18", backbone_inside: bool = True) -> Path:
    """Write a detector file: EfficientNet-Lite0 with the weights of its package, others with random weights."""
    weights = "imagenet" if backbone == "efficientnet_lite0" else "random"
    spec = TrainSpec(image_size=SIZE, hidden_width=16, backbone=backbone, backbone_weights=weights)
    network = load_backbone(backbone, weights)
    about = {"category": "part", "threshold": THRESHOLD}
    save_detector(path, network, tiny_head(network).state_dict(), spec, about, backbone_inside)
    return path


def noise_images(number: int, height: int = 40, width: int = 52) -> NDArray[np.uint8]:
    """Return random images (N, height, width, 3) uint8."""
    return np.random.default_rng(0).integers(0, 256, (number, height, width, 3), np.uint8)


def save_images(folder: Path, images: NDArray[np.uint8]) -> list[Path]:
    """Write images as PNG and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03}.png" for index in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@dataclass(frozen=True)
class Store:
    """An MLflow store with one finished run."""

    root: Path
    uri: str
    run_id: str

    @classmethod
    def make(cls, root: Path) -> Store:
        """Create the store in an existing folder."""
        from mlflow import MlflowClient

        (root / "mlflow.db").write_bytes(empty_store())
        uri = f"sqlite:///{root / 'mlflow.db'}"
        client = MlflowClient(uri)
        experiment = client.create_experiment("parts", str(root / "mlartifacts"))
        run_id = client.create_run(experiment).info.run_id
        client.log_param(run_id, "alpha", 0.25)
        client.set_terminated(run_id)
        return cls(root, uri, run_id)

    def log(self, detector: Path) -> str:
        """Log a detector as the model of the run and return the model id."""
        return log_model(self.uri, self.run_id, detector, noise_images(2), "part")

    def folder(self, model_id: str) -> Path:
        """Return the folder of a model in the store."""
        from mlflow import MlflowClient

        return Path(MlflowClient(self.uri).get_logged_model(model_id).artifact_location.removeprefix("file://"))
