"""One number for the images of a study: what was pushed to a cluster is what arrived there."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

from las_tune.data.category import images_below, sha256_of
from las_tune.data.textures import list_textures, texture_base
from las_tune.errors import UserError

PARTS, TEXTURES = "parts", "textures"
MOST_MB = 480
"""Of one push: Ray keeps a package in the head's memory and takes none above 512 MiB."""


def images_of(data_root: Path, categories: Sequence[str], textures: Path) -> dict[str, Path]:
    """All image files of some categories and the textures, by their names in a package, sorted."""
    found = {
        f"{PARTS}/{path.relative_to(data_root).as_posix()}": path
        for category in categories
        for path in images_below(data_root / category)
    }
    base = texture_base(textures)
    found |= {f"{TEXTURES}/{path.relative_to(base).as_posix()}": path for path in list_textures(textures)}
    return dict(sorted(found.items()))


def digest_of(images: dict[str, Path]) -> str:
    """SHA-256 over names and contents, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, path in images.items():
        digest.update(f"{sha256_of(path)}  {name}\n".encode())
    return digest.hexdigest()


def check_digest(wanted: str, data_root: Path, categories: Sequence[str], textures: Path) -> None:
    """Raise UserError where the images are not those of a digest."""
    found = digest_of(images_of(data_root, categories, textures))
    if found != wanted:
        where = f"{found} in {data_root} and {textures} instead of {wanted}"
        raise UserError("--data-digest must be that of the images", where, "push the data again")


def pack(images: dict[str, Path], package: Path) -> None:
    """Write images into a zip file whose bytes are a function of their names and contents alone."""
    megabytes = sum(path.stat().st_size for path in images.values()) / 1e6
    if megabytes > MOST_MB:
        do = "put them on storage that the cluster sees, or copy them with `ray rsync-up`, and give their folders there"
        raise UserError(f"--push-data takes at most {MOST_MB} MB", f"{megabytes:.0f} MB", do)
    with zipfile.ZipFile(package, "w", zipfile.ZIP_STORED) as archive:
        for name, path in images.items():
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes())
