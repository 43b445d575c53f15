"""Prediction of many image files: a CSV table with scores, verdicts and errors, and overlays."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from las_tune.config import Progress
from las_tune.data import images_below
from las_tune.errors import DataError, UserError, type_and_message
from las_tune.inference.overlay import save_overlay
from las_tune.inference.predictor import Prediction, Predictor

COLUMNS = ("image", "score", "threshold", "is_defective", "error")
TABLE, OVERLAYS = "predictions.csv", "overlays"


@dataclass(frozen=True)
class ImageFile:
    """An image file and its overlay."""

    path: Path
    overlay: Path
    """Path of the overlay relative to the overlay folder; unique among the files."""


@dataclass
class PredictionTable:
    """Predictions of many files."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One row per file, with COLUMNS and optionally `overlay`; None for an absent value."""

    @property
    def errors(self) -> list[str]:
        """Return one line for each file that could not be read."""
        return [row["error"] for row in self.rows if row["error"]]

    @property
    def num_defective(self) -> int:
        """Return the number of files with a score above the threshold."""
        return sum(row["is_defective"] is True for row in self.rows)


def find_images(paths: Sequence[Path], out: Path | None = None) -> list[ImageFile]:
    """Return files, and all visible images below folders, sorted within a folder and without duplicates.

    Args:
        paths: files and folders.
        out: folder of earlier results, which is skipped: its overlays are not input images.

    Raises: DataError for a folder without images.
    """
    names: Counter[Path] = Counter()
    found: dict[Path, ImageFile] = {}
    for start in paths:
        inside = _images_below(start, out) if start.is_dir() else [start]
        if not inside:
            raise DataError(f"There are no images in {start}", remedy="Pass image files, or a folder with images")
        for path in inside:
            if path in found:
                continue
            name = path.relative_to(start) if start.is_dir() else Path(path.name)
            names[name] += 1
            unique = f"{name.name}-{names[name]}" if names[name] > 1 else name.name
            found[path] = ImageFile(path, name.with_name(f"{unique}.jpg"))
    return list(found.values())


def _images_below(folder: Path, out: Path | None) -> list[Path]:
    return [path for path in images_below(folder) if not (out and path.resolve().is_relative_to(out.resolve()))]


def predict_files(
    predictor: Predictor, files: Sequence[ImageFile], out: Path | None, progress: Progress
) -> PredictionTable:
    """Predict every file. A file that cannot be read becomes a row with an error.

    Args:
        predictor: the detector.
        files: files from find_images.
        out: folder for predictions.csv and overlays, written row by row; None writes nothing.
        progress: called after each file.

    Raises: UserError if `out` cannot be written to.
    """
    table = PredictionTable()
    with _open_table(out) as csv_file:
        writer = csv.DictWriter(csv_file, [*COLUMNS, "overlay"]) if csv_file else None
        if writer:
            writer.writeheader()
        for file, prediction in zip(files, predictor.predict([file.path for file in files]), strict=True):
            row = _row(file.path, prediction, predictor.threshold)
            if out and isinstance(prediction, Prediction):
                save_overlay(file.path, prediction.anomaly_map, predictor.threshold, out / OVERLAYS / file.overlay)
                row["overlay"] = str(Path(OVERLAYS) / file.overlay)
            if writer:
                writer.writerow(row)
            table.rows.append(row)
            progress("images", len(table.rows), len(files))
    return table


def write_table(table: PredictionTable, file: IO[str]) -> None:
    """Write the rows as CSV."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(table.rows)


def _row(path: Path, prediction: Prediction | DataError, threshold: float) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"image": str(path), "threshold": threshold}
    if isinstance(prediction, DataError):
        return row | {"error": str(prediction)}
    return row | {"score": prediction.score, "is_defective": prediction.is_defective}


@contextmanager
def _open_table(out: Path | None) -> Iterator[IO[str] | None]:
    """Create the folder and open its table. Raises UserError if that or a later write fails."""
    if out is None:
        yield None
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / TABLE).open("w", newline="", encoding="utf-8", buffering=1) as file:
            yield file
    except OSError as error:
        problem = f"--out {out} is not writable: {type_and_message(error)}"
        raise UserError(problem, remedy="Choose another folder") from error
