"""What tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.parts import Run, run_command


@pytest.fixture
def same_store_afterwards() -> Iterator[None]:
    """The store in use is a global of MLflow: the next test starts without one."""
    yield
    mlflow.set_tracking_uri("")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """A function that runs a command in tmp_path."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(monkeypatch, capsys, list(arguments))
