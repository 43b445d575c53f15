"""Index of one category in the MPDD/MVTec layout: its images and their masks."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from las_tune.errors import DataError, UserError

GOOD = "good"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LAYOUT = "<data-root>/<category>/train/good, test/good, test/<defect>, ground_truth/<defect>"


@dataclass(frozen=True)
class ImageItem:
    """One entry of the index: an image of a part, with its defect type and mask."""

    path: Path
    defect: str
    """Defect type, the name of the image's folder; "good" for a part without a defect."""
    mask: Path | None = None
    """Mask file that marks the defect; None for good parts and for defective parts without a mask."""

    @property
    def key(self) -> str:
        """Name of the image inside its category, such as "test/rust/000.png", the same on every machine."""
        return "/".join(self.path.parts[-3:])


@dataclass(frozen=True)
class Category:
    """All images of one category, each tuple sorted by key."""

    name: str
    folder: Path
    train: tuple[ImageItem, ...]
    """train/good."""
    test: tuple[ImageItem, ...]
    """test/good and test/<defect>; may be empty."""

    @property
    def defects(self) -> tuple[str, ...]:
        """Sorted defect types of the test images, without "good"."""
        return tuple(sorted({image.defect for image in self.test} - {GOOD}))

    @property
    def masks_missing(self) -> int:
        """Number of defective images without a mask."""
        return sum(image.defect != GOOD and image.mask is None for image in self.test)

    @property
    def has_masks(self) -> bool:
        """Whether there are defective images and all of them have a mask, as pixel metrics require."""
        return bool(self.defects) and self.masks_missing == 0


def list_categories(data_root: Path) -> list[str]:
    """Return the sorted names of the folders that contain train/good.

    Raises: DataError if there are none.
    """
    names = [folder.name for folder in subfolders(data_root) if (folder / "train" / GOOD).is_dir()]
    if names:
        return names
    where = f"{data_root.absolute()}" if data_root.is_dir() else f"{data_root.absolute()} (no such folder)"
    if (data_root / "train" / GOOD).is_dir():
        remedy = f"Use its parent folder, --data-root {data_root.absolute().parent}"
    else:
        remedy = (
            "Run `python -m las_tune data fetch mpdd`, or try rendered parts with "
            "`python -m las_tune --category bracket_black --demo`"
        )
    raise DataError(f"No category found in --data-root {where}. The layout is {LAYOUT}", remedy=remedy)


def find_categories(names: Iterable[str], data_root: Path) -> list[str]:
    """Return the named categories without repetitions, or every category in data_root if a name is "all".

    Raises: UserError or DataError for the first name that is not a category, see `index_category`.
    """
    categories = list(dict.fromkeys(names))
    if "all" in categories:
        categories = list_categories(data_root)
    for name in categories:
        index_category(data_root, name)
    return categories


def index_category(data_root: Path, name: str) -> Category:
    """Find the images and masks of one category, without decoding them.

    Raises: UserError if the name is not a plain folder name, DataError if the folder does not have the layout.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(
            f"--category must be the name of a folder in --data-root, got {name!r}",
            remedy=f"Use one of {', '.join(list_categories(data_root))}",
        )
    known = list_categories(data_root)
    if name not in known:
        raise DataError(
            f"--category {name!r} does not exist in {data_root.absolute()}", remedy=f"Found: {', '.join(known)}"
        )
    folder = data_root / name
    train = tuple(ImageItem(path, GOOD) for path in list_images(folder / "train" / GOOD))
    if not train:
        raise DataError(
            f"No images of good parts in {(folder / 'train' / GOOD).absolute()}",
            remedy=f"Add some; supported formats are {' '.join(sorted(SUFFIXES))}",
        )
    defects = [subfolder.name for subfolder in subfolders(folder / "test")]
    return Category(name, folder, train, tuple(image for defect in defects for image in _test_images(folder, defect)))


def _test_images(folder: Path, defect: str) -> list[ImageItem]:
    """Return the images of test/<defect>, each with its mask from ground_truth/<defect>."""
    paths = list_images(folder / "test" / defect)
    masks = {} if defect == GOOD else _match_masks(paths, list_images(folder / "ground_truth" / defect))
    return [ImageItem(path, defect, masks.get(path)) for path in paths]


def _match_masks(paths: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """Return the mask of each image: <stem>_mask.<ext> or <stem>.<ext>, ignoring case.

    Raises: DataError if an image matches several masks, or a mask several images.
    """
    images_of, masks_of = defaultdict(list), defaultdict(list)
    for path in paths:
        images_of[path.stem.casefold()].append(path)
    for mask in masks:
        masks_of[mask.stem.casefold().removesuffix("_mask")].append(mask)
    for stem in images_of.keys() & masks_of.keys():
        matches = [*images_of[stem], *masks_of[stem]]
        if len(matches) > 2:
            names = ", ".join("/".join(path.parts[-3:]) for path in matches)
            raise DataError(
                f"Images and masks in {matches[0].parents[2].absolute()} do not match one to one: {names}",
                remedy="Rename or remove the duplicates",
            )
    return {images_of[stem][0]: masks_of[stem][0] for stem in images_of.keys() & masks_of.keys()}


def list_images(folder: Path) -> list[Path]:
    """Return the visible image files of a folder, sorted by name; empty if the folder does not exist."""
    return sorted(path for path in _entries(folder) if is_image(path))


def is_image(path: Path) -> bool:
    """Return whether a path is a visible file with the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def images_below(folder: Path) -> list[Path]:
    """Return the image files in a folder and in its visible subfolders, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_image(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders inside a folder, sorted by name; empty if the folder does not exist."""
    return sorted(path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))


def _entries(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def find_duplicates(category: Category) -> list[tuple[str, ...]]:
    """Return the keys of images with identical files, one tuple per file. Duplicates leak across a split."""
    keys_of = defaultdict(list)
    for image in (*category.train, *category.test):
        keys_of[sha256_of(image.path)].append(image.key)
    return sorted(tuple(keys) for keys in keys_of.values() if len(keys) > 1)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
