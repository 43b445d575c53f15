"""Preserve the global state of the process that calls the library."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

Restore = Callable[[], object]
"""Function that restores the state at the time of its creation."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def preserve_host_process() -> Iterator[None]:
    """Restore the global state of the process on exit, also after an error.

    The state comprises environment variables, working directory, `sys.argv`, `sys.excepthook`, signal handlers, warning
    filters, loggers, the number of torch threads, and the global random states of Python, NumPy and torch. A library
    that is not imported yet has no state to restore. The state of MLflow is restored by
    `las_tune.tracking.connection.preserve_mlflow_state`.
    """
    snapshots = (_environment, _working_directory, _interpreter, _signals, _logging, _numpy_random, _torch)
    with warnings.catch_warnings(), ExitStack() as stack:
        for snapshot in snapshots:
            stack.callback(snapshot())
        stack.callback(random.setstate, random.getstate())
        yield


def _environment() -> Restore:
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

    return restore


def _working_directory() -> Restore:
    before = Path.cwd()
    return lambda: os.chdir(before)


def _interpreter() -> Restore:
    arguments, values, hook = sys.argv, list(sys.argv), sys.excepthook

    def restore() -> None:
        sys.argv = arguments
        sys.argv[:] = values
        sys.excepthook = hook

    return restore


def _signals() -> Restore:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        return lambda: None
    handlers = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in handlers.items():
            if handler is not None:  # None: not installed from Python, so Python cannot restore it
                signal.signal(number, handler)

    return restore


def _logging() -> Restore:
    """Loggers that are created later keep the configuration of the library that creates them."""
    disabled, root = logging.root.manager.disable, logging.root
    loggers = [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    before = [(each, each.level, list(each.handlers), each.propagate, each.disabled) for each in loggers]

    def restore() -> None:
        for logger, level, handlers, propagate, is_disabled in before:
            logger.setLevel(level)
            logger.handlers[:] = handlers
            logger.propagate, logger.disabled = propagate, is_disabled
        logging.disable(disabled)

    return restore


def _numpy_random() -> Restore:
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return lambda: None
    before = numpy.random.get_state()
    return lambda: numpy.random.set_state(before)


def _torch() -> Restore:
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    threads, random_state = torch.get_num_threads(), torch.get_rng_state()
    on_gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None

    def restore() -> None:
        torch.set_num_threads(threads)
        torch.set_rng_state(random_state)
        if on_gpus is not None:
            torch.cuda.set_rng_state_all(on_gpus)

    return restore
