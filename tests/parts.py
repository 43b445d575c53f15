"""Shared helpers: categories on disk, the command line in this process, an empty MLflow store, trial records."""

from __future__ import annotations

import functools
import itertools
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from las_tune.cli.app import main
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import TrialRecord
from tests.data.conftest import save_image, save_mask

TRAIN = TrainSpec(
    image_size=64, batch_size=4, epochs=2, backbone="resnet18", backbone_weights="random", hidden_width=32,
    objective="combined",
)  # fmt: skip
"""Settings of a training that takes seconds."""
SMALL = "--backbone resnet18 --backbone-weights random --image-size 32 --epochs 1"
"""Flags of a training that takes seconds."""


def make_part(root: Path, name: str = "part", train: int = 6, good: int = 4, rust: int = 4) -> Path:
    """Make a category of noise images (12 x 8 pixels) with masks. Returns its folder."""
    counts = {"train/good": train, "test/good": good, "test/rust": rust}
    for folder, count in counts.items():
        for index in range(count):
            save_image(root / name / folder / f"{index:03}.png")
    for index in range(rust):
        save_mask(root / name / "ground_truth/rust" / f"{index:03}_mask.png")
    return root / name


def make_textures(folder: Path) -> Path:
    """Make three textures."""
    for index in range(3):
        save_image(folder / "woven" / f"{index}.png", size=(16, 16))
    return folder


def part_spec(root: Path, train: TrainSpec, **fields: Any) -> StudySpec:
    """Return the spec of a study of the category `part` in a folder, with the textures in it."""
    usual = {"category": "part", "study": "s", "data_root": root, "textures": root / "textures", "results": root / "r"}
    return StudySpec(train=train, **(usual | fields))


def truncate_image(path: Path) -> Path:
    """Truncate an image to half of its bytes, like an interrupted download. Returns its path."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


@dataclass(frozen=True)
class CommandResult:
    """Exit code and output of a command."""

    code: object
    out: str
    err: str
    warnings: tuple[str, ...]
    """Python warnings, which pytest keeps from stderr."""


Run = Callable[..., CommandResult]


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: Sequence[str]
) -> CommandResult:
    """Run `python -m las_tune` with arguments in this process."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["las_tune", *arguments])
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as caught, pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    return CommandResult(
        ended.value.code, printed.out, printed.err, tuple(str(w.message) for w in caught if _is_shown(w))
    )


def _is_shown(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is shown outside pytest. Cyclopts warns about sys.argv only under pytest."""
    hidden = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    return not issubclass(warning.category, hidden) and 'under unit-test framework "pytest"' not in str(warning.message)


def merge_flags(usual: str, given: str) -> list[str]:
    """Return the arguments of a command, in which the given flags replace the usual ones."""
    flags: dict[str, list[str]] = {}
    for text in (usual, given):
        words = shlex.split(text)
        starts = [index for index, word in enumerate(words) if word.startswith("--")]
        flags |= {words[a]: words[a:b] for a, b in itertools.pairwise([*starts, len(words)])}
    return [word for words in flags.values() for word in words]


@functools.cache
def empty_store() -> bytes:
    """Return the content of an empty MLflow database. It is cached, because MLflow takes seconds to create one."""
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{file}").search_experiments()
        return file.read_bytes()


def make_trial(number: int, objectives: Sequence[float], *, masks: bool = True, **fields: Any) -> TrialRecord:
    """Return a trial with one epoch per objective. The other metrics are fractions of it; an epoch takes 1.5 s."""
    params = {"adaptor_lr": 1e-4 * (number + 1), "foreground": "otsu", "hidden_width": 768}
    trial = TrialRecord(number, params, **fields)
    for epoch, objective in enumerate(objectives, start=1):
        numbers = {"loss": 1.25 / epoch, "loss_normal": 1 / epoch, "loss_las": 0.25 / epoch}
        numbers |= {"image_auroc": objective, "image_ap": objective / 2}
        numbers |= {"pixel_auroc": objective / 4, "pixel_aupro": objective / 8} if masks else {}
        numbers |= {"worst_defect": objective / 2, "recall": objective / 4, "f1": objective / 8}
        numbers |= {"false_reject_rate": objective / 16}
        trial.add_epoch({"epoch": epoch, **numbers, "objective": objective, "seconds": 1.5})
    return trial
