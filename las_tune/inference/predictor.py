"""From images in any form to scores, verdicts and anomaly maps: what the MLflow model and the command share."""

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

from las_tune.data.images import BROKEN, square_image
from las_tune.errors import DataError, UserError
from las_tune.las.checkpoint import load_detector

BATCH_SIZE = 16


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one image."""

    score: float
    """In [0, 1], high = defective."""
    is_defective: bool
    heat_map: NDArray[np.float32]
    """(S, S) in [0, 1], of the resized image."""

    def _repr_png_(self) -> bytes:
        """The anomaly map, as notebooks show it."""
        file = io.BytesIO()
        Image.fromarray((self.heat_map * 255).astype(np.uint8)).save(file, "PNG")
        return file.getvalue()


class Predictor:
    """A detector with its threshold, for images in any form."""

    def __init__(self, detector_file: Path, device: str = "cpu") -> None:
        """Args:
        detector_file: what save_detector wrote.
        device: cpu, cuda, or auto; GPUs work in bfloat16, so that their numbers differ a little.
        """
        if device == "auto":  # not by las.train, which a packaged model has no use for
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError("A model on device cuda needs a GPU", "none that torch can use", "use device cpu")
        self.detector, self.spec, self.about = load_detector(detector_file, device)
        self.threshold = float(self.about["threshold"])
        self.device = device

    def predict(self, images: Sequence[Any], reads_paths: bool = True) -> Iterator[Prediction | DataError]:
        """For each image, in order, what the detector says, or why it cannot be read.

        Args:
            images: paths, encoded files as bytes or base64, or arrays (H, W, 3) uint8 RGB of any size.
            reads_paths: whether text may be the path of a file.
        """
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(images), BATCH_SIZE):
                batch = images[start : start + BATCH_SIZE]
                names = [f"image {index}" for index in range(start, start + len(batch))]
                squares = list(pool.map(self._read, batch, names, [reads_paths] * len(batch)))
                predictions = self._score([square for square in squares if not isinstance(square, DataError)])
                for square in squares:
                    yield square if isinstance(square, DataError) else next(predictions)

    def latency_ms(self, encoded: bytes) -> float:
        """Median milliseconds from an encoded image to its prediction: 3 to 20 repeats in some 2 s, after one."""
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
        """Of images (3, S, S) uint8."""
        if not squares:
            return
        images = torch.from_numpy(np.stack(squares)).to(self.device).float() / 255
        scores, maps = (values.cpu() for values in self.detector(images))
        for score, heat_map in zip(scores.tolist(), maps.numpy(), strict=True):
            yield Prediction(score, score > self.threshold, heat_map)


def read_image(image: Any, size: int, name: str, reads_paths: bool = True) -> NDArray[np.uint8]:
    """An image in any form as (3, size, size) uint8 RGB, decoded and resized as images are for training.

    Args:
        image: path, encoded file as bytes or base64 (also a data: URI), or (H, W, 3) uint8 RGB.
        size: side in pixels.
        name: what an error calls an image that has no path.
        reads_paths: whether text may be a path.
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
        raise DataError("An image must be readable by Pillow", f"{name} ({reason})") from error


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # base64 is no file name: it is too long
        return False


def _from_base64(text: str, name: str, reads_paths: bool) -> bytes:
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        what = "the path of a file that is there, or " if reads_paths else ""
        raise DataError(
            f"An image given as text must be {what}an encoded image in base64", f"{name}: {text[:60]!r}"
        ) from error


def _as_array(image: Any, name: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8; whole numbers of JSON are taken for them where they fit."""
    try:
        array = np.asarray(image)
    except ValueError as error:  # rows of several lengths
        raise _not_an_array(name, "a list that is no array") from error
    if isinstance(image, list) and array.dtype.kind == "i" and array.size and 0 <= array.min() <= array.max() <= 255:
        array = array.astype(np.uint8)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or not array.size:
        raise _not_an_array(name, f"{type(image).__name__} {array.shape} {array.dtype}")
    return np.ascontiguousarray(array)


def _not_an_array(name: str, received: str) -> DataError:
    return DataError(
        "An image must be a path, an encoded image (bytes or base64), or an array (H, W, 3) uint8 RGB",
        f"{name}: {received}",
    )
