"""Every opening of a sealed test is written down: a test that is looked at often is no longer sealed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from las_tune.config.files import whole_lines

FILE = "test_openings.jsonl"


def count_opening(results: Path, folder: Path, images: Sequence[str], study: str, trials: int) -> int:
    """Write an opening down and return how many there were of any of these images, this one included.

    A study that goes on after its driver died has opened its test once; one that got more trials opens it again.

    Args:
        results: the folder of all studies; openings of other folders are not known.
        folder: the category's.
        images: keys of the sealed test. Another seed or share mixes parts anew: a test that holds some of the same
            images was opened, too.
        study: who opens it.
        trials: how many that has.
    """
    file = results / FILE
    opened = [json.loads(text) for text in whole_lines(file)] if file.exists() else []
    line: dict[str, Any] = {"folder": str(folder), "study": study, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    line |= {"pictures": list(images), "trials": trials}
    same = ("folder", "study", "pictures", "trials")
    if not any(all(one.get(name) == line[name] for name in same) for one in opened):
        opened.append(line)
        with file.open("a", encoding="utf-8") as appended:
            appended.write(json.dumps(line) + "\n")
    return sum(one["folder"] == str(folder) and not set(images).isdisjoint(one["pictures"]) for one in opened)
