"""The commands predict and export, run through the command line."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from las_tune.errors import UserError
from las_tune.inference.files import find_images
from las_tune.inference.overlay import overlay
from las_tune.inference.predictor import Predictor
from tests.detectors import SIZE, THRESHOLD, make_detector, noise_images, save_images
from tests.parts import CommandResult, run_command, truncate_image

IMAGES = noise_images(3)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_detector(tmp_path_factory.mktemp("detector") / "best_model_part.pth")


@pytest.fixture
def command(detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a command with this detector in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(name: str, *arguments: str) -> CommandResult:
        return run_command(monkeypatch, capsys, [name, "--model", str(detector), *arguments])

    return run


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


# --- predict ---


def test_table_is_the_only_output_on_stdout(command: Any, detector: Path) -> None:
    paths = save_images(Path("parts"), IMAGES)
    ended = command("predict", "parts")
    rows = rows_of(ended.out)
    assert (ended.code, list(rows[0])) == (0, ["image", "score", "threshold", "is_defective", "error"])
    predictions = list(Predictor(detector).predict(list(IMAGES)))
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    assert [float(row["score"]) for row in rows] == [prediction.score for prediction in predictions]  # type: ignore[union-attr]
    assert [row["is_defective"] for row in rows] == [str(prediction.is_defective) for prediction in predictions]  # type: ignore[union-attr]
    assert {(row["threshold"], row["error"]) for row in rows} == {(str(THRESHOLD), "")}
    assert ended.err.startswith("Images classified: 3, ") and not list(Path().glob("*.csv"))


def test_out_folder_has_table_and_one_overlay_per_image(command: Any) -> None:
    save_images(Path("parts"), IMAGES[:2])
    save_images(Path("parts/below"), noise_images(1, 30, 20))
    ended = command("predict", "parts", "--out", "out/here")
    assert ended.code == 0 and "out/here/predictions.csv" in ended.out
    rows = rows_of(Path("out/here/predictions.csv").read_text())
    assert [row["overlay"] for row in rows] == [
        "overlays/000.png.jpg", "overlays/001.png.jpg", "overlays/below/000.png.jpg",
    ]  # fmt: skip
    for row in rows:
        with Image.open(row["image"]) as image, Image.open(Path("out/here") / row["overlay"]) as drawn:
            assert drawn.size == image.size


def test_broken_images_are_reported_and_skipped(command: Any) -> None:
    paths = save_images(Path("parts"), IMAGES)
    truncate_image(paths[1])
    Path("parts/note.txt").write_text("no image")
    ended = command("predict", "parts", "gone.png", "--out", "out")
    assert ended.code == 0
    rows = rows_of(Path("out/predictions.csv").read_text())
    assert [Path(row["image"]).name for row in rows] == ["000.png", "001.png", "002.png", "gone.png"]
    assert [bool(row["error"]) for row in rows] == [False, True, False, True]
    assert [row["score"] == row["is_defective"] == row["overlay"] == "" for row in rows] == [False, True, False, True]
    assert "Unreadable images (2):" in ended.err and "parts/001.png" in ended.err and "gone.png" in ended.err


def test_exit_code_is_2_if_no_image_can_be_read(command: Any) -> None:
    truncate_image(save_images(Path("parts"), IMAGES[:1])[0])
    ended = command("predict", "parts")
    assert ended.code == 2 and len(rows_of(ended.out)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "predict needs at least one image"),
        (["empty"], "There are no images in empty"),
        (["parts", "--out", "file"], "--out file is not writable"),
        (["parts", "--device", "cuda"], "Device cuda is not available"),
        (["parts", "--model", "models:/las-part@champion"], "--tracking-uri"),
        (["parts", "--model", "parts/000.png"], "parts/000.png is not a detector of las_tune"),
        (["parts", "--model", "parts"], "--model parts is neither a model of las_tune nor a file"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    detector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    save_images(Path("parts"), IMAGES[:1])
    Path("empty").mkdir()
    Path("file").write_text("no folder")
    model = [] if "--model" in arguments else ["--model", str(detector)]
    ended = run_command(monkeypatch, capsys, ["predict", *arguments, *model])
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith("error: ") and message in ended.err


def test_files_with_equal_names_have_separate_overlays(tmp_path: Path) -> None:
    first, second = (save_images(tmp_path / name, IMAGES[:1])[0] for name in "ab")
    found = find_images([first, second, tmp_path / "a", first])
    assert [file.path for file in found] == [first, second]
    assert len({file.overlay for file in found}) == 2


def test_overlays_of_an_earlier_run_are_not_predicted(command: Any) -> None:
    save_images(Path(), IMAGES[:2])
    for _ in range(2):
        assert command("predict", ".", "--out", "out").code == 0
        assert len(rows_of(Path("out/predictions.csv").read_text())) == 2


def test_hidden_files_are_skipped_and_empty_folders_rejected(tmp_path: Path) -> None:
    (path,) = save_images(tmp_path, IMAGES[:1])
    path.rename(tmp_path / ".hidden.png")
    save_images(tmp_path / ".checkpoints", IMAGES[:1])
    with pytest.raises(UserError, match="There are no images in"):
        find_images([tmp_path])


def test_overlay_keeps_normal_regions_and_outlines_regions_above_the_threshold() -> None:
    image = noise_images(1, 2 * SIZE, 3 * SIZE)[0]
    anomaly_map = np.zeros((SIZE, SIZE), np.float32)
    assert np.array_equal(overlay(image, anomaly_map, 0.5), image)
    anomaly_map[20:40, 30:50] = 0.8
    drawn = overlay(image, anomaly_map, 0.5)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert np.array_equal(drawn[:30], image[:30]) and not np.array_equal(drawn[50:70, 100:140], image[50:70, 100:140])
    outline = (drawn == (0, 255, 255)).all(axis=2)
    rows, columns = np.nonzero(outline)
    assert abs(rows.min() - 40) <= 2 and abs(rows.max() - 80) <= 2
    assert abs(columns.min() - 90) <= 3 and abs(columns.max() - 150) <= 3
    assert not (overlay(image, anomaly_map, 0.9) == (0, 255, 255)).all(axis=2).any()


# --- export ---


@pytest.mark.parametrize(
    ("kind", "name"), [("onnx", "las-part.onnx"), ("torchscript", "las-part.pt"), ("pt2", "x/y.z")]
)
def test_export_writes_one_file_and_prints_its_input(kind: str, name: str, command: Any) -> None:
    Path("x").mkdir()
    ended = command("export", "--format", kind, *(["--out", name] if "/" in name else []))
    assert (ended.code, ended.err, ended.warnings) == (0, "", ())
    assert [str(path) for path in Path().rglob("*") if path.is_file()] == [name]
    assert f"{kind}: {name}" in ended.out and "(B, 3, 64, 64), float32 in [0, 1], RGB" in ended.out
    assert "score > 0.5" in ended.out and "batch sizes 1 and 3" in ended.out


@pytest.mark.parametrize("arguments", [["--format", "caffe"], ["--format", "pt2", "--out", "gone/file"], []])
def test_export_errors_are_one_line(arguments: list[str], command: Any) -> None:
    ended = command("export", *arguments)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert not [path for path in Path().rglob("*") if path.is_file()]
