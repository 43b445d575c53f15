"""Check of a category: read every file once, and list what is there and what is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from las_tune.config import Progress
from las_tune.data.category import GOOD, Category, ImageItem, find_duplicates, list_images, subfolders
from las_tune.data.images import decode_mask, describe_image, without_pillow_warnings
from las_tune.errors import DataError

_MASK_SIZE = 64
"""Side in pixels to which masks are resized. The resize never empties a mask."""


@dataclass(frozen=True)
class CheckRow:
    """Contents of one folder of images."""

    part: str
    """train or test."""
    defect: str
    images: int
    masks: int
    sizes: tuple[str, ...]
    """Distinct upright sizes, "width x height" in pixels, such as ("1024x1024",)."""
    formats: tuple[str, ...]
    """Distinct file formats with their Pillow modes, such as ("PNG RGB",)."""


@dataclass(frozen=True)
class CategoryCheck:
    """Result of a check: one row per folder, and one line per problem."""

    rows: tuple[CheckRow, ...]
    problems: tuple[str, ...]


def check_category(category: Category, progress: Progress | None = None) -> CategoryCheck:
    """Read all images and masks of a category. Problems are listed, not raised."""
    images = [*category.train, *category.test]
    checks: dict[tuple[str, str], list[_ImageCheck]] = defaultdict(list)
    with without_pillow_warnings(), ThreadPoolExecutor() as pool:
        for index, check in enumerate(pool.map(_check_image, images)):
            part, defect, _ = images[index].key.split("/")
            checks[part, defect].append(check)
            if progress:
                progress(f"reading {category.name}", index + 1, len(images))
    rows = [
        CheckRow(
            part=part,
            defect=defect,
            images=len(group),
            masks=sum(check.has_mask for check in group),
            sizes=tuple(sorted({check.size for check in group if check.size})),
            formats=tuple(sorted({check.format for check in group if check.format})),
        )
        for (part, defect), group in checks.items()
    ]
    problems = [check.problem for group in checks.values() for check in group if check.problem]
    return CategoryCheck(tuple(rows), (*problems, *_layout_problems(category)))


@dataclass(frozen=True)
class _ImageCheck:
    """Result for one image. Size and format are empty if the file is broken."""

    has_mask: bool
    size: str = ""
    format: str = ""
    problem: str = ""


def _check_image(image: ImageItem) -> _ImageCheck:
    """Decode an image and its mask completely."""
    has_mask, size, format_, problem = image.mask is not None, "", "", ""
    try:
        (width, height), format_ = describe_image(image.path)
        size = f"{width}x{height}"
        if image.mask and not decode_mask(image.mask, _MASK_SIZE, image.path).any():
            problem = f"Mask {image.mask} is empty. Mark the defect, or remove the mask."
    except DataError as error:
        problem = str(error)
    return _ImageCheck(has_mask, size, format_, problem)


def _layout_problems(category: Category) -> Iterator[str]:
    """Yield one line per kind of missing mask, mask without an image, and duplicate image."""
    missing = [image.key for image in category.test if image.defect != GOOD and image.mask is None]
    if missing and len(missing) < sum(image.defect != GOOD for image in category.test):
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        yield (
            f"No mask for {len(missing)} of the defective images, so pixel metrics are left out: {shown}. "
            "Add the masks to ground_truth/<defect>."
        )
    for mask in _masks_without_image(category):
        where = mask.relative_to(category.folder).as_posix()
        yield f"Mask {where} has no image in test/<defect>. Rename or remove it."
    for keys in find_duplicates(category):
        yield f"Identical images: {', '.join(keys)}. Keep one of them."


def _masks_without_image(category: Category) -> list[Path]:
    """Return the masks in ground_truth/<defect> that match no image. ground_truth/good is ignored."""
    used = {image.mask for image in category.test}
    folders = [folder for folder in subfolders(category.folder / "ground_truth") if folder.name != GOOD]
    return [mask for folder in folders for mask in list_images(folder) if mask not in used]
