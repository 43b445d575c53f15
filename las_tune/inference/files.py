"""Predictions of many files: a table, overlays, and what could not be read."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from las_tune.data.category import images_below
from las_tune.errors import DataError, UserError
from las_tune.inference.overlay import save_overlay
from las_tune.inference.predictor import Prediction, Predictor

COLUMNS = ("image", "score", "threshold", "is_defective", "error")
TABLE, OVERLAYS = "predictions.csv", "overlays"


@dataclass(frozen=True)
class Found:
    """One file to look at."""

    path: Path
    overlay: Path
    """Where its overlay goes, inside the folder of overlays; no two have the same."""


@dataclass
class Predicted:
    """What became of all files."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """One a file, by COLUMNS (and overlay); None where there is nothing to say."""

    @property
    def errors(self) -> list[str]:
        """One line a file that could not be read."""
        return [row["error"] for row in self.rows if row["error"]]

    @property
    def num_defective(self) -> int:
        """Files that were read and lie above the threshold."""
        return sum(row["is_defective"] is True for row in self.rows)


def find_images(given: Sequence[Path], out: Path | None = None) -> list[Found]:
    """Files as they are given, folders by all visible images below them but not below out, sorted; each once."""
    names: Counter[Path] = Counter()
    found: dict[Path, Found] = {}
    for start in given:
        inside = _images_below(start, out) if start.is_dir() else [start]
        if not inside:
            raise DataError("A folder of images must hold some", start, "Give the folder above them, or files")
        for path in inside:
            if path in found:
                continue
            name = path.relative_to(start) if start.is_dir() else Path(path.name)
            names[name] += 1
            unique = f"{name.name}-{names[name]}" if names[name] > 1 else name.name
            found[path] = Found(path, name.with_name(f"{unique}.jpg"))
    return list(found.values())


def _images_below(folder: Path, out: Path | None) -> list[Path]:
    """Overlays of an earlier run, in out, are no images of parts."""
    return [path for path in images_below(folder) if not (out and path.resolve().is_relative_to(out.resolve()))]


def predict_files(
    predictor: Predictor, files: Sequence[Found], out: Path | None, progress: Callable[[int], None]
) -> Predicted:
    """Look at every file, and go on past those that cannot be read.

    Args:
        predictor: the detector.
        files: what find_images gave.
        out: folder of predictions.csv and overlays; written as it goes. None: nothing is written.
        progress: called with the number of files done.
    """
    predicted = Predicted()
    with _writing(out) as table:
        writer = csv.DictWriter(table, [*COLUMNS, "overlay"]) if table else None
        if writer:
            writer.writeheader()
        for one, said in zip(files, predictor.predict([one.path for one in files]), strict=True):
            row = _row(one.path, said, predictor.threshold)
            if out and isinstance(said, Prediction):
                save_overlay(one.path, said.heat_map, predictor.threshold, out / OVERLAYS / one.overlay)
                row["overlay"] = str(Path(OVERLAYS) / one.overlay)
            if writer:
                writer.writerow(row)
            predicted.rows.append(row)
            progress(len(predicted.rows))
    return predicted


def write_table(predicted: Predicted, file: IO[str]) -> None:
    """The rows as CSV."""
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(predicted.rows)


def _row(path: Path, said: Prediction | DataError, threshold: float) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"image": str(path), "threshold": threshold}
    if isinstance(said, DataError):
        return row | {"error": str(said)}
    return row | {"score": said.score, "is_defective": said.is_defective}


@contextmanager
def _writing(out: Path | None) -> Iterator[IO[str] | None]:
    """The open table of a folder that is made; UserError where that fails."""
    if out is None:
        yield None
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
        with (out / TABLE).open("w", newline="", encoding="utf-8", buffering=1) as file:
            yield file
    except OSError as error:
        raise UserError("--out must be a folder that can be written to", f"'{error}'", "choose another") from error
