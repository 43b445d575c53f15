"""Decode images and masks of any common kind to arrays, and say in one line which file cannot be read."""

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

from las_tune.data.category import ImageItem
from las_tune.errors import DataError

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

# What Pillow's readers let through, depending on where in its file an image is broken.
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

_SKIP = "Replace the file, or leave such images out with --skip-broken"
_LOSSY = ("JPEG", "MPO", "WEBP")


@dataclass(frozen=True)
class Decoded:
    """Images in memory, in the order in which they were asked for."""

    images: npt.NDArray[np.uint8]
    """(N, 3, S, S) uint8, RGB."""
    kept: tuple[ImageItem, ...]
    """N images, in the same order."""
    skipped: tuple[str, ...]
    """One line a file that could not be read."""


def decode_images(
    images: Sequence[ImageItem], size: int, skip_broken: bool = False, progress: Progress | None = None
) -> Decoded:
    """Decode images to size × size; DataError for the first broken one, or if skip_broken leaves none."""
    paths = [image.path for image in images]
    decoded, kept, skipped = decode_paths(paths, size, skip_broken=skip_broken, progress=progress)
    return Decoded(decoded, tuple(images[index] for index in kept), skipped)


def decode_paths(
    paths: Sequence[Path],
    size: int,
    *,
    crop: bool = False,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.uint8], list[int], tuple[str, ...]]:
    """Decode files in parallel: (N, 3, S, S) uint8, the indices of those kept, a line for each skipped.

    crop: keep the aspect (shorter side to size, center cropped) instead of squeezing it into the square.
    """
    decoded = np.empty((len(paths), 3, size, size), np.uint8)
    kept: list[int] = []
    skipped: list[str] = []

    def decode(path: Path) -> npt.NDArray[np.uint8] | DataError:
        try:
            return decode_image(path, size, crop)
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
        raise DataError("At least one image must be readable", f"{len(skipped)} broken ones", skipped[0].rstrip("."))
    return decoded[: len(kept)], kept, tuple(skipped)


def decode_masks(images: Sequence[ImageItem], size: int) -> npt.NDArray[np.bool_]:
    """Masks (N, S, S) bool, True = defective. All False without a mask: ask only where Category.has_masks."""
    masks = np.zeros((len(images), size, size), np.bool_)
    for index, image in enumerate(images):
        if image.mask is not None:
            masks[index] = decode_mask(image.mask, size, image.path)
    return masks


def decode_image(path: Path, size: int, crop: bool = False) -> npt.NDArray[np.uint8]:
    """One image as (3, size, size) uint8 RGB, resized by an antialiased bilinear filter.

    Raises DataError, naming the file, for whatever cannot be read.
    """
    with _open(path) as image:
        return square_image(image, size, crop)


def square_image(image: Image.Image, size: int, crop: bool = False) -> npt.NDArray[np.uint8]:
    """An open image as (3, size, size) uint8 RGB: the one way in which all images come in."""
    rgb = to_rgb(image)
    bilinear = Image.Resampling.BILINEAR
    square = ImageOps.fit(rgb, (size, size), bilinear) if crop else rgb.resize((size, size), bilinear)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def describe_image(path: Path) -> tuple[tuple[int, int], str]:
    """Upright (width, height) in pixels and kind ("PNG RGB") of a file, wholly read; DataError if broken."""
    with _open(path) as image:
        kind = f"{image.format} {image.mode}"
        return to_rgb(image).size, kind


def decode_mask(path: Path, size: int, image_path: Path) -> npt.NDArray[np.bool_]:
    """One mask as (size, size) bool, True = defective; it must be as large as its image, else DataError.

    Any color but black is defective; in lossy files, whose black is noisy, from half of the brightest up.
    A pixel is defective where at least half of the area that it covers is; a defect too small for that is
    kept wherever it touches, so that no mask is emptied by the resize.
    """
    with _open(path, "mask", "Replace the file, or remove it and go without pixel metrics") as image:
        lossy = image.format in _LOSSY
        values = _brightness(image)
    with _open(image_path) as image:
        width, height = _upright_size(image)
    if values.shape != (height, width):
        raise DataError(
            "A mask must be as large as its image",
            f"{values.shape[1]}x{values.shape[0]} ({path}) for {width}x{height} ({image_path})",
            "Save the mask at the size of its image",
        )
    marked = (values > 0) & (values >= values.max() / 2) if lossy else values > 0
    share = Image.fromarray(marked.astype(np.float32))
    small = np.asarray(share.resize((size, size), Image.Resampling.BOX))
    half = small >= 0.5 - 1e-6  # sums of float weights may fall short of one half by their rounding
    return half if half.any() else small > 0


@contextmanager
def _open(path: Path, what: str = "image", do: str = _SKIP) -> Iterator[Image.Image]:
    """Open an image at its first frame; whatever breaks inside the block becomes one DataError."""
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except BROKEN as error:
        text = " ".join(str(error).replace(repr(str(path)), "this file").split()).rstrip(".")
        raise DataError(
            f"{what.capitalize()} must be readable by Pillow", f"{path} ({text or type(error).__name__})", do
        ) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB. 16-bit gray is divided by 257 (65535 is white), whatever part of the range it uses."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray(_gray_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise ValueError("float grays have no agreed white; save it with 8 or 16 bits")
    if image.has_transparency_data:
        # Over black: what lies under transparency is arbitrary, and white would ring a cut-out part brightly.
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("RGB")


def _brightness(image: Image.Image) -> npt.NDArray[Any]:
    """Upright brightest channel (H, W), 0 = black; wide grays unscaled, so that 1 stays above 0."""
    if image.mode[0] in "IF":
        return np.asarray(ImageOps.exif_transpose(image))
    brightest: npt.NDArray[np.uint8] = np.asarray(to_rgb(image)).max(axis=2)
    return brightest


def _gray_to_8_bit(gray: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Gray (H, W) in 0..65535 to uint8, rounded; ValueError outside that range (32-bit files)."""
    if gray.min() < 0 or gray.max() > 65535:
        raise ValueError("grays beyond 16 bits have no agreed white; save it with 8 or 16 bits")
    return ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) after EXIF rotation, from the header alone."""
    sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if sideways else image.size
