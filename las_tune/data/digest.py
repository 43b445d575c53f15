"""Digest of the images of a study, to verify that a cluster has the images that were pushed to it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from las_tune.data.category import images_below, sha256_of
from las_tune.data.textures import list_textures, texture_base
from las_tune.errors import require

PARTS, TEXTURES = "parts", "textures"
MAX_PUSH_MB = 480
"""Maximum size of a package. Ray keeps packages in the memory of the head node and rejects those above 512 MiB."""


def images_of(data_root: Path, categories: Sequence[str], textures: Path) -> dict[str, Path]:
    """Return the image files of the categories and the textures by their names in a package, sorted."""
    images = {
        f"{PARTS}/{path.relative_to(data_root).as_posix()}": path
        for category in categories
        for path in images_below(data_root / category)
    }
    base = texture_base(textures)
    images |= {f"{TEXTURES}/{path.relative_to(base).as_posix()}": path for path in list_textures(textures)}
    return dict(sorted(images.items()))


def digest_of(images: dict[str, Path]) -> str:
    """Return the SHA-256 of names and contents as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, path in images.items():
        digest.update(f"{sha256_of(path)}  {name}\n".encode())
    return digest.hexdigest()


def check_digest(expected: str, data_root: Path, categories: Sequence[str], textures: Path) -> None:
    """Raise UserError unless the images have the expected digest."""
    digest = digest_of(images_of(data_root, categories, textures))
    require(
        digest == expected,
        f"The images in {data_root} and {textures} have digest {digest}, but --data-digest is {expected}",
        remedy="Push the data again",
    )


def pack(images: dict[str, Path], package: Path) -> None:
    """Write images into a zip file whose bytes depend only on their names and contents.

    Raises: UserError if they are larger than MAX_PUSH_MB.
    """
    megabytes = sum(path.stat().st_size for path in images.values()) / 1e6
    require(
        megabytes <= MAX_PUSH_MB,
        f"--push-data takes at most {MAX_PUSH_MB} MB, got {megabytes:.0f} MB",
        remedy="Put the images on storage that the cluster can read, or copy them with `ray rsync-up`, and pass their "
        "folders there",
    )
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        for name, path in images.items():
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes())
