"""Waiting for what a test has set off: one way for all of them."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from subprocess import Popen
from typing import Any


def wait_until(
    is_so: Callable[[], object],
    what: str | Callable[[], str],
    timeout_s: float = 120,
    every_s: float = 0.05,
    process: Popen[Any] | None = None,
) -> None:
    """Until something is so; `what` is told where it does not come in time, or the process ends before."""
    ends = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > ends or (process and process.poll() is not None):
            raise TimeoutError(what if isinstance(what, str) else what())
        time.sleep(every_s)


def wait_for_answer(
    address: str, what: str | Callable[[], str] = "", timeout_s: float = 120, process: Popen[Any] | None = None
) -> bytes:
    """What a server that is about to start answers."""
    answers: list[bytes] = []

    def ask() -> bool:
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                answers.append(answer.read())
        except OSError:
            return False
        return True

    wait_until(ask, what or address, timeout_s, every_s=0.2, process=process)
    return answers[0]
