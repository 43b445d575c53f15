"""Versions of the installed packages. Results are comparable only if all machines have the same versions."""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import las_tune
from las_tune.config import paths
from las_tune.errors import UserError

PACKAGES = ("torch", "torchvision", "ray", "optuna", "cmaes", "mlflow", "numpy", "scipy", "scikit-learn", "pillow")
"""Packages that affect numbers, or whose objects are pickled between machines."""
CONSTRAINTS = Path(las_tune.__path__[0]).parent / paths.CONSTRAINTS
ABSENT = "absent"


def installed_versions() -> dict[str, str]:
    """Return versions by name: of Python (major.minor), of las_tune (a digest of its sources), and of PACKAGES."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "las_tune": source_digest()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    """Return the version without the local part after "+", which differs between CPU and GPU builds."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ABSENT


@lru_cache(maxsize=1)
def source_digest() -> str:
    """Return the first twelve hexadecimal digits of a SHA-256 of our modules and search spaces, by name and content."""
    package = Path(las_tune.__path__[0])
    files = [*package.rglob("*.py"), *package.parent.glob("search_spaces/*.toml")]
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(package.parent).as_posix(), file) for file in files):
        digest.update(f"{name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def pinned_versions(constraints: Path) -> dict[str, str]:
    """Return the versions of PACKAGES that a constraints file pins.

    Raises: UserError for a file that cannot be read.
    """
    try:
        lines = constraints.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"--constraints {constraints} cannot be read: {error.strerror}", remedy="Give the path of a constraints.txt"
        ) from error
    pins = (line.partition("==") for line in lines)
    return {name.lower(): pinned.strip() for name, _, pinned in pins if name.lower() in PACKAGES}


def require_same_versions(expected: Mapping[str, str], installed: Mapping[str, str], who: str, remedy: str) -> None:
    """Raise UserError with the differences, unless every expected version is installed.

    Args:
        expected, installed: versions by name.
        who: the two things that are compared, as the subject of a sentence.
        remedy: second sentence of the error.
    """
    differing = [name for name in sorted(expected) if installed.get(name) != expected[name]]
    if differing:
        listed = ", ".join(f"{name} is {installed.get(name, ABSENT)} instead of {expected[name]}" for name in differing)
        raise UserError(f"{who} have different versions: {listed}", remedy=remedy)


def as_labels(versions: Mapping[str, str]) -> dict[str, str]:
    """Return versions as labels of a Ray node, with a hyphen for characters that a label cannot have."""
    return {f"las_tune.{name}": re.sub(r"[^A-Za-z0-9_.-]", "-", value) for name, value in versions.items()}


def from_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the versions from the labels of a Ray node; empty if the node was started without them."""
    prefix = "las_tune."
    return {name.removeprefix(prefix): value for name, value in labels.items() if name.startswith(prefix)}
