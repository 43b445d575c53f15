"""Decode pictures and masks of any common kind to arrays, and say in one line which file cannot be read."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from las_tune.data.category import Picture
from las_tune.errors import DataError

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

# What Pillow's readers let through, depending on where in its file a picture is broken.
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# Pillow warns about odd files that it reads all the same. For the whole process: threads share the filters.
warnings.filterwarnings("ignore", module=r"PIL\b")

_SKIP = "Replace the file, or leave such pictures out with --skip-broken"
_LOSSY = ("JPEG", "MPO", "WEBP")


@dataclass(frozen=True)
class Decoded:
    """Pictures in memory, in the order in which they were asked for."""

    pictures: npt.NDArray[np.uint8]
    """(N, 3, S, S) uint8, RGB."""
    kept: tuple[Picture, ...]
    """N pictures, in the same order."""
    skipped: tuple[str, ...]
    """One line a file that could not be read."""


def decode_pictures(
    pictures: Sequence[Picture], size: int, skip_broken: bool = False, progress: Progress | None = None
) -> Decoded:
    """Decode pictures to size × size; DataError for the first broken one, or if skip_broken leaves none."""
    paths = [picture.path for picture in pictures]
    decoded, kept, skipped = decode_paths(paths, size, skip_broken=skip_broken, progress=progress)
    return Decoded(decoded, tuple(pictures[index] for index in kept), skipped)


def decode_paths(
    paths: Sequence[Path],
    size: int,
    *,
    crop: bool = False,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.uint8], list[int], tuple[str, ...]]:
    """Decode files in parallel: (N, 3, S, S) uint8, the indices of those kept, a line for each skipped.

    crop: keep the aspect (shorter side to size, centre cropped) instead of squeezing it into the square.
    """
    decoded = np.empty((len(paths), 3, size, size), np.uint8)
    kept: list[int] = []
    skipped: list[str] = []

    def decode(path: Path) -> npt.NDArray[np.uint8] | DataError:
        try:
            return decode_picture(path, size, crop)
        except DataError as error:
            return error

    with ThreadPoolExecutor() as pool:
        for index, result in enumerate(pool.map(decode, paths)):
            if not isinstance(result, DataError):
                decoded[len(kept)] = result
                kept.append(index)
            elif skip_broken:
                skipped.append(str(result))
            else:
                pool.shutdown(wait=False, cancel_futures=True)
                raise result
            if progress:
                progress(index + 1, len(paths))
    if skipped and not kept:
        raise DataError("At least one picture must be readable", f"{len(skipped)} broken ones", skipped[0].rstrip("."))
    return decoded[: len(kept)], kept, tuple(skipped)


def decode_masks(pictures: Sequence[Picture], size: int) -> npt.NDArray[np.bool_]:
    """Masks (N, S, S) bool, True = defective. All False without a mask: ask only where Category.has_masks."""
    masks = np.zeros((len(pictures), size, size), np.bool_)
    for index, picture in enumerate(pictures):
        if picture.mask is not None:
            masks[index] = decode_mask(picture.mask, size, picture.path)
    return masks


def decode_picture(path: Path, size: int, crop: bool = False) -> npt.NDArray[np.uint8]:
    """One picture as (3, size, size) uint8 RGB, resized by an antialiased bilinear filter.

    Raises DataError, naming the file, for whatever cannot be read.
    """
    with _open(path) as image:
        return square_picture(image, size, crop)


def square_picture(image: Image.Image, size: int, crop: bool = False) -> npt.NDArray[np.uint8]:
    """An open picture as (3, size, size) uint8 RGB: the one way in which all pictures come in."""
    rgb = to_rgb(image)
    bilinear = Image.Resampling.BILINEAR
    square = ImageOps.fit(rgb, (size, size), bilinear) if crop else rgb.resize((size, size), bilinear)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def describe_picture(path: Path) -> tuple[tuple[int, int], str]:
    """Upright (width, height) in pixels and kind ("PNG RGB") of a file, wholly read; DataError if broken."""
    with _open(path) as image:
        kind = f"{image.format} {image.mode}"
        return to_rgb(image).size, kind


def decode_mask(path: Path, size: int, picture_path: Path) -> npt.NDArray[np.bool_]:
    """One mask as (size, size) bool, True = defective; it must be as large as its picture, else DataError.

    Any colour but black is defective; in lossy files, whose black is noisy, from half of the brightest up.
    A pixel is defective where at least half of the area that it covers is; a defect too small for that is
    kept wherever it touches, so that no mask is emptied by the resize.
    """
    with _open(path, "mask", "Replace the file, or remove it and go without pixel metrics") as image:
        lossy = image.format in _LOSSY
        values = _brightness(image)
    with _open(picture_path) as picture:
        width, height = _upright_size(picture)
    if values.shape != (height, width):
        raise DataError(
            "A mask must be as large as its picture",
            f"{values.shape[1]}x{values.shape[0]} ({path}) for {width}x{height} ({picture_path})",
            "Save the mask at the size of its picture",
        )
    marked = (values > 0) & (values >= values.max() / 2) if lossy else values > 0
    share = Image.fromarray(marked.astype(np.float32))
    small = np.asarray(share.resize((size, size), Image.Resampling.BOX))
    half = small >= 0.5 - 1e-6  # sums of float weights may fall short of one half by their rounding
    return half if half.any() else small > 0


@contextmanager
def _open(path: Path, what: str = "picture", do: str = _SKIP) -> Iterator[Image.Image]:
    """Open a picture at its first frame; whatever breaks inside the block becomes one DataError."""
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except BROKEN as error:
        text = " ".join(str(error).replace(repr(str(path)), "this file").split()).rstrip(".")
        raise DataError(
            f"A {what} must be readable by Pillow", f"{path} ({text or type(error).__name__})", do
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB. 16-bit grey is divided by 257 (65535 is white), whatever part of the range it uses."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray(_grey_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise ValueError("float greys have no agreed white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        # Over black: what lies under transparency is arbitrary, and white would ring a cut-out part brightly.
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("RGB")


def _brightness(image: Image.Image) -> npt.NDArray[Any]:
    """Upright brightest channel (H, W), 0 = black; wide greys unscaled, so that 1 stays above 0."""
    if image.mode[0] in "IF":
        return np.asarray(ImageOps.exif_transpose(image))
    brightest: npt.NDArray[np.uint8] = np.asarray(to_rgb(image)).max(axis=2)
    return brightest


def _grey_to_8_bit(grey: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Grey (H, W) in 0..65535 to uint8, rounded; ValueError outside that range (32-bit files)."""
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("greys beyond 16 bits have no agreed white; save it with 8 or 16 bits")
    return ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after EXIF rotation, from the header alone."""
    sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if sideways else image.size
