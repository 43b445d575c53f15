"""A category out of loose images: links in the MPDD layout, so that nothing is copied and nothing is moved."""

from __future__ import annotations

import glob
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from las_tune.data.category import GOOD, SUFFIXES, images_below, index_category, is_image, sha256_of
from las_tune.data.split import Split, seeded_rank, split_category
from las_tune.errors import DataError, UserError

TEST_SHARE = 0.2
"""Of the good images, kept for the test where there are defective ones to tell them from."""
FEW_GOOD, FEW_OF_EACH = 50, 20
"""Fewer of them work, and prove little: MPDD's smallest category has 54 to train on, and 26 good ones to test on."""


@dataclass(frozen=True)
class LaidOut:
    """A category that was made, and what is to be known of it."""

    folder: Path
    counts: dict[str, int]
    """Images by folder: {"train/good": 48, ...}."""
    duplicates: int
    """Files that are another one byte by byte, and were left out."""
    split: Split
    """What a study with the flags of `flags` would use them for."""
    flags: str
    warnings: tuple[str, ...]


def lay_out(folder: Path, good: Sequence[str], defective: Sequence[str], seed: int = 0) -> LaidOut:
    """Make a category of links to images.

    Args:
        folder: the category's, new or empty; its parent becomes --data-root.
        good: file names, folders or patterns (`**` reaches into folders) of good parts.
        defective: of defective parts.
        seed: decides which good images are kept for the test.

    Raises: UserError where the folder holds something, a pattern finds nothing, or there are too few images.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError("DIR must be a new folder, or an empty one", folder, "choose another")
    found = {GOOD: _find("--good", good), "defect": _find("--defective", defective)}
    both = found[GOOD].keys() & found["defect"].keys()
    if both:
        which = found[GOOD][min(both)][0]
        raise DataError("An image must be good or defective", f"{which}, which is both", "give narrower patterns")
    parts = {"train/good": [paths[0] for paths in found[GOOD].values()]}
    if found["defect"]:
        held_back = sorted(parts["train/good"], key=lambda path: seeded_rank(path.name, seed))
        cut = max(2, round(TEST_SHARE * len(held_back)))
        parts = {"train/good": held_back[cut:], "test/good": held_back[:cut]}
        parts["test/defect"] = [paths[0] for paths in found["defect"].values()]
    _link(folder, parts)
    flags = "" if found["defect"] else "--validation synthetic"
    try:
        category = index_category(folder.parent, folder.name)
        split = split_category(category, seed, validation="synthetic" if flags else "labelled")
    except UserError:
        _unlink(folder)
        raise
    counts = {part: len(paths) for part, paths in parts.items()}
    duplicates = sum(len(paths) - 1 for paths in (*found[GOOD].values(), *found["defect"].values()))
    return LaidOut(folder, counts, duplicates, split, flags, tuple(_warnings(counts)))


def _find(flag: str, patterns: Sequence[str]) -> dict[str, list[Path]]:
    """ImageItem files by their SHA-256, each with those that are the same byte by byte."""
    found: dict[str, list[Path]] = defaultdict(list)
    for pattern in patterns:
        names = glob.glob(str(Path(pattern).expanduser()), recursive=True)  # noqa: PTH207  # patterns may be absolute
        paths = [Path(name) for name in names]
        inside = [path for folder in paths if folder.is_dir() for path in images_below(folder)]
        images = sorted({path.absolute() for path in (*paths, *inside) if is_image(path)})
        if not images:
            endings = " ".join(sorted(SUFFIXES))
            raise DataError(f"{flag} must find images", repr(pattern), f"ImageItem files end in {endings}")
        for path in images:
            found[sha256_of(path)].append(path)
    return found


def _link(folder: Path, parts: dict[str, list[Path]]) -> None:
    """Links by the images' own names; of two with one name the second gets a number."""
    for part, paths in parts.items():
        place = folder / part
        place.mkdir(parents=True, exist_ok=True)
        taken: set[str] = set()
        for path in sorted(paths):
            name, number = path.name, 2
            while Path(name).stem.casefold() in taken:
                name, number = f"{path.stem}-{number}{path.suffix}", number + 1
            taken.add(Path(name).stem.casefold())
            (place / name).symlink_to(path)


def _unlink(folder: Path) -> None:
    """Take away what was made: links and folders, nothing else."""
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() else path.rmdir()
    folder.rmdir()


def _warnings(counts: dict[str, int]) -> list[str]:
    """What is so few that a study proves little with it."""
    told = []
    if counts["train/good"] < FEW_GOOD:
        told.append(f"{counts['train/good']} good images to train on are few: {FEW_GOOD} and more are better")
    if "test/defect" not in counts:
        told.append("without defective images the search is judged by painted defects, and so is its result")
    for part in ("test/good", "test/defect"):
        if counts.get(part, FEW_OF_EACH) < FEW_OF_EACH:
            told.append(f"{counts[part]} in {part} are few: intervals will be wide below {FEW_OF_EACH} of each kind")
    return told
