"""Every opening of a sealed test is written down: a test that is looked at often is no longer sealed."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

FILE = "test_openings.jsonl"


def count_opening(results: Path, category: str, digest: str, study: str, is_whole_test: bool = False) -> int:
    """Write an opening down and return how many there were of this sealed test, this one included.

    Args:
        results: the folder of all studies; openings of other folders are not known.
        category: name of the category.
        digest: of the sealed test's pictures, as in splits.json.
        study: who opens it.
        is_whole_test: whether all test pictures are looked at, and with them every sealed test of this category.
    """
    line = {"category": category, "digest": digest, "study": study, "time": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    line |= {"whole_test": "true"} if is_whole_test else {}
    with (results / FILE).open("a+", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.seek(0)
        opened = [json.loads(text) for text in file]
    opened = [one for one in opened if one["category"] == category]
    return sum(is_whole_test or one["digest"] == digest or "whole_test" in one for one in opened)
