"""Provenance tags, and passwords in texts."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import las_tune
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import without_password
from las_tune.tracking import provenance
from las_tune.tracking.provenance import git_commit, provenance_tags
from tests.parts import part_spec


def spec_of(train: TrainSpec | None = None, **fields: Any) -> StudySpec:
    return part_spec(Path("/data"), train or TrainSpec(), **fields)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:hush@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql+psycopg2://me:hush@host/db", "postgresql+psycopg2://***@host/db"),
        ("http://token@host", "http://***@host"),
        ("http://me:hu@sh@host/x", "http://***@host/x"),
        ("http://me:hush@a then http://you:hush@b", "http://***@a then http://***@b"),
        ("--tracking-uri 'http://me:hush@host' --seed 1", "--tracking-uri 'http://***@host' --seed 1"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("me@host", "me@host"),
        ("", ""),
    ],
)
def test_passwords_are_hidden(text: str, shown: str) -> None:
    assert without_password(text) == shown


def test_tags_describe_the_study() -> None:
    train = TrainSpec(seed=7, backbone="resnet18", backbone_weights="random", objective="image_auroc")
    tags = provenance_tags(spec_of(train, study="first", demo=True))
    assert all(isinstance(value, str) and value for value in tags.values())
    expected = {
        "category": "part",
        "study": "first",
        "demo": "true",
        "seed": "7",
        "backbone": "resnet18",
        "backbone_weights": "random",
        "objective": "image_auroc",
        "validation": "labelled",
        "protocol": "sealed",
        "git_commit": git_commit(),
        "version.las_tune": las_tune.__version__,
        "version.python": platform.python_version(),
        "version.torch": version("torch"),
        "version.mlflow": version("mlflow"),
        "version.ray": version("ray"),
        "version.scikit-learn": version("scikit-learn"),
    }
    assert tags.items() >= expected.items()
    assert not {"run", "test-selected", "test-watched"} & tags.keys()
    assert provenance_tags(spec_of(train))["demo"] == "false"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"protocol": "paper"}, {"protocol": "paper", "test-selected": "true"}),
        ({"leakage_gap": True}, {"protocol": "sealed", "test-watched": "true"}),
        ({"validation": "synthetic"}, {"validation": "synthetic", "protocol": "sealed"}),
        ({"run": "night", "study": "night-part"}, {"run": "night", "study": "night-part"}),
    ],
    ids=lambda value: next(iter(value)),
)
def test_use_of_test_images_is_tagged(fields: dict[str, Any], expected: dict[str, str]) -> None:
    tags = provenance_tags(spec_of(**fields))
    assert tags.items() >= expected.items()
    warnings = {"test-selected", "test-watched"}
    assert warnings & tags.keys() == warnings & expected.keys()


def test_a_missing_package_has_no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "PACKAGES", ("torch", "no-such-package"))
    tags = provenance_tags(spec_of())
    assert "version.torch" in tags and "version.no-such-package" not in tags


def git(folder: Path, *arguments: str) -> str:
    """Run git with a test identity, and return its output."""
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit that seems to contain the package."""
    package = tmp_path / "repo/las_tune/tracking"
    package.mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    (package / "provenance.py").write_text("")
    for command in ("init --quiet", "add .", "commit --quiet --message one"):
        git(package.parents[1], *command.split())
    return package


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    head = git(checkout, "rev-parse", "HEAD")
    assert re.fullmatch(r"[0-9a-f]{40}", head)
    assert git_commit() == head
    git(checkout, "tag", "--annotate", "v1", "--message", "v1")
    assert git_commit() == head, "the tag must not replace the commit"
    (checkout / "provenance.py").write_text("changed")
    assert git_commit() == head + "-dirty"


def test_outside_a_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert git_commit() == "unknown"


def test_without_git_the_commit_is_unknown(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert git_commit() == "unknown"


def test_the_commit_of_a_foreign_repository_is_ignored(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed in an ignored virtual environment inside a user's own repository."""
    installed = checkout.parents[1] / ".venv/lib/las_tune/tracking"
    installed.mkdir(parents=True)
    (checkout.parents[1] / ".git/info/exclude").write_text(".venv\n")
    monkeypatch.setattr(provenance, "__file__", str(installed / "provenance.py"))
    assert git_commit() == "unknown"
