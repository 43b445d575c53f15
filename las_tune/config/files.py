"""Atomic writing of files, and reading of files that are appended to line by line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from las_tune.errors import UserError


@contextmanager
def atomic_path(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which replaces `path` when the block succeeds.

    Args:
        path: the final file. It keeps its old content, or stays absent, when the block raises.
        durable: flush the file to the disk before it replaces `path`.
    """
    temporary = path.with_name(f"{path.name}.part")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file atomically. NaN and infinity, such as the ends of an unknown interval, become null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def whole_lines(path: Path) -> list[str]:
    """Return the lines of a file. An incomplete last line, which a killed process left, is removed from the file."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    return whole.decode("utf-8").splitlines()


def make_folder(folder: Path, flag: str = "--results") -> None:
    """Create a folder and its parents. `flag` is the option that an error names."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag} is not a writable folder: {error}", remedy="Choose another folder") from error


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
