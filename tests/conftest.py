"""Shared fixtures. Heavy imports are local, because tests of the numerical core need only torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.parts import Run


@pytest.fixture(autouse=True, scope="module")
def same_store_after_module() -> Iterator[None]:
    """Reset MLflow after each file of tests, within which tests may share a store."""
    yield
    reset_mlflow()


@pytest.fixture
def same_store_afterwards() -> Iterator[None]:
    """Reset MLflow after the test."""
    yield
    reset_mlflow()


def reset_mlflow() -> None:
    """Reset the URIs of the store and of the registry, which are global variables of MLflow."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None:
        mlflow.set_tracking_uri("")
        mlflow.set_registry_uri("")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return a function that runs a command in tmp_path."""
    from tests.parts import run_command

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: run_command(monkeypatch, capsys, list(arguments))
