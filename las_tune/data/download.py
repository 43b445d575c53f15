"""Fetch MPDD and DTD, so that a folder which is there is a folder which is whole.

Everything lands in a hidden sibling first and is moved into place by one os.replace a folder. MPDD's authors
publish no checksum: fetch_mpdd returns the SHA-256 of what came. torchvision checks DTD's MD5 itself.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from las_tune.config.study_spec import MPDD_CATEGORIES
from las_tune.data.category import GOOD, sha256_of
from las_tune.data.images import Progress
from las_tune.data.textures import texture_base
from las_tune.errors import UserError

MPDD_PAGE = "https://github.com/stepanje/MPDD"
MPDD_DRIVE_ID = "1b3dcRqTXR7LZkOEkVQ9qO_EcKzzC2EEI"
DTD_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"

# How archives and web pages begin that are no zip, and what to call them.
_SIGNATURES = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1f\x8b": "a gzip archive",
    b"<": "a web page",
}


@dataclass(frozen=True)
class Fetched:
    """What a fetch left on disk."""

    folder: Path
    """Absolute: what --data-root or --textures takes."""
    names: tuple[str, ...]
    """What was fetched now; empty where all was there already."""
    sha256: str | None = None
    """Of MPDD's archive; None where nothing was fetched, and for DTD."""


def download_mpdd(archive: Path, progress: Progress | None) -> None:
    """Download MPDD from Google Drive, going on where an earlier try stopped; OSError where that fails."""
    try:
        import gdown
    except ImportError as error:
        raise UserError("Fetching MPDD needs the package gdown", do="Run `pip install gdown`") from error

    def report(num_bytes: int, total: int | None) -> None:
        if progress:
            progress(num_bytes, total or 0)

    try:
        gdown.download(
            id=MPDD_DRIVE_ID,
            output=str(archive),
            quiet=True,
            resume=True,
            retries=3,
            timeout=60,
            progress=report,
        )
    except gdown.exceptions.DownloadError as error:
        raise OSError(str(error)) from error


def download_dtd(root: Path) -> None:
    """Download and unpack DTD into root/dtd/dtd through torchvision, which shows a bar of its own."""
    from torchvision.datasets import DTD

    DTD(str(root), download=True)


def fetch_mpdd(
    data_root: Path,
    download: Callable[[Path, Progress | None], None] = download_mpdd,
    progress: Progress | None = None,
) -> Fetched:
    """Bring the six categories of MPDD to <data-root>/<category>; those that are there are left alone.

    download: fills the path that it is given, and raises OSError where it cannot.
    Raises UserError where the archive cannot be had, read or moved into place.
    """
    data_root = data_root.absolute()
    wanted = [name for name in MPDD_CATEGORIES if not (data_root / name / "train" / GOOD).is_dir()]
    if not wanted:
        return Fetched(data_root, ())
    taken = [str(data_root / name) for name in wanted if (data_root / name).exists()]
    if taken:
        raise UserError("A category's folder must not be there without train/good", ", ".join(taken), "Move it away")
    work = data_root / ".mpdd-partial"
    archive = work / "mpdd.archive"
    with _one_line_on_failure("MPDD", MPDD_PAGE, data_root):
        work.mkdir(parents=True, exist_ok=True)
        download(archive, progress)
        sha256 = sha256_of(archive)
        unpacked = _unpack(archive, work / "unpacked")
        found = {good.parents[1].name: good.parents[1] for good in unpacked.rglob(f"train/{GOOD}")}
        absent = sorted(set(wanted) - found.keys())
        if absent:
            raise UserError(
                "MPDD's archive must hold all six categories",
                f"none of {', '.join(absent)}",
                _by_hand(archive),
            )
        for name in wanted:
            found[name].replace(data_root / name)
        shutil.rmtree(work)
    return Fetched(data_root, tuple(wanted), sha256)


def fetch_dtd(folder: Path, download: Callable[[Path], None] = download_dtd) -> Fetched:
    """Bring DTD to <folder>/dtd/images, unless it is there. UserError where it cannot be had.

    download: fills root/dtd/dtd as torchvision does, and raises OSError or RuntimeError where it cannot.
    """
    folder = folder.absolute()
    if texture_base(folder) != folder:
        return Fetched(folder, ())
    work = folder / ".dtd-partial"
    unpacked = work / "dtd" / "dtd"
    with _one_line_on_failure("DTD", DTD_PAGE, folder):
        # torchvision takes a half-unpacked folder for a whole one; its archive is checked and used again.
        shutil.rmtree(unpacked, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        download(work)
        unpacked.replace(folder / "dtd")
        shutil.rmtree(work)
    return Fetched(folder, ("dtd",))


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip file into a new folder; UserError for other archives and unsafe members."""
    if not zipfile.is_zipfile(archive):
        raise UserError("MPDD's archive must be a whole zip file", _kind(archive), _by_hand(archive))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.filename.startswith("__MACOSX/")]
            for member in members:
                _require_inside(member, archive)
            _require_space(sum(member.file_size for member in members), archive.parent)
            file.extractall(folder, members)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise UserError("MPDD's archive must be whole", f"{archive} ({error})", _by_hand(archive)) from error
    return folder


def _require_inside(member: zipfile.ZipInfo, archive: Path) -> None:
    """UserError for links, absolute names, and names that climb out of their folder on any system."""
    path = PurePosixPath(member.filename)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if is_link or path.is_absolute() or ".." in path.parts or set(member.filename) & set("\\:"):
        raise UserError("An archive's members must stay in its folder", repr(member.filename), _by_hand(archive))


def _require_space(num_bytes: int, folder: Path) -> None:
    """UserError where a disk is too full for what is to be unpacked on it."""
    num_free = shutil.disk_usage(folder).free
    if num_bytes > num_free:
        raise UserError(
            f"Unpacking MPDD needs {num_bytes / 1e9:.1f} GB on the disk of {folder}",
            f"{num_free / 1e9:.1f} GB free",
            "Free some, or fetch to another --data-root",
        )


def _kind(archive: Path) -> str:
    """What a file seems to be, by how it begins."""
    with archive.open("rb") as file:
        start = file.read(512).lstrip()
    names = (name for signature, name in _SIGNATURES.items() if start.startswith(signature))
    return f"{next(names, 'something else')} ({archive}, {archive.stat().st_size} bytes)"


def _by_hand(archive: Path) -> str:
    return f"Delete {archive} to fetch it again, or unpack it by hand into the data root (page: {MPDD_PAGE})"


@contextmanager
def _one_line_on_failure(name: str, page: str, folder: Path) -> Iterator[None]:
    """Turn a failed download, or a full or read-only disk, into one line."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"{name} must be downloaded to {folder}",
            f"{type(error).__name__}: {reason}",
            f"Try again, it goes on where it stopped; or fetch it by hand from {page}",
        ) from error
