"""Record of all evaluations on sealed tests. A test that is evaluated often is no longer an independent test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from las_tune.config import whole_lines

FILE = "test_openings.jsonl"


def count_opening(results: Path, folder: Path, images: Sequence[str], study: str, trials: int) -> int:
    """Record an opening of a sealed test, and return the number of openings of any of its images, including this one.

    A study that is resumed after a crash counts once. A study that is extended by more trials counts again.

    Args:
        results: folder of all studies; only openings in this folder are counted.
        folder: folder of the category.
        images: keys of the sealed test. Openings with some of the same images count, since another seed or holdout
            distributes the images differently.
        study: name of the study.
        trials: number of trials of the study.
    """
    file = results / FILE
    openings = [json.loads(text) for text in whole_lines(file)] if file.exists() else []
    line: dict[str, Any] = {"folder": str(folder), "study": study, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    line |= {"pictures": list(images), "trials": trials}
    identifying = ("folder", "study", "pictures", "trials")
    if not any(all(opening.get(name) == line[name] for name in identifying) for opening in openings):
        openings.append(line)
        with file.open("a", encoding="utf-8") as appended:
            appended.write(json.dumps(line) + "\n")
    return sum(
        opening["folder"] == str(folder) and not set(images).isdisjoint(opening["pictures"]) for opening in openings
    )
