"""The commands `data fetch` and `data check`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from las_tune.data.download import FetchResult
from tests.parts import Run, make_part, truncate_image


@pytest.mark.parametrize(
    ("what", "flags", "folder"),
    [
        ("dtd", (), "data/dtd"),
        ("mpdd", (), "data/anomaly_dataset"),
        ("dtd", ("--folder", "near"), "near"),
        ("mpdd", ("--folder", "near"), "near"),
    ],
)
def test_fetch_downloads_once(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, flags: tuple[str, ...], folder: str
) -> None:
    targets: list[Path] = []

    def fetch(to: Path, **_: Any) -> FetchResult:
        targets.append(to)
        return FetchResult(to, ("connector", "tubes"), "12ab") if len(targets) == 1 else FetchResult(to, ())

    monkeypatch.setattr(f"las_tune.data.fetch_{what}", fetch)
    first, second = (run("data", "fetch", what, *flags) for _ in range(2))
    assert targets == [tmp_path / folder] * 2
    assert (first.code, first.err) == (0, "")
    assert f"{what} is in {tmp_path / folder}: connector, tubes" in first.out and "12ab" in first.out
    assert second.out == f"{what} is already in {tmp_path / folder}\n"


def test_fetch_of_dtd_reports_whether_it_downloaded(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """fetch_dtd returns no names in either case."""

    def download(root: Path) -> None:
        (root / "dtd/dtd/images").mkdir(parents=True)

    from las_tune.data.download import fetch_dtd

    monkeypatch.setattr("las_tune.data.fetch_dtd", lambda folder: fetch_dtd(folder, download))
    first, second = (run("data", "fetch", "dtd") for _ in range(2))
    assert (tmp_path / "data/dtd/dtd/images").is_dir()
    assert "already" not in first.out
    assert "already" in second.out


def test_check_of_a_valid_category_finds_no_problems(run: Run, tmp_path: Path) -> None:
    make_part(tmp_path / "d")
    ended = run("data", "check", "--category", "part", "--data-root", "d")
    assert (ended.code, ended.err) == (0, "")
    assert "No problems found." in ended.out
    assert re.search(r"test\W+rust\W+4\W+4\W+12x8\W+PNG RGB", ended.out)


def test_check_of_a_broken_category_reports_the_problem(run: Run, tmp_path: Path) -> None:
    make_part(tmp_path / "d", "good")
    broken = truncate_image(make_part(tmp_path / "d", "part") / "test/good/002.png")
    ended = run("data", "check", "--category", "all", "--data-root", "d")
    assert (ended.code, ended.err) == (2, "")
    assert ended.out.count("problem: ") == 1 and f"problem: Cannot read image {broken}: " in ended.out
