"""Preprocess the arguments: --resume and --extend add the study's flags, a remote --address becomes `submit`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from las_tune.config import REMOTE_SCHEMES, paths
from las_tune.errors import UserError

RESUME, EXTEND = "--resume", "--extend"


def complete(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of tune. With --resume or --extend, flags that are left out are taken from study's command.

    Raises: UserError for a study that does not exist, and for trials that are added before the study has finished.
    """
    given = _by_flag(arguments)
    if not _is_tune(arguments) or (RESUME not in given and EXTEND not in given):
        return list(arguments)
    name = _value(given, "--study", "")
    results = Path(_value(given, "--results", str(paths.RESULTS))).absolute()
    folder = _folder(results, name)
    try:
        command = shlex.split((folder / paths.COMMAND).read_text(encoding="utf-8"))
        settings: dict[str, Any] = json.loads((folder / paths.STUDY).read_text(encoding="utf-8"))["asked"]
        recorded = _by_flag(command[command.index("las_tune") + 1 :])
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"The files of study {folder} are incomplete ({error})",
            remedy="Pass all of its flags, without --resume. To resume a study of the library, repeat the call",
        ) from error
    merged = {flag: words for flag, words in recorded.items() if flag not in (RESUME, EXTEND)} | given
    if EXTEND in given:
        if not (folder / paths.SUMMARY).is_file():
            raise UserError(
                f"{EXTEND} cannot add trials to study {name}, which has not finished",
                remedy=f"Finish it with {RESUME} --study {name}",
            )
        merged["--trials"] = ["--trials", str(settings["trials"] + _number(_value(given, EXTEND, "")))]
    return [word for words in merged.values() for word in words]


def as_submitted(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of tune as arguments of submit, if --address is that of a remote cluster."""
    if not _is_tune(arguments) or not _value(_by_flag(arguments), "--address", "").startswith(REMOTE_SCHEMES):
        return list(arguments)
    return ["submit", *(arguments[1:] if arguments[0] == "tune" else arguments), "--follow"]


def _is_tune(arguments: Sequence[str]) -> bool:
    return not arguments or arguments[0] == "tune" or arguments[0].startswith("--")


def _folder(results: Path, name: str) -> Path:
    """Return the folder of a study, or of the first study of a run."""
    folders = [results / name] if name else []
    folders += [file.parent for file in sorted(results.glob(f"{name}-*/{paths.STUDY}")) if name and _run(file) == name]
    folder = next((folder for folder in folders if (folder / paths.STUDY).is_file()), None)
    if folder is None:
        known = ", ".join(sorted(file.parent.name for file in results.glob(f"*/{paths.STUDY}")))
        raise UserError(
            f"There is no study {name} in {results}" if name else f"{RESUME} and {EXTEND} need a --study",
            remedy=f"Choose from {known}" if known else "Check --results, which contains no studies",
        )
    return folder


def _run(file: Path) -> str:
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["asked"]["run"])
    except (OSError, ValueError, KeyError):
        return ""


def _by_flag(arguments: Sequence[str]) -> dict[str, list[str]]:
    """Return the words of each flag, the flag included. A repeated flag has the words of all repetitions."""
    by_flag: dict[str, list[str]] = {}
    flag = ""
    for word in arguments:
        if word.startswith("--"):
            flag = word.partition("=")[0]
        if flag or word != "tune":
            by_flag.setdefault(flag, []).append(word)
    return by_flag


def _value(given: dict[str, list[str]], flag: str, default: str) -> str:
    """Return the value of a flag."""
    words = given.get(flag, [])
    text = words[0].partition("=")[2] if words and "=" in words[0] else " ".join(words[1:2])
    return text or default


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{EXTEND} must be at least 1, got {text!r}", remedy="Give the number of trials to add")
    return int(text)
