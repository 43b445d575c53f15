"""What tests of several folders share; what is heavy is imported where it is used: the core needs torch alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.parts import Run


@pytest.fixture
def same_store_afterwards() -> Iterator[None]:
    """The store in use is a global of MLflow: the next test starts without one."""
    yield
    import mlflow

    mlflow.set_tracking_uri("")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """A function that runs a command in tmp_path."""
    from tests.parts import run_command

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(monkeypatch, capsys, list(arguments))
