"""Every opening of a sealed test is written down: a test that is looked at often is no longer sealed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

FILE = "test_openings.jsonl"


def count_opening(results: Path, folder: Path, pictures: Sequence[str], study: str) -> int:
    """Write an opening down and return how many there were of any of these pictures, this one included.

    Args:
        results: the folder of all studies; openings of other folders are not known.
        folder: the category's.
        pictures: keys of the sealed test. Another seed or share mixes parts anew: a test that holds some of the same
            pictures was opened, too.
        study: who opens it.
    """
    line = {"folder": str(folder), "study": study, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with (results / FILE).open("a+", encoding="utf-8") as file:
        file.write(json.dumps(line | {"pictures": list(pictures)}) + "\n")
        file.seek(0)
        opened = [json.loads(text) for text in file]
    return sum(one["folder"] == str(folder) and not set(pictures).isdisjoint(one["pictures"]) for one in opened)
