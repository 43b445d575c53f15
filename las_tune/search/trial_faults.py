"""Errors of trials: which of them are worth a retry, and how a permanent failure is reported."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from las_tune.errors import type_and_message

FAILED, TRACEBACK = "failed", "traceback"
"""Keys of the last report of a trial that failed permanently: the error in one line, and the traceback."""


class NodeDrainingError(RuntimeError):
    """The trial's node is about to shut down. The trial resumes on another node from the checkpoint just written."""


TRANSIENT_ERRORS = (NodeDrainingError, torch.OutOfMemoryError, MemoryError, OSError, ray.exceptions.RayError)
"""Errors that a retry may avoid: memory in use by others, an unavailable disk or network, a lost node."""
PERMANENT_ERRORS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Subclasses of the transient errors that a retry would raise again."""
TRANSIENT_MESSAGES = ("CUDA error", "CUBLAS_STATUS", "cuDNN error", "DefaultCPUAllocator: can't allocate memory")
"""Parts of the messages of transient errors that torch raises as a plain RuntimeError."""
MAX_TRACEBACK_CHARS = 8000


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed. Training is deterministic, so its own errors would be raised again."""
    if isinstance(error, TRANSIENT_ERRORS):
        return not isinstance(error, PERMANENT_ERRORS)
    return isinstance(error, RuntimeError) and any(message in str(error) for message in TRANSIENT_MESSAGES)


@contextmanager
def report_permanent_failure(metric: str) -> Iterator[None]:
    """Report a permanent error in the block as the trial's last result. A transient error is raised, and Ray retries.

    Args:
        metric: metric that each report must contain; it is NaN here.
    """
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise
        trace = traceback.format_exc()[-MAX_TRACEBACK_CHARS:]
        tune.report({metric: float("nan"), FAILED: type_and_message(error), TRACEBACK: trace})


class StopOnFailureScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray has no type hints
    """Scheduler that runs every trial to its end, and stops those that reported a permanent failure."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return STOP for the report of report_permanent_failure."""
        return str(TrialScheduler.STOP if FAILED in result else TrialScheduler.CONTINUE)
