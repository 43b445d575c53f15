"""What writes the record knows nothing of what runs the trials."""

from __future__ import annotations

import ast
from pathlib import Path

import las_tune.tracking

FOLDER = Path(las_tune.tracking.__path__[0])


def test_tracking_imports_no_ray_and_no_tuning() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] != "ray" and not name.startswith("las_tune.tuning"), f"{path.name}: {name}"
