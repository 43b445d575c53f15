"""Studies of version 0.1.0 with their MLflow store: one finished, one whose driver was killed after its first trial.

They were made with that version, in /las_tune_golden, on the rendered images of the demo (64 px, two epochs):

    python -m las_tune --category bracket_black --demo --study finished --results /las_tune_golden/results --trials 3 \
        --finalists 1 --seeds 2 --epochs 2 --image-size 64 --max-concurrent 1 --seed 3 --model-weights reference \
        --validation synthetic

and the same with `--study interrupted --trials 4`. What tests do not read is left out: images, figures, checkpoints of
pruned epochs, optimizer states. The weights that remain are rounded to bfloat16, so that they compress.
"""

from __future__ import annotations

import sqlite3
import tarfile
from pathlib import Path

import pytest

ARCHIVE = Path(__file__).with_name("version_0_1_0.tar.xz")
MADE_IN = "/las_tune_golden"
"""The folder in which the studies were made: a store holds absolute paths."""


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """The results folder of version 0.1.0, as if it had been made in tmp_path."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    results = tmp_path / "results"
    for file in results.rglob("*"):
        if file.suffix in (".json", ".jsonl", ".txt", ".journal", ".yaml", "") and file.is_file():
            file.write_text(file.read_text(encoding="utf-8").replace(MADE_IN, str(tmp_path)), encoding="utf-8")
    _move_store(results / "mlflow.db", MADE_IN, str(tmp_path))
    return results


def _move_store(file: Path, old: str, new: str) -> None:
    """Replace a folder in every text column of an MLflow database."""
    database = sqlite3.connect(file)
    with database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in list(database.execute(f"PRAGMA table_info({table})")):
                if kind.upper().startswith(("VARCHAR", "TEXT", "STRING")):
                    database.execute(f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?)', (old, new))
    database.close()
