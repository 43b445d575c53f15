"""Small things that several tests share: parts on disk, the command line in this process, an empty MLflow store."""

from __future__ import annotations

import functools
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.data.conftest import save_mask, save_picture

SMALL = {"--backbone": "resnet18", "--backbone-weights": "random", "--image-size": "32", "--epochs": "1"}
"""Flags of a training that takes seconds."""


def make_part(root: Path, name: str = "part", train: int = 6, good: int = 4, rust: int = 4) -> Path:
    """Make a category of noise pictures, 12 x 8 pixels, masks included. Returns its folder."""
    counts = {"train/good": train, "test/good": good, "test/rust": rust}
    for folder, count in counts.items():
        for index in range(count):
            save_picture(root / name / folder / f"{index:03}.png")
    for index in range(rust):
        save_mask(root / name / "ground_truth/rust" / f"{index:03}_mask.png")
    return root / name


def make_textures(folder: Path) -> Path:
    """Make three textures."""
    for index in range(3):
        save_picture(folder / "woven" / f"{index}.png", size=(16, 16))
    return folder


def cut_off(path: Path) -> Path:
    """Truncate a picture, as a broken download does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: object
    out: str
    err: str


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], env_columns: int = 200
) -> Ended:
    """Run `python -m las_tune` with arguments, in this process."""
    from las_tune.cli import main

    monkeypatch.setenv("COLUMNS", str(env_columns))
    monkeypatch.setattr(sys, "argv", ["las_tune", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        main()
    printed = capsys.readouterr()
    return Ended(exit_info.value.code, printed.out, printed.err)


def as_arguments(flags: dict[str, str]) -> list[str]:
    """Flags and their values, one after the other; a flag without a value has an empty one."""
    return [f"{flag}={value}" if value else flag for flag, value in flags.items()]


@functools.cache
def empty_store() -> bytes:
    """An MLflow database without experiments of ours; MLflow takes seconds to make one."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{file}").search_experiments()
        return file.read_bytes()
