"""A category from loose images: links, splits and warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from las_tune.data.category import index_category
from las_tune.data.layout import lay_out
from las_tune.errors import DataError, UserError
from tests.data.conftest import save_image
from tests.parts import run_command


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """30 good images in two folders with names in common, and 6 defective images."""
    for index in range(20):
        save_image(tmp_path / f"camera 1/{index:03}.png")
    for index in range(10):
        save_image(tmp_path / f"camera 2/deep/{index:03}.png")
    for index in range(6):
        save_image(tmp_path / f"bad/{index:03}.png")
    (tmp_path / "camera 1/notes.txt").write_text("no image")
    return tmp_path


def contents(folder: Path) -> dict[str, int]:
    return {part.relative_to(folder).as_posix(): len(list(part.iterdir())) for part in sorted(folder.glob("*/*"))}


def test_good_and_defective_images_are_linked(loose: Path) -> None:
    made = lay_out(loose / "parts/bolt", [str(loose / "camera *")], [str(loose / "bad/*.png")])
    assert made.counts == contents(loose / "parts/bolt") == {"test/defect": 6, "test/good": 6, "train/good": 24}
    links = [path for path in (loose / "parts/bolt").rglob("*") if not path.is_dir()]
    assert all(path.is_symlink() and path.resolve().is_file() for path in links)
    assert len({path.resolve() for path in links}) == 36, "every image is linked once"
    assert (made.flags, made.duplicates) == ("", 0)
    category = index_category(loose / "parts", "bolt")
    assert (len(category.train), len(category.test)) == (24, 12)
    assert len(made.split.validation) == len(made.split.sealed_test) == 6
    assert [text.split("; ")[0] for text in made.warnings] == [
        "24 good images for training", "6 images in test/good", "6 images in test/defect",
    ]  # fmt: skip


def test_layout_depends_on_images_and_seed_alone(loose: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        lay_out(loose / name / "bolt", [str(loose / "camera 1")], [str(loose / "bad")], seed)
    held = [
        {path.resolve() for path in (loose / name / "bolt/test/good").iterdir()} for name in ("one", "two", "three")
    ]
    assert held[0] == held[1] != held[2]


def test_without_defective_images_all_images_are_for_training(loose: Path) -> None:
    made = lay_out(loose / "parts/bolt", [str(loose / "camera 1"), str(loose / "camera 2/**/*.png")], [])
    assert made.counts == {"train/good": 30} and made.flags == "--validation synthetic"
    assert made.split.synthetic_parts == ("validation", "sealed_test")
    assert "synthetic defects" in " ".join(made.warnings)


def test_duplicate_file_is_linked_once(loose: Path) -> None:
    """Otherwise the same image could be used for training and testing."""
    (loose / "camera 1/copy.png").write_bytes((loose / "camera 1/000.png").read_bytes())
    made = lay_out(loose / "parts/bolt", [str(loose / "camera 1")], [])
    assert made.counts == {"train/good": 20} and made.duplicates == 1


@pytest.mark.parametrize(
    ("good", "defective", "line"),
    [
        ("nowhere/*.png", "bad", "--good '{here}/nowhere/*.png' matches no images"),
        ("camera 1", "none", "--defective '{here}/none' matches no images"),
        ("camera 1", "camera 1/003.png", "{here}/camera 1/003.png is both good and defective"),
        ("camera 1/00[01].png", "", "train/good needs at least 12 images for --validation synthetic, got 2"),
        ("camera 1", "bad/000.png", "at least 2 of each, got 4 good and 1 defective"),
    ],
)
def test_error_leaves_no_folder(loose: Path, good: str, defective: str, line: str) -> None:
    patterns = [str(loose / defective)] if defective else []
    with pytest.raises((DataError, UserError)) as refused:
        lay_out(loose / "parts/bolt", [str(loose / good)], patterns)
    assert line.format(here=loose) in str(refused.value)
    assert not (loose / "parts/bolt").exists()


def test_nonempty_folder_is_an_error(loose: Path) -> None:
    with pytest.raises(UserError, match="camera 1 is not empty. Choose a new or an empty folder"):
        lay_out(loose / "camera 1", [str(loose / "camera 2")], [])


def test_data_init_prints_counts_and_the_next_command(
    loose: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(loose)
    flags = ["--good", "camera 1", "camera 2", "--defective", "bad/*"]
    ended = run_command(monkeypatch, capsys, ["data", "init", "parts/bolt", *flags])
    assert (ended.code, ended.err) == (0, "")
    assert f"{loose}/parts/bolt: train/good 24, test/good 6, test/defect 6 (links)" in ended.out
    assert "fit 22, calibration 2, validation 6, sealed test 6" in ended.out
    assert f"  python -m las_tune --category bolt --data-root {loose}/parts\n" in ended.out
    assert run_command(monkeypatch, capsys, ["data", "check", "--category", "bolt", "--data-root", "parts"]).code == 0
