"""Effects of --demo: the folders of the rendered images, and defaults that are small enough for a laptop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.errors import UserError

DEMO_DEFAULTS: dict[str, Any] = {
    "trials": 6, "finalists": 1, "seeds": 3, "epochs": 8, "image_size": 224, "batch_size": 2,
    "backbone": "efficientnet_lite0",
}  # fmt: skip
"""Defaults of options with --demo. The batch is small, so that a few epochs of a few images have enough steps."""


def demo_folders(categories: Sequence[str]) -> tuple[Path, Path]:
    """Return the folders of the rendered parts and textures, which are separate from any real data.

    Raises: UserError for any category but the rendered one.
    """
    rendered = paths.DEMO_CATEGORY
    if list(categories) != [rendered]:
        raise UserError(
            f"--demo renders {rendered} only, got --category {', '.join(categories)}",
            remedy=f"Use --category {rendered} --demo",
        )
    return paths.DEMO_DATA_ROOT, paths.DEMO_TEXTURES
