"""Download MPDD and DTD. A folder that exists afterwards is complete.

Data is downloaded and unpacked in a hidden folder, then moved to its final path, one os.replace per folder. The authors
of MPDD publish no checksum, so fetch_mpdd returns the SHA-256 of the archive. torchvision verifies the MD5 of DTD.
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

from las_tune.config import MPDD_CATEGORIES, Progress
from las_tune.data.category import GOOD, sha256_of
from las_tune.data.textures import texture_base
from las_tune.errors import UserError, require

MPDD_PAGE = "https://github.com/stepanje/MPDD"
MPDD_DRIVE_ID = "1b3dcRqTXR7LZkOEkVQ9qO_EcKzzC2EEI"
DTD_PAGE = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"

_SIGNATURES = {
    b"Rar!": "a RAR archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x1f\x8b": "a gzip archive",
    b"<": "a web page",
}
"""Names of files that are not zip archives, by their first bytes."""


@dataclass(frozen=True)
class FetchResult:
    """Result of a download."""

    folder: Path
    """Absolute path, for --data-root or --textures."""
    names: tuple[str, ...]
    """Names of the downloaded folders; empty if all existed."""
    sha256: str | None = None
    """SHA-256 of the MPDD archive; None for DTD and if nothing was downloaded."""


def download_mpdd(archive: Path, progress: Progress | None) -> None:
    """Download the MPDD archive from Google Drive, and resume an interrupted download.

    Raises: OSError if the download fails.
    """
    try:
        import gdown
    except ImportError as error:
        raise UserError("Downloading MPDD needs the package gdown", remedy="Run `pip install gdown`") from error

    def report(num_bytes: int, total: int | None) -> None:
        if progress:
            progress("downloading MPDD (MB)", num_bytes // 10**6, (total or 0) // 10**6)

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
    """Download and unpack DTD into root/dtd/dtd with torchvision, which shows its own progress bar."""
    from torchvision.datasets import DTD

    DTD(str(root), download=True)


def fetch_mpdd(
    data_root: Path,
    download: Callable[[Path, Progress | None], None] = download_mpdd,
    progress: Progress | None = None,
) -> FetchResult:
    """Download the six categories of MPDD to <data-root>/<category>, except those that exist.

    Args:
        data_root: folder of categories.
        download: writes the archive to a path; raises OSError on failure.
        progress: called with the megabytes downloaded so far.

    Raises: UserError if the archive cannot be downloaded, read or moved.
    """
    data_root = data_root.absolute()
    missing = [name for name in MPDD_CATEGORIES if not (data_root / name / "train" / GOOD).is_dir()]
    if not missing:
        return FetchResult(data_root, ())
    incomplete = [str(data_root / name) for name in missing if (data_root / name).exists()]
    require(
        not incomplete,
        f"These folders exist but have no train/good: {', '.join(incomplete)}",
        remedy="Move them to another folder",
    )
    work = data_root / ".mpdd-partial"
    archive = work / "mpdd.archive"
    with _download_errors("MPDD", MPDD_PAGE, data_root):
        work.mkdir(parents=True, exist_ok=True)
        download(archive, progress)
        sha256 = sha256_of(archive)
        unpacked = _unpack(archive, work / "unpacked")
        found = {good.parents[1].name: good.parents[1] for good in unpacked.rglob(f"train/{GOOD}")}
        absent = sorted(set(missing) - found.keys())
        require(not absent, f"The MPDD archive does not contain {', '.join(absent)}", remedy=_by_hand(archive))
        for name in missing:
            found[name].replace(data_root / name)
        shutil.rmtree(work)
    return FetchResult(data_root, tuple(missing), sha256)


def fetch_dtd(folder: Path, download: Callable[[Path], None] = download_dtd) -> FetchResult:
    """Download DTD to <folder>/dtd/images, unless it exists.

    Args:
        folder: folder of the textures.
        download: writes root/dtd/dtd like torchvision; raises OSError or RuntimeError on failure.

    Raises: UserError if the download fails.
    """
    folder = folder.absolute()
    if texture_base(folder) != folder:
        return FetchResult(folder, ())
    work = folder / ".dtd-partial"
    unpacked = work / "dtd" / "dtd"
    with _download_errors("DTD", DTD_PAGE, folder):
        # torchvision considers a partly unpacked folder complete. The archive is kept, verified and used again.
        shutil.rmtree(unpacked, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        download(work)
        unpacked.replace(folder / "dtd")
        shutil.rmtree(work)
    return FetchResult(folder, ("dtd",))


def _unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip file into a new folder. Raises UserError for other archives and unsafe members."""
    if not zipfile.is_zipfile(archive):
        raise UserError(f"The MPDD archive is not a zip file but {_description(archive)}", remedy=_by_hand(archive))
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            members = [member for member in file.infolist() if not member.filename.startswith("__MACOSX/")]
            for member in members:
                _require_inside(member, archive)
            _require_space(sum(member.file_size for member in members), archive.parent)
            file.extractall(folder, members)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error) as error:
        raise UserError(f"The MPDD archive {archive} is damaged: {error}", remedy=_by_hand(archive)) from error
    return folder


def _require_inside(member: zipfile.ZipInfo, archive: Path) -> None:
    """Raise UserError for links, absolute paths, and paths that leave the folder on any operating system."""
    path = PurePosixPath(member.filename)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    is_unsafe = is_link or path.is_absolute() or ".." in path.parts or set(member.filename) & set("\\:")
    require(
        not is_unsafe,
        f"The archive contains {member.filename!r}, which would be unpacked outside its folder",
        remedy=_by_hand(archive),
    )


def _require_space(num_bytes: int, folder: Path) -> None:
    """Raise UserError if the disk has too little space."""
    num_free = shutil.disk_usage(folder).free
    require(
        num_bytes <= num_free,
        f"Unpacking MPDD needs {num_bytes / 1e9:.1f} GB, and the disk of {folder} has {num_free / 1e9:.1f} GB free",
        remedy="Free some space, or download to another --folder",
    )


def _description(archive: Path) -> str:
    """Describe the type of a file, judged by its first bytes."""
    with archive.open("rb") as file:
        start = file.read(512).lstrip()
    names = (name for signature, name in _SIGNATURES.items() if start.startswith(signature))
    return f"{next(names, 'an unknown file')} ({archive}, {archive.stat().st_size} bytes)"


def _by_hand(archive: Path) -> str:
    return f"Delete {archive} to download it again, or unpack it manually into the data root (see {MPDD_PAGE})"


@contextmanager
def _download_errors(name: str, page: str, folder: Path) -> Iterator[None]:
    """Convert a failed download, or a full or read-only disk, to a UserError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise UserError(
            f"Downloading {name} to {folder} failed: {type(error).__name__}: {reason}",
            remedy=f"Repeat the command to resume, or download it manually from {page}",
        ) from error
