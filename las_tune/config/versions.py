"""What is installed here: a fleet gives one study's numbers only where every machine has the same."""

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
"""What decides numbers, or what is pickled from machine to machine."""
CONSTRAINTS = Path(las_tune.__path__[0]).parent / paths.CONSTRAINTS
ABSENT = "absent"


def installed_versions() -> dict[str, str]:
    """Version by name: Python's first two numbers, a digest of our own sources, the packages that matter."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, "las_tune": source_digest()} | {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str:
    """Without the part after +, which names a build for one kind of processor."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ABSENT


@lru_cache(maxsize=1)
def source_digest() -> str:
    """The first twelve digits of a SHA-256 over our modules and search spaces, by name and content."""
    package = Path(las_tune.__path__[0])
    files = [*package.rglob("*.py"), *package.parent.glob("search_spaces/*.toml")]
    digest = hashlib.sha256()
    for name, file in sorted((file.relative_to(package.parent).as_posix(), file) for file in files):
        digest.update(f"{name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def wanted_versions(constraints: Path) -> dict[str, str]:
    """Of the packages that matter, the versions that constraints.txt names."""
    try:
        lines = constraints.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError("--constraints must be a file that can be read", f"{constraints} ({error.strerror})") from error
    named = (line.partition("==") for line in lines)
    return {name.lower(): value.strip() for name, _, value in named if name.lower() in PACKAGES}


def require_same(wanted: Mapping[str, str], found: Mapping[str, str], who: str, do: str) -> None:
    """Raise UserError, naming what differs, unless found has every version that wanted has."""
    differing = {name: (found.get(name, ABSENT), value) for name, value in wanted.items() if found.get(name) != value}
    if differing:
        told = ", ".join(f"{name} {here} instead of {there}" for name, (here, there) in sorted(differing.items()))
        raise UserError(f"{who} must have the same versions", told, do)


def as_labels(versions: Mapping[str, str]) -> dict[str, str]:
    """Versions as labels of a Ray node; what a label cannot hold becomes a hyphen."""
    return {f"las_tune.{name}": re.sub(r"[^A-Za-z0-9_.-]", "-", value) for name, value in versions.items()}


def from_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The versions among the labels of a Ray node; none where it was started without."""
    start = "las_tune."
    return {name.removeprefix(start): value for name, value in labels.items() if name.startswith(start)}
