"""Ctrl-C may come at any moment, but not between two accounts of one event."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Interrupts that come in the block are raised at its end. (Masks would not do: other threads take the signal.)"""
    if threading.current_thread() is not threading.main_thread():  # Python interrupts the main thread only
        yield
        return
    came: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)
