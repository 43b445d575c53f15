"""What a fault of a trial means: whether another try can help, and what is told of one that cannot."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from las_tune.errors import one_line

FAILED, TRACEBACK = "failed", "traceback"
"""Of a trial's last report: why it failed, in a line, and where."""


class HandedOverError(RuntimeError):
    """Its machine is about to go: the trial goes on elsewhere, from the checkpoint that it has just written."""


PASSING = (HandedOverError, torch.OutOfMemoryError, MemoryError, OSError, ray.exceptions.RayError)
"""Memory that others had, a disk or a network that was away, a machine that went."""
LASTING = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
"""Of the above, what is the same at the next try."""
SPOILT = ("CUDA error", "CUBLAS_STATUS", "cuDNN error", "DefaultCPUAllocator: can't allocate memory")
"""What torch raises as a plain RuntimeError, and another process or moment need not meet."""
LONGEST_TRACEBACK = 8000


def may_pass(error: BaseException) -> bool:
    """Whether another try may end otherwise. A training repeats exactly, so its own mistakes do, too."""
    if isinstance(error, PASSING):
        return not isinstance(error, LASTING)
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SPOILT)


@contextmanager
def failing_for_good(metric: str) -> Iterator[None]:
    """Around a trial: an error that will not pass is reported, and ends the trial; others are Ray's, which tries again.

    metric: what every report must have.
    """
    try:
        yield
    except Exception as error:
        if may_pass(error):
            raise
        told = traceback.format_exc()[-LONGEST_TRACEBACK:]
        tune.report({metric: float("nan"), FAILED: one_line(error), TRACEBACK: told})


class EndsFailed(FIFOScheduler):  # type: ignore[misc]  # ray ships no types for it
    """Lets every trial run, but those that have failed for good."""

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop after the report of failing_for_good."""
        return str(TrialScheduler.STOP if FAILED in result else TrialScheduler.CONTINUE)
