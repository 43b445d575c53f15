"""One category on disk, in the MPDD/MVTec layout: its images, and which mask belongs to which."""

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
    """One image of a part."""

    path: Path
    defect: str
    """Name of its folder; "good" for a part without a defect."""
    mask: Path | None = None
    """ImageItem of where the defect is; None for good parts, and where there is none."""

    @property
    def key(self) -> str:
        """Its name inside the category, the same on every machine: "test/rust/000.png"."""
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
        """Names of the defects in test, sorted, without "good"."""
        return tuple(sorted({image.defect for image in self.test} - {GOOD}))

    @property
    def masks_missing(self) -> int:
        """Number of defective images without a mask."""
        return sum(image.defect != GOOD and image.mask is None for image in self.test)

    @property
    def has_masks(self) -> bool:
        """True where every defective image has a mask (and there is one): pixel metrics are possible."""
        return bool(self.defects) and self.masks_missing == 0


def list_categories(data_root: Path) -> list[str]:
    """Sorted names of the folders that hold train/good; DataError where there are none."""
    found = [folder.name for folder in subfolders(data_root) if (folder / "train" / GOOD).is_dir()]
    if not found:
        raise DataError(
            "--data-root must hold at least one category, laid out as " + LAYOUT,
            data_root.absolute() if data_root.is_dir() else f"{data_root.absolute()} (no such folder)",
            f"Give its parent, --data-root {data_root.absolute().parent}"
            if (data_root / "train" / GOOD).is_dir()
            else "Run `python -m las_tune data fetch mpdd`, or try a made-up part with "
            "`python -m las_tune --category bracket_black --demo`",
        )
    return found


def index_category(data_root: Path, name: str) -> Category:
    """Find the images and masks of one category; nothing is decoded.

    Raises UserError for a name that is no plain folder name, DataError where the layout does not hold.
    """
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise UserError(
            "--category must be a plain folder name inside --data-root",
            repr(name),
            f"Give one of {', '.join(list_categories(data_root))}",
        )
    known = list_categories(data_root)
    if name not in known:
        where = f"{name!r} in {data_root.absolute()}"
        raise DataError("--category must be one of the folders found", where, f"Found: {', '.join(known)}")
    folder = data_root / name
    train = tuple(ImageItem(path, GOOD) for path in list_images(folder / "train" / GOOD))
    if not train:
        raise DataError(
            "train/good must hold images of good parts",
            f"none in {(folder / 'train' / GOOD).absolute()}",
            f"Put some there; image files end in {' '.join(sorted(SUFFIXES))}",
        )
    defects = [subfolder.name for subfolder in subfolders(folder / "test")]
    return Category(name, folder, train, tuple(p for defect in defects for p in _test_images(folder, defect)))


def _test_images(folder: Path, defect: str) -> list[ImageItem]:
    """The images of test/<defect>, each with its mask from ground_truth/<defect>."""
    paths = list_images(folder / "test" / defect)
    masks = {} if defect == GOOD else _match_masks(paths, list_images(folder / "ground_truth" / defect))
    return [ImageItem(path, defect, masks.get(path)) for path in paths]


def _match_masks(paths: list[Path], masks: list[Path]) -> dict[Path, Path]:
    """Mask of each image: <stem>_mask.<ext> or <stem>.<ext>, in any letter case; DataError unless 1:1."""
    images_of, masks_of = defaultdict(list), defaultdict(list)
    for path in paths:
        images_of[path.stem.casefold()].append(path)
    for mask in masks:
        masks_of[mask.stem.casefold().removesuffix("_mask")].append(mask)
    for stem in images_of.keys() & masks_of.keys():
        same = [*images_of[stem], *masks_of[stem]]
        if len(same) > 2:
            raise DataError(
                "An image and its mask must be matched by name, one to one",
                f"{', '.join('/'.join(path.parts[-3:]) for path in same)} in {same[0].parents[2].absolute()}",
                "Rename or remove what is there twice",
            )
    return {images_of[stem][0]: masks_of[stem][0] for stem in images_of.keys() & masks_of.keys()}


def list_images(folder: Path) -> list[Path]:
    """ImageItem files of one folder, sorted by name; without hidden files; none where it is absent."""
    return sorted(path for path in _entries(folder) if is_image(path))


def is_image(path: Path) -> bool:
    """True for a visible file with the suffix of an image."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def images_below(folder: Path) -> list[Path]:
    """Images in a folder and the visible folders below it, sorted."""
    return sorted(
        path
        for path in folder.rglob("*")
        if is_image(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def subfolders(folder: Path) -> list[Path]:
    """Visible folders inside a folder, sorted by name; none where the folder is absent."""
    return sorted(path for path in _entries(folder) if path.is_dir() and not path.name.startswith("."))


def _entries(folder: Path) -> Iterable[Path]:
    return folder.iterdir() if folder.is_dir() else ()


def find_duplicates(category: Category) -> list[tuple[str, ...]]:
    """Keys of images that are the same file byte by byte, a tuple each; they leak across a split."""
    keys_of = defaultdict(list)
    for image in (*category.train, *category.test):
        keys_of[sha256_of(image.path)].append(image.key)
    return sorted(tuple(keys) for keys in keys_of.values() if len(keys) > 1)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
