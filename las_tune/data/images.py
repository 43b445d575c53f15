"""Decode images and masks of all common formats to arrays. Errors name the file that cannot be read."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from las_tune.config import Progress
from las_tune.data.category import ImageItem
from las_tune.errors import DataError

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
"""Exceptions that Pillow raises for broken files, depending on where a file is broken."""

_SKIP = "Replace the file, or use --skip-broken to leave out broken images"
_LOSSY = ("JPEG", "MPO", "WEBP")


@dataclass(frozen=True)
class DecodedImages:
    """Images in memory, in the order of the index."""

    images: npt.NDArray[np.uint8]
    """(N, 3, S, S) uint8, RGB."""
    kept: tuple[ImageItem, ...]
    """Index entries of the N images."""
    skipped: tuple[str, ...]
    """One line per file that could not be read."""


def decode_images(
    images: Sequence[ImageItem],
    size: int,
    skip_broken: bool = False,
    progress: Progress | None = None,
    what: str = "reading images",
) -> DecodedImages:
    """Decode images to size × size pixels.

    Args:
        images: index entries of the images.
        size: side of the square in pixels.
        skip_broken: leave out files that cannot be read instead of raising.
        progress: called with `what` and the number of files read so far.
        what: description for `progress`.

    Raises: DataError for the first broken file, or if skip_broken leaves no image.
    """
    paths = [image.path for image in images]
    decoded, kept, skipped = decode_paths(paths, size, skip_broken=skip_broken, progress=progress, what=what)
    return DecodedImages(decoded, tuple(images[index] for index in kept), skipped)


def decode_paths(
    paths: Sequence[Path],
    size: int,
    *,
    crop: bool = False,
    skip_broken: bool = False,
    progress: Progress | None = None,
    what: str = "reading images",
) -> tuple[npt.NDArray[np.uint8], list[int], tuple[str, ...]]:
    """Decode files in parallel; see `decode_images` for the shared arguments.

    Args:
        crop: keep the aspect ratio (shorter side to size, center crop) instead of scaling both sides to size.

    Returns: (N, 3, S, S) uint8 images, the indices of the files that were read, one line per skipped file.
    """
    decoded = np.empty((len(paths), 3, size, size), np.uint8)
    kept: list[int] = []
    skipped: list[str] = []

    def decode(path: Path) -> npt.NDArray[np.uint8] | DataError:
        try:
            return decode_image(path, size, crop)
        except DataError as error:
            return error

    with without_pillow_warnings(), ThreadPoolExecutor() as pool:
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
                progress(what, index + 1, len(paths))
    if skipped and not kept:
        raise DataError(f"No image could be read ({len(skipped)} broken). First error: {skipped[0].rstrip('.')}")
    return decoded[: len(kept)], kept, tuple(skipped)


@contextmanager
def without_pillow_warnings() -> Iterator[None]:
    """Hide Pillow's warnings about unusual files that it can read.

    Warning filters are shared by all threads, so this must surround a thread pool, not a single image in a thread.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\b")
        yield


def decode_masks(images: Sequence[ImageItem], size: int) -> npt.NDArray[np.bool_]:
    """Return the masks (N, S, S) bool, True = defective.

    Images without a mask are all False, so call this only for a category that has all masks (Category.has_masks).
    """
    masks = np.zeros((len(images), size, size), np.bool_)
    with without_pillow_warnings():
        for index, image in enumerate(images):
            if image.mask is not None:
                masks[index] = decode_mask(image.mask, size, image.path)
    return masks


def decode_image(path: Path, size: int, crop: bool = False) -> npt.NDArray[np.uint8]:
    """Return one image as (3, size, size) uint8 RGB, resized by an antialiased bilinear filter.

    Raises: DataError with the name of the file if it cannot be read.
    """
    with _open(path) as image:
        return square_image(image, size, crop)


def square_image(image: Image.Image, size: int, crop: bool = False) -> npt.NDArray[np.uint8]:
    """Return an open image as (3, size, size) uint8 RGB. Training and prediction both use this function."""
    rgb = to_rgb(image)
    bilinear = Image.Resampling.BILINEAR
    square = ImageOps.fit(rgb, (size, size), bilinear) if crop else rgb.resize((size, size), bilinear)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def describe_image(path: Path) -> tuple[tuple[int, int], str]:
    """Read a file completely, and return its upright (width, height) in pixels and its format, such as "PNG RGB".

    Raises: DataError if the file is broken.
    """
    with _open(path) as image:
        format_ = f"{image.format} {image.mode}"
        return to_rgb(image).size, format_


def decode_mask(path: Path, size: int, image_path: Path) -> npt.NDArray[np.bool_]:
    """Return one mask as (size, size) bool, True = defective.

    Every color except black is defective. In lossy formats, where black is noisy, values of at least half the maximum
    are defective. A resized pixel is defective if at least half of its area is. If that empties the mask, every pixel
    that the defect touches is defective.

    Args:
        path: file of the mask.
        size: side of the square in pixels.
        image_path: file of the image, which must have the same size.

    Raises: DataError if a file cannot be read, or if their sizes differ.
    """
    with _open(path, "mask", "Replace the file, or remove it to run without pixel metrics") as image:
        lossy = image.format in _LOSSY
        values = _brightness(image)
    with _open(image_path) as image:
        width, height = _upright_size(image)
    if values.shape != (height, width):
        raise DataError(
            f"Mask {path} has {values.shape[1]}x{values.shape[0]} pixels, but image {image_path} has {width}x{height}",
            remedy="Save the mask with the size of its image",
        )
    marked = (values > 0) & (values >= values.max() / 2) if lossy else values > 0
    share = Image.fromarray(marked.astype(np.float32))
    small = np.asarray(share.resize((size, size), Image.Resampling.BOX))
    half = small >= 0.5 - 1e-6  # sums of float weights can be slightly below one half
    return half if half.any() else small > 0


@contextmanager
def _open(path: Path, what: str = "image", remedy: str = _SKIP) -> Iterator[Image.Image]:
    """Open the first frame of an image. Errors of Pillow in the block become a DataError."""
    try:
        with Image.open(path) as image:
            yield image
    except DataError:
        raise
    except BROKEN as error:
        text = " ".join(str(error).replace(repr(str(path)), "this file").split()).rstrip(".")
        raise DataError(f"Cannot read {what} {path}: {text or type(error).__name__}", remedy=remedy) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an upright RGB image. 16-bit gray is divided by 257 (65535 is white), whatever range the file uses."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray(_gray_to_8_bit(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise ValueError("float gray values have no defined white level; save the image with 8 or 16 bits")
    if image.has_transparency_data:
        # Colors of transparent pixels are arbitrary. A black background adds no bright edge to a cut-out part.
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return image.convert("RGB")


def _brightness(image: Image.Image) -> npt.NDArray[Any]:
    """Return the brightest channel (H, W) of the upright image, 0 = black; 16-bit and float gray unscaled."""
    if image.mode[0] in "IF":
        return np.asarray(ImageOps.exif_transpose(image))
    brightest: npt.NDArray[np.uint8] = np.asarray(to_rgb(image)).max(axis=2)
    return brightest


def _gray_to_8_bit(gray: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
    """Convert gray (H, W) in 0..65535 to uint8 with rounding. Raises ValueError outside that range (32-bit files)."""
    if gray.min() < 0 or gray.max() > 65535:
        raise ValueError("gray values beyond 16 bits have no defined white level; save the image with 8 or 16 bits")
    return ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) after EXIF rotation, from the header alone."""
    sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if sideways else image.size
