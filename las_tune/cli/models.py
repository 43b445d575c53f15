"""Commands that use a champion: classify images, and export the detector."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from las_tune.cli.flags import Results, TrackingUri, flag
from las_tune.config import paths

MODEL_HELP = "URI of an MLflow model (models:/las-CATEGORY@champion), its folder, or a file best_model_CATEGORY.pth."
Model = Annotated[str, Parameter(help=MODEL_HELP)]
Images = Annotated[Path, Parameter(help="Image files, or folders of images.")]
OutFolder = Annotated[
    Path | None, flag("Results and record", "Folder for predictions.csv and overlays.", "none, the table is printed")
]
OutFile = Annotated[
    Path | None, flag("Results and record", "Output file.", "las-CATEGORY.onnx, .pt or .pt2 in this folder")
]
Device = Annotated[
    Literal["cpu", "cuda", "auto"],
    Parameter(help="Device to run on; on a GPU, the frozen network computes in bfloat16."),
]
Format = Annotated[Literal["onnx", "torchscript", "pt2"], Parameter(name="--format", help="File format.")]


def predict(
    *images: Images,
    model: Model,
    out: OutFolder = None,
    device: Device = "cpu",
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
) -> None:
    """Classify images as good or defective; writes a CSV and overlays.

    For an image that cannot be read, the column `error` holds the reason. Exit code 2 if no image can be read.
    """
    from las_tune.errors import UserError
    from las_tune.inference import TABLE, Predictor, find_images, predict_files, write_table
    from las_tune.terminal import print_lines, progress_bar

    if not images:
        raise UserError("predict needs at least one image", remedy="Pass image files or folders")
    files = find_images(images, out)
    predictor = Predictor(_fetch(model, tracking_uri, results), device)
    with progress_bar() as progress:
        predicted = predict_files(predictor, files, out, progress)
    if out is None:
        write_table(predicted, sys.stdout)
        sys.stdout.flush()
    else:
        print_lines([f"Predictions: {out / TABLE}"])
    num_read = len(predicted.rows) - len(predicted.errors)
    print(f"Images classified: {num_read}, of which defective: {predicted.num_defective}", file=sys.stderr)
    if predicted.errors:
        print(f"Unreadable images ({len(predicted.errors)}):", *predicted.errors, sep="\n  ", file=sys.stderr)
    if not num_read:
        sys.exit(2)


def export(
    *,
    model: Model,
    kind: Format,
    out: OutFile = None,
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
) -> None:
    """Export a champion to ONNX, TorchScript or PT2; the file is verified against the detector.

    Input: images (B, 3, S, S), float32 in [0, 1], RGB, resized as in training. Output: score (B,) and anomaly_map
    (B, S, S). Threshold, image size and category are in the metadata of the file.
    """
    from las_tune.inference import SUFFIXES, export_detector
    from las_tune.las import load_detector
    from las_tune.terminal import print_lines

    detector, spec, about = load_detector(_fetch(model, tracking_uri, results))
    facts = {"category": about["category"], "threshold": about["threshold"], "backbone": spec.backbone}
    path = out or Path(f"las-{about['category']}{SUFFIXES[kind]}")
    difference = export_detector(detector, spec.image_size, facts, kind, path)
    print_lines(
        [
            f"{kind}: {path} ({path.stat().st_size / 1e6:.1f} MB)",
            f"Input: images (B, 3, {spec.image_size}, {spec.image_size}), float32 in [0, 1], RGB",
            f"Defective: score > {about['threshold']:g}",
            f"Verified at batch sizes 1 and 3: maximum difference from the detector {difference:.1g}",
        ]
    )


def _fetch(model: str, tracking_uri: str, results: Path) -> Path:
    """Return the detector's file. MLflow is imported only if the model is not a local file."""
    if Path(model).is_file():
        return Path(model)
    from las_tune.tracking import fetch_detector

    return fetch_detector(model, paths.store_uri(tracking_uri, results))
