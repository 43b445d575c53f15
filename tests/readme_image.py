"""The image at the top of the README: synthetic defects, and the anomaly map of a detector trained on them.

    python -m tests.readme_image FOLDER    # about a minute; writes .readme/las.png

Renders the parts of the demo into the folder and trains on them, so the image contains no data set.
"""

from __future__ import annotations

from pathlib import Path

import cyclopts
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from las_tune import train
from las_tune.config.train_spec import TrainSpec
from las_tune.data.demo_category import render_demo
from las_tune.data.images import square_image
from las_tune.data.textures import load_textures
from las_tune.inference.overlay import overlay
from las_tune.inference.predictor import Prediction
from las_tune.las.masks import otsu_foreground
from las_tune.las.synthesis import synthesize

SIZE = 256
OUT = Path(__file__).parents[1] / ".readme/las.png"


def main(folder: Path, epochs: int = 12) -> None:
    """Train a detector on the demo and draw the image."""
    parts, textures = folder / "parts", folder / "textures"
    render_demo(parts, textures)
    trained = train(
        "bracket_black", data_root=parts, textures=textures, results=folder / "results", epochs=epochs, image_size=SIZE,
        backbone="efficientnet_lite0", discriminator_lr=1e-3,
    )  # fmt: skip
    good = read(parts / "bracket_black/train/good/002.png")
    batch = torch.from_numpy(good.transpose(2, 0, 1).copy())[None].expand(4, -1, -1, -1)
    drawn = torch.from_numpy(load_textures(textures, SIZE, 0).images)
    generator = torch.Generator().manual_seed(3)
    synthetic = synthesize(batch, otsu_foreground(batch), drawn, TrainSpec(image_size=SIZE), generator)
    index = int(synthetic.masks.flatten(1).sum(1).argmax())
    predictor = trained.predictor()
    tested = sorted((parts / "bracket_black/test/hole").glob("*.png"))
    predictions = [prediction for prediction in predictor.predict(tested) if isinstance(prediction, Prediction)]
    best = max(range(len(predictions)), key=lambda index: predictions[index].score)
    defective = read(tested[best])
    panels = {
        "good part": good,
        "mask of a synthetic defect (α)": as_image(synthetic.masks[index].expand(3, -1, -1)),
        "synthetic defect (β) for training": as_image(synthetic.images[index]),
        "defective part of the test set": defective,
        f"score {predictions[best].score:.2f}, threshold {predictor.threshold:.2f}": overlay(
            defective, predictions[best].anomaly_map, predictor.threshold
        ),
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 3.3), dpi=80, layout="constrained")
    for axis, (title, image) in zip(axes, panels.items(), strict=True):
        axis.imshow(image)
        axis.set_title(title, fontsize=11)
        axis.axis("off")
    figure.savefig(OUT)
    print(OUT)


def as_image(tensor: torch.Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Convert (C, S, S) in [0, 1] to (S, S, C) uint8."""
    return (tensor.float().numpy().transpose(1, 2, 0) * 255).astype(np.uint8)


def read(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Read an image as (SIZE, SIZE, 3) uint8 RGB."""
    with Image.open(file) as image:
        return square_image(image, SIZE).transpose(1, 2, 0)


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
