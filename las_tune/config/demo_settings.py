"""What --demo changes: where its images lie, and flags small enough for a laptop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.errors import UserError

DEMO: dict[str, Any] = {
    "trials": 6, "finalists": 1, "seeds": 3, "epochs": 8, "image_size": 224, "batch_size": 2,
    "backbone": "efficientnet_lite0",
}  # fmt: skip
"""Values of flags that are not given with --demo. Small batches, for steps enough in few epochs of few images."""


def demo_folders(categories: list[str]) -> tuple[Path, Path]:
    """Folders of the rendered parts and textures, apart from any real data."""
    ours = paths.DEMO_CATEGORY
    if categories != [ours]:
        raise UserError(f"--demo renders {ours} only", ", ".join(categories), f"use --category {ours} --demo")
    return paths.DEMO_DATA_ROOT, paths.DEMO_TEXTURES
