from __future__ import annotations

import hashlib
import shutil
import stat
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from las_tune.config.progress import Progress
from las_tune.config.study_spec import MPDD_CATEGORIES
from las_tune.data.category import list_categories
from las_tune.data.download import download_mpdd, fetch_dtd, fetch_mpdd
from las_tune.data.textures import list_textures
from las_tune.errors import UserError

from .conftest import save_image

Download = Callable[[Path, Progress | None], None]


def make_zip(path: Path, categories: tuple[str, ...] = MPDD_CATEGORIES, extra: str | zipfile.ZipInfo = "") -> Path:
    """Create an archive like MPDD's: everything in one folder, with the extra files of macOS."""
    with zipfile.ZipFile(path, "w") as file:
        for name in categories:
            file.writestr(f"MPDD/{name}/train/good/000.png", name)
            file.writestr(f"MPDD/{name}/test/good/000.png", name)
            file.writestr(f"__MACOSX/MPDD/{name}/train/good/._000.png", "x")
        if extra:
            file.writestr(extra, "target")
    return path


def copying(source: Path) -> Download:
    def download(archive: Path, progress: Progress | None) -> None:
        shutil.copy(source, archive)
        if progress:
            progress("downloading", archive.stat().st_size, archive.stat().st_size)

    return download


def never(*_: object) -> None:
    pytest.fail("downloaded although everything exists")


def test_mpdd_is_downloaded_completely_and_once(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "source.zip")
    calls: list[tuple[str, int, int]] = []
    root = tmp_path / "data"
    fetched = fetch_mpdd(root, copying(source), lambda *call: calls.append(call))
    assert fetched.folder == root and fetched.names == MPDD_CATEGORIES
    assert fetched.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert len(calls) == 1
    assert list_categories(root) == sorted(MPDD_CATEGORIES)
    assert sorted(path.name for path in root.iterdir()) == sorted(MPDD_CATEGORIES)
    assert (root / "tubes/train/good/000.png").read_text() == "tubes"
    again = fetch_mpdd(root, never)
    assert again.names == () and again.sha256 is None


def test_existing_categories_are_kept(tmp_path: Path) -> None:
    mine = save_image(tmp_path / "data/tubes/train/good/mine.png")
    fetched = fetch_mpdd(tmp_path / "data", copying(make_zip(tmp_path / "source.zip")))
    assert "tubes" not in fetched.names and len(fetched.names) == 5
    assert list(mine.parent.iterdir()) == [mine]


def test_folder_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "tubes").mkdir()
    with pytest.raises(UserError) as error:
        fetch_mpdd(tmp_path, never)
    assert str(error.value) == (
        f"These folders exist but have no train/good: {tmp_path / 'tubes'}. Move them to another folder."
    )


def test_interrupted_unpacking_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_zip(tmp_path / "source.zip")
    root = tmp_path / "data"

    def killed(self: zipfile.ZipFile, folder: Path, members: list[zipfile.ZipInfo]) -> None:
        self.extract(members[0], folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(zipfile.ZipFile, "extractall", killed)
        fetch_mpdd(root, copying(source))
    assert [path.name for path in root.iterdir()] == [".mpdd-partial"]
    assert fetch_mpdd(root, copying(source)).names == MPDD_CATEGORIES


def test_failed_download_is_an_error(tmp_path: Path) -> None:
    def failing(archive: Path, progress: Progress | None) -> None:
        raise OSError("no route\nto host")

    with pytest.raises(UserError) as error:
        fetch_mpdd(tmp_path, failing)
    assert str(error.value) == (
        f"Downloading MPDD to {tmp_path} failed: OSError: no route to host. "
        "Repeat the command to resume, or download it manually from https://github.com/stepanje/MPDD."
    )


@pytest.mark.parametrize(
    ("content", "description"),
    [
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"7z\xbc\xaf'\x1c", "a 7z archive"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b"", "an unknown file"),
    ],
)
def test_archive_of_another_format_is_an_error(tmp_path: Path, content: bytes, description: str) -> None:
    (tmp_path / "source").write_bytes(content)
    archive = tmp_path / ".mpdd-partial/mpdd.archive"
    with pytest.raises(UserError) as error:
        fetch_mpdd(tmp_path, copying(tmp_path / "source"))
    assert str(error.value) == (
        f"The MPDD archive is not a zip file but {description} ({archive}, {len(content)} bytes). "
        f"Delete {archive} to download it again, or unpack it manually into the data root "
        "(see https://github.com/stepanje/MPDD)."
    )


