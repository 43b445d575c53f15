"""Every opening of a sealed test is written down: a test that is looked at often is no longer sealed."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

FILE = "test_openings.jsonl"


def count_opening(results: Path, category: str, digest: str, study: str) -> int:
    """Write an opening down and return how many there were of this sealed test, this one included.

    Args:
        results: the folder of all studies; openings of other folders are not known.
        category: name of the category.
        digest: of the sealed test's pictures, as in splits.json.
        study: who opens it.
    """
    line = {"category": category, "digest": digest, "study": study, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with (results / FILE).open("a+", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.seek(0)
        opened = [json.loads(text) for text in file]
    return sum((one["category"], one["digest"]) == (category, digest) for one in opened)
