"""Make a category from loose images: links in the MPDD layout. Nothing is copied or moved."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from las_tune.data.category import SUFFIXES, images_below, index_category, is_image, sha256_of
from las_tune.data.split import Split, seeded_rank, split_category
from las_tune.errors import DataError, UserError, require

TEST_SHARE = 0.2
"""Fraction of the good images kept for the test, if there are defective images."""
FEW_GOOD, FEW_TEST = 50, 20
"""Fewer images cause a warning. The smallest MPDD category has 54 for training and 26 good ones for the test."""


@dataclass(frozen=True)
class CategoryLayout:
    """A new category, with counts and warnings for the user."""

    folder: Path
    counts: dict[str, int]
    """Images by folder: {"train/good": 48, ...}."""
    duplicates: int
    """Number of files that were left out because they are identical to another one."""
    split: Split
    """How a study with the flags in `flags` splits the images."""
    flags: str
    """Flags that a study of this category needs."""
    warnings: tuple[str, ...]


def lay_out(folder: Path, good: Sequence[str], defective: Sequence[str], seed: int = 0) -> CategoryLayout:
    """Make a category of links to images.

    Args:
        folder: folder of the category, new or empty; its parent becomes --data-root.
        good: files, folders or patterns (`**` includes subfolders) of good parts.
        defective: the same for defective parts.
        seed: decides which good images are kept for the test.

    Raises: UserError if the folder is not empty; DataError if a pattern matches nothing, an image is both good and
        defective, or there are too few images.
    """
    require(
        not folder.exists() or (folder.is_dir() and not any(folder.iterdir())),
        f"{folder} is not empty",
        remedy="Choose a new or an empty folder",
    )
    good_images, defective_images = _find("--good", good), _find("--defective", defective)
    both = good_images.keys() & defective_images.keys()
    if both:
        raise DataError(
            f"{good_images[min(both)][0]} is both good and defective", remedy="Make --good and --defective disjoint"
        )
    parts = _parts(good_images, defective_images, seed)
    _link(folder, parts)
    flags = "" if defective_images else "--validation synthetic"
    try:
        category = index_category(folder.parent, folder.name)
        split = split_category(category, seed, validation="synthetic" if flags else "labelled")
    except UserError:
        _unlink(folder)
        raise
    counts = {part: len(paths) for part, paths in parts.items()}
    duplicates = sum(len(paths) - 1 for paths in (*good_images.values(), *defective_images.values()))
    return CategoryLayout(folder, counts, duplicates, split, flags, tuple(_warnings(counts)))


def _parts(good: dict[str, list[Path]], defective: dict[str, list[Path]], seed: int) -> dict[str, list[Path]]:
    """Return the images of each folder of the category."""
    images = [paths[0] for paths in good.values()]
    if not defective:
        return {"train/good": images}
    images.sort(key=lambda path: seeded_rank(path.name, seed))
    cut = max(2, round(TEST_SHARE * len(images)))
    return {
        "train/good": images[cut:],
        "test/good": images[:cut],
        "test/defect": [paths[0] for paths in defective.values()],
    }


def _find(flag: str, patterns: Sequence[str]) -> dict[str, list[Path]]:
    """Return the matching image files by SHA-256, identical files together."""
    found: dict[str, list[Path]] = defaultdict(list)
    for pattern in patterns:
        names = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207  # patterns may be absolute
        paths = [Path(name) for name in names]
        inside = [path for folder in paths if folder.is_dir() for path in images_below(folder)]
        images = sorted({path.absolute() for path in (*paths, *inside) if is_image(path)})
        require(
            images,
            f"{flag} {pattern!r} matches no images",
            remedy=f"Supported formats are {' '.join(sorted(SUFFIXES))}",
            error=DataError,
        )
        for path in images:
            found[sha256_of(path)].append(path)
    return found


def _link(folder: Path, parts: dict[str, list[Path]]) -> None:
    """Create links with the names of the images. A number is appended to names that occur twice."""
    for part, paths in parts.items():
        part_folder = folder / part
        part_folder.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for path in sorted(paths):
            name, number = path.name, 2
            while Path(name).stem.casefold() in taken:
                name, number = f"{path.stem}-{number}{path.suffix}", number + 1
            taken.add(Path(name).stem.casefold())
            (part_folder / name).symlink_to(path)


def _unlink(folder: Path) -> None:
    """Remove the links and folders that `_link` created, and nothing else."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() else path.rmdir()
    folder.rmdir()


def _warnings(counts: dict[str, int]) -> list[str]:
    """Return one line for each folder with too few images for reliable results."""
    lines = []
    if counts["train/good"] < FEW_GOOD:
        lines.append(f"{counts['train/good']} good images for training; at least {FEW_GOOD} are recommended")
    if "test/defect" not in counts:
        lines.append("without defective images, model selection and the final test use synthetic defects")
    for part in ("test/good", "test/defect"):
        if counts.get(part, FEW_TEST) < FEW_TEST:
            lines.append(f"{counts[part]} images in {part}; confidence intervals are wide below {FEW_TEST}")
    return lines
