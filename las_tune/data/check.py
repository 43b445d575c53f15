"""Read every file of a category once, and say what is there and what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from las_tune.data.category import GOOD, Category, Picture, find_duplicates, list_pictures, subfolders
from las_tune.data.pictures import Progress, decode_mask, describe_picture
from las_tune.errors import DataError

_MASK_SIZE = 64
"""Side in pixels at which masks are looked at; a mask is never emptied by the resize."""


@dataclass(frozen=True)
class CheckRow:
    """What one folder of pictures holds."""

    part: str
    """train or test."""
    defect: str
    pictures: int
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
    """Read all pictures and masks of a category; nothing is raised for what is wrong, it is listed."""
    pictures = [*category.train, *category.test]
    seen: dict[tuple[str, str], list[_Seen]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        for index, looked in enumerate(pool.map(_look, pictures)):
            part, defect, _ = pictures[index].key.split("/")
            seen[part, defect].append(looked)
            if progress:
                progress(index + 1, len(pictures))
    rows = [
        CheckRow(
            part=part,
            defect=defect,
            pictures=len(group),
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
    """One picture looked at; no size and kind where it is broken."""

    has_mask: bool
    size: str = ""
    kind: str = ""
    problem: str = ""


def _look(picture: Picture) -> _Seen:
    """Read a picture and its mask to their ends."""
    has_mask, size, kind, problem = picture.mask is not None, "", "", ""
    try:
        (width, height), kind = describe_picture(picture.path)
        size = f"{width}x{height}"
        if picture.mask and not decode_mask(picture.mask, _MASK_SIZE, picture.path).any():
            problem = f"A mask must mark its defect, got an empty one: {picture.mask}. Draw the defect."
    except DataError as error:
        problem = str(error)
    return _Seen(has_mask, size, kind, problem)


def _layout_problems(category: Category) -> Iterator[str]:
    """Lines for masks that are missing or left over, and for pictures that are there twice."""
    missing = [picture.key for picture in category.test if picture.defect != GOOD and picture.mask is None]
    if missing and len(missing) < sum(picture.defect != GOOD for picture in category.test):
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        yield (
            f"Pixel metrics need a mask for every defective picture, got none for {len(missing)} ({shown}). "
            "Add them to ground_truth/<defect>, or go without pixel metrics."
        )
    for mask in _masks_without_picture(category):
        where = mask.relative_to(category.folder).as_posix()
        yield f"A mask must belong to a picture of test/<defect>, got {where} alone. Rename or remove it."
    for keys in find_duplicates(category):
        yield f"A picture must be there once, got the same file as {', '.join(keys)}. Keep one."


def _masks_without_picture(category: Category) -> list[Path]:
    """Files in ground_truth/<defect> that no picture is matched with; ground_truth/good is not looked at."""
    used = {picture.mask for picture in category.test}
    folders = [folder for folder in subfolders(category.folder / "ground_truth") if folder.name != GOOD]
    return [mask for folder in folders for mask in list_pictures(folder) if mask not in used]
