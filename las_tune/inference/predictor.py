"""Prediction: from images in any form to scores, verdicts and anomaly maps, for the MLflow model and `predict`."""

from __future__ import annotations

import base64
import binascii
import io
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from las_tune.data import BROKEN, square_image, without_pillow_warnings
from las_tune.errors import DataError, UserError
from las_tune.las import load_detector

BATCH_SIZE = 16


@dataclass(frozen=True)
class Prediction:
    """The prediction of a detector for one image."""

    score: float
    """Image score in [0, 1]; high = defective."""
    is_defective: bool
    anomaly_map: NDArray[np.float32]
    """(S, S) in [0, 1], for the image resized to S × S."""

    def _repr_png_(self) -> bytes:
        """Return the anomaly map as PNG, for notebooks."""
        file = io.BytesIO()
        Image.fromarray((self.anomaly_map * 255).astype(np.uint8)).save(file, "PNG")
        return file.getvalue()


class Predictor:
    """A detector with its threshold, which takes images in any form."""

    def __init__(self, detector_file: Path, device: str = "cpu") -> None:
        """Load a detector.

        Args:
            detector_file: file that save_detector wrote.
            device: cpu, cuda or auto. A GPU computes in bfloat16, so its scores differ slightly from those of a CPU.

        Raises: UserError if the device is not available, or the file is not a detector.
        """
        if device == "auto":  # a packaged model does not contain the training code that resolves "auto"
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError("Device cuda is not available: torch finds no GPU", remedy="Use device cpu")
        self.detector, self.spec, self.about = load_detector(detector_file, device)
        self.threshold = float(self.about["threshold"])
        self.device = device

    def predict(self, images: Sequence[Any], reads_paths: bool = True) -> Iterator[Prediction | DataError]:
        """Predict images one after another.

        Args:
            images: paths, encoded files as bytes or base64, or arrays (H, W, 3) uint8 RGB of any size.
            reads_paths: whether a string may be the path of a file.

        Yields: a Prediction for each image, in order; a DataError for an image that cannot be read.
        """
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(images), BATCH_SIZE):
                batch = images[start : start + BATCH_SIZE]
                names = [f"Image {index}" for index in range(start, start + len(batch))]
                with without_pillow_warnings():
                    squares = list(pool.map(self._read, batch, names, [reads_paths] * len(batch)))
                predictions = self._score([square for square in squares if not isinstance(square, DataError)])
                for square in squares:
                    yield square if isinstance(square, DataError) else next(predictions)

    def latency_ms(self, encoded: bytes) -> float:
        """Measure the median latency of one encoded image over 3 to 20 runs (about 2 s), after a warm-up run."""
        seconds: list[float] = []
        list(self.predict([encoded]))
        while len(seconds) < 3 or (len(seconds) < 20 and sum(seconds) < 2):
            start = time.perf_counter()
            list(self.predict([encoded]))
            seconds.append(time.perf_counter() - start)
        return 1000 * statistics.median(seconds)

    def _read(self, image: Any, name: str, reads_paths: bool) -> NDArray[np.uint8] | DataError:
        try:
            return read_image(image, self.spec.image_size, name, reads_paths)
        except DataError as error:
            return error

    def _score(self, squares: list[NDArray[np.uint8]]) -> Iterator[Prediction]:
        """Score images (3, S, S) uint8."""
        if not squares:
            return
        images = torch.from_numpy(np.stack(squares)).to(self.device).float() / 255
        scores, maps = (values.cpu() for values in self.detector(images))
        for score, anomaly_map in zip(scores.tolist(), maps.numpy(), strict=True):
            yield Prediction(score, score > self.threshold, anomaly_map)


def read_image(image: Any, size: int, name: str, reads_paths: bool = True) -> NDArray[np.uint8]:
    """Decode and resize an image in the same way as for training.

    Args:
        image: path, encoded file as bytes or base64 (or a data: URI), or array (H, W, 3) uint8 RGB.
        size: side in pixels.
        name: name of an image without a path, for errors.
        reads_paths: whether a string may be a path.

    Returns: (3, size, size) uint8 RGB.

    Raises: DataError for an image that cannot be read.
    """
    if isinstance(image, str):
        is_path = reads_paths and _is_file(image)
        image = Path(image) if is_path else _from_base64(image, name, reads_paths)
    if isinstance(image, os.PathLike):
        return _decode(Path(image), size, str(image))
    if isinstance(image, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(image), size, name)
    return square_image(Image.fromarray(_as_array(image, name)), size)


def _decode(source: Path | io.BytesIO, size: int, name: str) -> NDArray[np.uint8]:
    try:
        with Image.open(source) as image:
            return square_image(image, size)
    except BROKEN as error:
        text = getattr(error, "strerror", None) or str(error)
        text = text.replace(repr(source), "this file").replace(repr(str(source)), "this file")
        reason = " ".join(text.split()).rstrip(".") or type(error).__name__
        raise DataError(f"{name} could not be read: {reason}") from error


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # base64 text is too long for a file name
        return False


def _from_base64(text: str, name: str, reads_paths: bool) -> bytes:
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        expected = "neither an existing file nor" if reads_paths else "not"
        raise DataError(f"{name} is {expected} an image in base64: {text[:60]!r}") from error


def _as_array(image: Any, name: str) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8; nested lists of integers, as in JSON, are converted if they fit."""
    try:
        array = np.asarray(image)
    except ValueError as error:  # rows of several lengths
        raise _not_an_array(name, "a list with rows of different lengths") from error
    if isinstance(image, list) and array.dtype.kind == "i" and array.size and 0 <= array.min() <= array.max() <= 255:
        array = array.astype(np.uint8)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise _not_an_array(name, f"{type(image).__name__} {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def _not_an_array(name: str, received: str) -> DataError:
    return DataError(
        f"{name} is not an image: got {received}",
        remedy="Pass a path, an encoded image (bytes or base64), or an array (H, W, 3) uint8 RGB",
    )
