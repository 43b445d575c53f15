"""What is typed, before it is parsed: flags that a study was begun with, and studies that are another cluster's."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from las_tune.config import paths
from las_tune.config.study_spec import ELSEWHERE
from las_tune.errors import UserError

RESUME, EXTEND = "--resume", "--extend"


def complete(arguments: Sequence[str]) -> list[str]:
    """The arguments of tune, those that --resume or --extend leaves out taken from the study's own command.

    Raises: UserError for a study that was never begun, and for one that is given more trials before it has ended.
    """
    given = _by_flag(arguments)
    if not _is_tune(arguments) or (RESUME not in given and EXTEND not in given):
        return list(arguments)
    name = _value(given, "--study", "")
    results = Path(_value(given, "--results", str(paths.RESULTS))).absolute()
    folder = _folder(results, name)
    try:
        command = shlex.split((folder / paths.COMMAND).read_text(encoding="utf-8"))
        asked: dict[str, Any] = json.loads((folder / paths.STUDY).read_text(encoding="utf-8"))["asked"]
        typed = command[command.index("las_tune") + 1 :]
    except (OSError, ValueError, KeyError) as error:
        do = "give all its flags without --resume; what the library began, goes on by the same call"
        raise UserError("A study that goes on must have its files whole", f"{folder} ({error})", do) from error
    recorded = _by_flag(typed)
    merged = {flag: words for flag, words in recorded.items() if flag not in (RESUME, EXTEND)} | given
    if EXTEND in given:
        if not (folder / paths.SUMMARY).is_file():
            raise UserError(f"{EXTEND} adds trials to a finished study", name, f"finish it: {RESUME} --study {name}")
        merged["--trials"] = ["--trials", str(asked["trials"] + _number(_value(given, EXTEND, "")))]
    return [word for words in merged.values() for word in words]


def as_submitted(arguments: Sequence[str]) -> list[str]:
    """The arguments of tune as those of submit, where --address is that of a cluster elsewhere."""
    if not _is_tune(arguments) or not _value(_by_flag(arguments), "--address", "").startswith(ELSEWHERE):
        return list(arguments)
    return ["submit", *(arguments[1:] if arguments[0] == "tune" else arguments), "--follow"]


def _is_tune(arguments: Sequence[str]) -> bool:
    return not arguments or arguments[0] == "tune" or arguments[0].startswith("--")


def _folder(results: Path, name: str) -> Path:
    """Of a study, or of the first study of a run."""
    folders = [results / name] if name else []
    folders += [file.parent for file in sorted(results.glob(f"{name}-*/{paths.STUDY}")) if name and _run(file) == name]
    found = next((folder for folder in folders if (folder / paths.STUDY).is_file()), None)
    if found is None:
        known = ", ".join(sorted(file.parent.name for file in results.glob(f"*/{paths.STUDY}"))) or "none"
        rule = f"{RESUME} and {EXTEND} need the --study that they go on with, in --results"
        raise UserError(rule, f"{name or 'no --study'} in {results}", f"Known: {known}")
    return found


def _run(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["asked"]["run"])
    except (OSError, ValueError, KeyError):
        return ""


def _by_flag(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Words by the flag that they belong to; of a flag that is repeated, all."""
    found: dict[str, list[str]] = {}
    flag = ""
    for word in arguments:
        if word.startswith("--"):
            flag = word.partition("=")[0]
        if flag or word != "tune":
            found.setdefault(flag, []).append(word)
    return found


def _value(given: dict[str, list[str]], flag: str, otherwise: str) -> str:
    """What follows a flag."""
    words = given.get(flag, [])
    text = words[0].partition("=")[2] if words and "=" in words[0] else " ".join(words[1:2])
    return text or otherwise


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{EXTEND} must be the number of trials to add, at least 1", repr(text))
    return int(text)
