"""Commands that use a champion: look at pictures with it, hand it to another runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from las_tune import places
from las_tune.flags import RECORD, Results, TrackingUri, flag, store_of

MODEL_HELP = "URI of an MLflow model (models:/las-CATEGORY@champion), its folder, or a file best_model_CATEGORY.pth."
Model = Annotated[str, Parameter(help=MODEL_HELP)]
Pictures = Annotated[Path, Parameter(help="Files, or folders of pictures.")]
OutFolder = Annotated[
    Path | None, flag(RECORD, "Folder for predictions.csv and overlays.", "none: the table is printed")
]
OutFile = Annotated[Path | None, flag(RECORD, "The file.", "las-CATEGORY.onnx, .pt or .pt2 in this folder")]
Device = Annotated[
    Literal["cpu", "cuda", "auto"], Parameter(help="Where it runs; on a GPU the frozen network works in bfloat16.")
]
Kind = Annotated[Literal["onnx", "torchscript", "pt2"], Parameter(name="--format", help="Kind of file.")]


def predict(
    *pictures: Pictures,
    model: Model,
    out: OutFolder = None,
    device: Device = "cpu",
    results: Results = places.RESULTS,
    tracking_uri: TrackingUri = "",
) -> None:
    """Tell defective pictures: a table with score and verdict, and heat maps over the pictures.

    A picture that cannot be read has its reason in the column error; exit code 2 if none can be read.
    """
    from las_tune.console import progress_bar
    from las_tune.errors import UserError
    from las_tune.printing import print_lines
    from las_tune.tracking.predict import Predictor
    from las_tune.tracking.predict_files import TABLE, find_pictures, predict_files, write_table

    if not pictures:
        raise UserError("predict must be given pictures", "none", "name files or folders")
    files = find_pictures(pictures, out)
    predictor = Predictor(_fetch(model, tracking_uri, results), device)
    with progress_bar() as progress:
        predicted = predict_files(predictor, files, out, lambda done: progress("pictures", done, len(files)))
    if out is None:
        write_table(predicted, sys.stdout)
        sys.stdout.flush()
    else:
        print_lines([f"predictions: {out / TABLE}"])
    num_read = len(predicted.rows) - len(predicted.errors)
    print(f"{num_read} pictures read, {predicted.num_defective} of them defective", file=sys.stderr)
    if predicted.errors:
        print(f"{len(predicted.errors)} could not be read:", *predicted.errors, sep="\n  ", file=sys.stderr)
    if not num_read:
        sys.exit(2)


def export(
    *,
    model: Model,
    kind: Kind,
    out: OutFile = None,
    results: Results = places.RESULTS,
    tracking_uri: TrackingUri = "",
) -> None:
    """Write a champion for another runtime; the file is checked against it before it is kept.

    It takes pictures (B, 3, S, S) float32 in [0, 1], RGB, resized as in training, and gives score (B,) and heat_map
    (B, S, S). Threshold, image size and category are in its metadata.
    """
    from las_tune.las.checkpoint import load_detector
    from las_tune.las.export import SUFFIXES, export_detector
    from las_tune.printing import print_lines

    detector, spec, about = load_detector(_fetch(model, tracking_uri, results))
    facts = {"category": about["category"], "threshold": about["threshold"], "backbone": spec.backbone}
    path = out or Path(f"las-{about['category']}{SUFFIXES[kind]}")
    difference = export_detector(detector, spec.image_size, facts, kind, path)
    print_lines(
        [
            f"{kind}: {path} ({path.stat().st_size / 1e6:.1f} MB)",
            f"input: pictures (B, 3, {spec.image_size}, {spec.image_size}) float32 in [0, 1], RGB",
            f"defective: score > {about['threshold']:g}",
            f"checked at batch sizes 1 and 3: at most {difference:.1g} from the detector",
        ]
    )


def _fetch(model: str, tracking_uri: str, results: Path) -> Path:
    """The detector's file; MLflow is loaded only where it is needed."""
    if Path(model).is_file():
        return Path(model)
    from las_tune.tracking.package import fetch_detector

    return fetch_detector(model, store_of(tracking_uri, results))
