"""Tags with the provenance of a study: versions, commit, seed, and whether the test set was used for selection."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from las_tune import __version__
from las_tune.config import PACKAGES, StudySpec


def provenance_tags(spec: StudySpec) -> dict[str, str]:
    """Return the tags of every run of a study.

    `test-selected` marks studies that select on the test set, `test-watched` those that score it in every epoch.
    """
    tags = {
        "category": spec.category,
        "study": spec.study,
        "demo": str(spec.demo).lower(),
        "seed": str(spec.train.seed),
        "backbone": spec.train.backbone,
        "backbone_weights": spec.train.backbone_weights,
        "objective": spec.train.objective,
        "validation": spec.validation,
        "protocol": spec.protocol,
        "git_commit": git_commit(),
        "version.las_tune": __version__,
        "version.python": platform.python_version(),
    }
    tags |= {"run": spec.run} if spec.run else {}
    tags |= {"test-selected": "true"} if spec.is_test_selected else {}
    tags |= {"test-watched": "true"} if spec.leakage_gap else {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            tags[f"version.{package}"] = version(package)  # with the part after +, which names the build
    return tags


def git_commit() -> str:
    """Return the commit of this checkout, with `-dirty` if files differ from it; `unknown` outside a checkout."""
    folder = Path(__file__).parent
    try:
        is_tracked = [
            "git",
            "ls-files",
            "--error-unmatch",
            Path(__file__).name,
        ]  # else: installed in a foreign checkout
        subprocess.run(is_tracked, cwd=folder, capture_output=True, timeout=10, check=True)
        commit = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"],
            cwd=folder, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.stdout.strip()
