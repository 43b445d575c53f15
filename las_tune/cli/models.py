"""Commands that use a champion: look at images with it, hand it to another runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from las_tune.cli.flags import RECORD, Results, TrackingUri, flag, store_of
from las_tune.config import paths

MODEL_HELP = "URI of an MLflow model (models:/las-CATEGORY@champion), its folder, or a file best_model_CATEGORY.pth."
Model = Annotated[str, Parameter(help=MODEL_HELP)]
Images = Annotated[Path, Parameter(help="Files, or folders of images.")]
OutFolder = Annotated[
    Path | None, flag(RECORD, "Folder for predictions.csv and overlays.", "none: the table is printed")
]
OutFile = Annotated[Path | None, flag(RECORD, "The file.", "las-CATEGORY.onnx, .pt or .pt2 in this folder")]
Device = Annotated[
    Literal["cpu", "cuda", "auto"], Parameter(help="Where it runs; on a GPU the frozen network works in bfloat16.")
]
Kind = Annotated[Literal["onnx", "torchscript", "pt2"], Parameter(name="--format", help="Kind of file.")]


def predict(
    *images: Images,
    model: Model,
    out: OutFolder = None,
    device: Device = "cpu",
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
) -> None:
    """Tell defective images: a table with score and verdict, and anomaly maps over the images.

    An image that cannot be read has its reason in the column error; exit code 2 if none can be read.
    """
    from las_tune.errors import UserError
    from las_tune.inference.files import TABLE, find_images, predict_files, write_table
    from las_tune.inference.predictor import Predictor
    from las_tune.terminal.progress import progress_bar
    from las_tune.terminal.tables import print_lines

    if not images:
        raise UserError("predict must be given images", "none", "name files or folders")
    files = find_images(images, out)
    predictor = Predictor(_fetch(model, tracking_uri, results), device)
    with progress_bar() as progress:
        predicted = predict_files(predictor, files, out, lambda done: progress("images", done, len(files)))
    if out is None:
        write_table(predicted, sys.stdout)
        sys.stdout.flush()
    else:
        print_lines([f"predictions: {out / TABLE}"])
    num_read = len(predicted.rows) - len(predicted.errors)
    print(f"{num_read} images read, {predicted.num_defective} of them defective", file=sys.stderr)
    if predicted.errors:
        print(f"{len(predicted.errors)} could not be read:", *predicted.errors, sep="\n  ", file=sys.stderr)
    if not num_read:
        sys.exit(2)


def export(
    *,
    model: Model,
    kind: Kind,
    out: OutFile = None,
    results: Results = paths.RESULTS,
    tracking_uri: TrackingUri = "",
) -> None:
    """Write a champion for another runtime; the file is checked against it before it is kept.

    It takes images (B, 3, S, S) float32 in [0, 1], RGB, resized as in training, and gives score (B,) and heat_map
    (B, S, S). Threshold, image size and category are in its metadata.
    """
    from las_tune.inference.export import SUFFIXES, export_detector
    from las_tune.las.checkpoint import load_detector
    from las_tune.terminal.tables import print_lines

    detector, spec, about = load_detector(_fetch(model, tracking_uri, results))
    facts = {"category": about["category"], "threshold": about["threshold"], "backbone": spec.backbone}
    path = out or Path(f"las-{about['category']}{SUFFIXES[kind]}")
    difference = export_detector(detector, spec.image_size, facts, kind, path)
    print_lines(
        [
            f"{kind}: {path} ({path.stat().st_size / 1e6:.1f} MB)",
            f"input: images (B, 3, {spec.image_size}, {spec.image_size}) float32 in [0, 1], RGB",
            f"defective: score > {about['threshold']:g}",
            f"checked at batch sizes 1 and 3: at most {difference:.1g} from the detector",
        ]
    )


def _fetch(model: str, tracking_uri: str, results: Path) -> Path:
    """The detector's file; MLflow is loaded only where it is needed."""
    if Path(model).is_file():
        return Path(model)
    from las_tune.tracking.packaging import fetch_detector

    return fetch_detector(model, store_of(tracking_uri, results))
