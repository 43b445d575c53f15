"""Wait for conditions and for servers."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from subprocess import Popen
from typing import Any


def wait_until(
    condition: Callable[[], object],
    what: str | Callable[[], str],
    timeout_s: float = 120,
    every_s: float = 0.05,
    process: Popen[Any] | None = None,
) -> None:
    """Wait until a condition holds.

    Args:
        condition: called repeatedly.
        what: message of the TimeoutError.
        timeout_s: maximum wait.
        every_s: interval between two calls.
        process: the wait also fails as soon as this process has ended.

    Raises: TimeoutError with `what`.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline or (process and process.poll() is not None):
            raise TimeoutError(what if isinstance(what, str) else what())
        time.sleep(every_s)


def wait_for_response(
    address: str, what: str | Callable[[], str] = "", timeout_s: float = 120, process: Popen[Any] | None = None
) -> bytes:
    """Wait until a server responds, and return the body of the response."""
    responses: list[bytes] = []

    def request() -> bool:
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                responses.append(response.read())
        except OSError:
            return False
        return True

    wait_until(request, what or address, timeout_s, every_s=0.2, process=process)
    return responses[0]