def test_damaged_archive_is_an_error(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "source.zip")
    source.write_bytes(source.read_bytes().replace(b"bracket_blackPK", b"bracket_blankPK"))
    with pytest.raises(UserError, match=r"The MPDD archive .* is damaged: Bad CRC-32.*Delete"):
        fetch_mpdd(tmp_path, copying(source))
    assert not (tmp_path / "tubes").exists()


def symlink(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


@pytest.mark.parametrize(
    "extra", ["../evil", "MPDD/../../evil", "/evil", "C:/evil", "a\\..\\evil", symlink("MPDD/evil")]
)
def test_unsafe_members_are_an_error(tmp_path: Path, extra: str | zipfile.ZipInfo) -> None:
    source = make_zip(tmp_path / "source.zip", extra=extra)
    with pytest.raises(
        UserError, match="The archive contains '.*evil', which would be unpacked outside its folder. Delete"
    ):
        fetch_mpdd(tmp_path / "data", copying(source))
    assert [path.name for path in (tmp_path / "data/.mpdd-partial").iterdir()] == ["mpdd.archive"]


def test_archive_without_all_categories_is_an_error(tmp_path: Path) -> None:
    source = make_zip(tmp_path / "source.zip", MPDD_CATEGORIES[:4])
    with pytest.raises(UserError, match="The MPDD archive does not contain metal_plate, tubes. Delete"):
        fetch_mpdd(tmp_path / "data", copying(source))
    assert not (tmp_path / "data/connector").exists()


def test_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=0))
    with pytest.raises(UserError, match=r"Unpacking MPDD needs 0\.0 GB, and the disk of .* has 0\.0 GB free\. Free"):
        fetch_mpdd(tmp_path / "data", copying(make_zip(tmp_path / "source.zip")))


def test_gdown_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gdown = pytest.importorskip("gdown")
    calls: list[tuple[str, int, int]] = []

    def fake(*, id: str, output: str, resume: bool, progress: Callable[[int, int | None], None], **_: object) -> str:
        assert id == "1b3dcRqTXR7LZkOEkVQ9qO_EcKzzC2EEI" and resume
        progress(5 * 10**6, None)
        raise gdown.exceptions.FileURLRetrievalError("Too many users\n\nhave viewed it")

    monkeypatch.setattr(gdown, "download", fake)
    with pytest.raises(UserError, match="failed: OSError: Too many users have viewed it. Repeat the command"):
        fetch_mpdd(tmp_path, download_mpdd, lambda *call: calls.append(call))
    assert calls == [("downloading MPDD (MB)", 5, 0)]


def test_missing_gdown_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError) as error:
        fetch_mpdd(tmp_path)
    assert str(error.value) == "Downloading MPDD needs the package gdown. Run `pip install gdown`."


def test_dtd_is_downloaded_completely_and_once(tmp_path: Path) -> None:
    def download(root: Path) -> None:
        assert not (root / "dtd/dtd").exists()
        save_image(root / "dtd/dtd/images/woven/woven_0001.jpg")
        (root / "dtd/archive.tar.gz").write_bytes(b"x")

    assert fetch_dtd(tmp_path, download).folder == tmp_path
    assert [path.relative_to(tmp_path).as_posix() for path in list_textures(tmp_path)] == [
        "dtd/images/woven/woven_0001.jpg"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["dtd"]
    fetch_dtd(tmp_path, never)


def test_partly_unpacked_dtd_is_unpacked_again(tmp_path: Path) -> None:
    def failing(root: Path) -> None:
        assert not (root / "dtd/dtd").exists()
        save_image(root / "dtd/dtd/images/woven/woven_0001.jpg")
        raise RuntimeError("File not found or corrupted.")

    for _ in range(2):
        with pytest.raises(UserError) as error:
            fetch_dtd(tmp_path, failing)
        assert str(error.value) == (
            f"Downloading DTD to {tmp_path} failed: RuntimeError: File not found or corrupted. "
            "Repeat the command to resume, or download it manually from "
            "https://www.robots.ox.ac.uk/~vgg/data/dtd/."
        )
    assert not (tmp_path / "dtd").exists()
