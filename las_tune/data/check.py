"""Read every file of a category once, and say what is there and what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from las_tune.data.category import GOOD, Category, ImageItem, find_duplicates, list_images, subfolders
from las_tune.data.images import Progress, decode_mask, describe_image
from las_tune.errors import DataError

_MASK_SIZE = 64
"""Side in pixels at which masks are looked at; a mask is never emptied by the resize."""


@dataclass(frozen=True)
class CheckRow:
    """What one folder of images holds."""

    part: str
    """train or test."""
    defect: str
    images: int
    masks: int
    sizes: tuple[str, ...]
    """Sizes found, upright, "width x height" in pixels: ("1024x1024",)."""
    kinds: tuple[str, ...]
    """File formats and Pillow modes found: ("PNG RGB",)."""


@dataclass(frozen=True)
class CategoryCheck:
    """A table of folders, and one line a problem; no problems, no lines."""

    rows: tuple[CheckRow, ...]
    problems: tuple[str, ...]


def check_category(category: Category, progress: Progress | None = None) -> CategoryCheck:
    """Read all images and masks of a category; nothing is raised for what is wrong, it is listed."""
    images = [*category.train, *category.test]
    seen: dict[tuple[str, str], list[_Seen]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        for index, looked in enumerate(pool.map(_look, images)):
            part, defect, _ = images[index].key.split("/")
            seen[part, defect].append(looked)
            if progress:
                progress(index + 1, len(images))
    rows = [
        CheckRow(
            part=part,
            defect=defect,
            images=len(group),
            masks=sum(one.has_mask for one in group),
            sizes=tuple(sorted({one.size for one in group if one.size})),
            kinds=tuple(sorted({one.kind for one in group if one.kind})),
        )
        for (part, defect), group in seen.items()
    ]
    problems = [one.problem for group in seen.values() for one in group if one.problem]
    return CategoryCheck(tuple(rows), (*problems, *_layout_problems(category)))


@dataclass(frozen=True)
class _Seen:
    """One image looked at; no size and kind where it is broken."""

    has_mask: bool
    size: str = ""
    kind: str = ""
    problem: str = ""


def _look(image: ImageItem) -> _Seen:
    """Read an image and its mask to their ends."""
    has_mask, size, kind, problem = image.mask is not None, "", "", ""
    try:
        (width, height), kind = describe_image(image.path)
        size = f"{width}x{height}"
        if image.mask and not decode_mask(image.mask, _MASK_SIZE, image.path).any():
            problem = f"A mask must mark its defect, got an empty one: {image.mask}. Draw the defect."
    except DataError as error:
        problem = str(error)
    return _Seen(has_mask, size, kind, problem)


def _layout_problems(category: Category) -> Iterator[str]:
    """Lines for masks that are missing or left over, and for images that are there twice."""
    missing = [image.key for image in category.test if image.defect != GOOD and image.mask is None]
    if missing and len(missing) < sum(image.defect != GOOD for image in category.test):
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        yield (
            f"Pixel metrics need a mask for every defective image, got none for {len(missing)} ({shown}). "
            "Add them to ground_truth/<defect>, or go without pixel metrics."
        )
    for mask in _masks_without_image(category):
        where = mask.relative_to(category.folder).as_posix()
        yield f"A mask must belong to an image of test/<defect>, got {where} alone. Rename or remove it."
    for keys in find_duplicates(category):
        yield f"An image must be there once, got the same file as {', '.join(keys)}. Keep one."


def _masks_without_image(category: Category) -> list[Path]:
    """Files in ground_truth/<defect> that no image is matched with; ground_truth/good is not looked at."""
    used = {image.mask for image in category.test}
    folders = [folder for folder in subfolders(category.folder / "ground_truth") if folder.name != GOOD]
    return [mask for folder in folders for mask in list_images(folder) if mask not in used]
